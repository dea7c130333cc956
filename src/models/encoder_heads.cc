#include "models/encoder_heads.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "weights/weight_source.h"

namespace spillway::models {

using kernels::Activation;
using tensor::TensorView;

Result<SentenceHead> SentenceHead::load(const SentenceConfig& config, int hidden, nn::LoadContext& context) {
  SentenceHead head;
  head.config_ = config;
  head.dims_ = hidden;
  for (const SentenceDense& dense : config.dense) {
    if (dense.inputs != head.dims_) {
      return invalid(
          fmt::format("{}/config.json: in_features: expected {}, found {}", dense.folder, head.dims_, dense.inputs));
    }
    SW_ASSIGN(const auto source, weights::open_safetensors(dense.folder + "/model.safetensors"));
    SW_ASSIGN(nn::OneShotLinear product, nn::OneShotLinear::load(weights::WeightScope(*source),
                                                                 {{"linear", dense.outputs}}, dense.inputs, context));
    head.dense_.push_back(std::move(product));
    head.dims_ = dense.outputs;
  }
  return head;
}

TensorView SentenceHead::apply(TensorView x, const nn::OneShotStep& step) const {
  const auto sequences = int64_t(step.offsets.size()) - 1;
  TensorView pooled = step.arena.f32({sequences, x.shape[1]});
  kernels::pool_rows(x, step.offsets, config_.pooling, pooled, step.stream);
  step.count();
  for (size_t i = 0; i < dense_.size(); ++i) {
    const TensorView y = step.arena.f32({sequences, dense_[i].outputs()});
    dense_[i].apply(pooled, y, config_.dense[i].activation, step);
    pooled = y;
  }
  if (!config_.normalize) return pooled;
  for (int64_t s = 0; s < sequences; ++s) {
    float* row = pooled.as<float>() + s * dims_;
    double squares = 0;
    for (int i = 0; i < dims_; ++i) squares += double(row[i]) * double(row[i]);
    const auto scale = float(1 / std::max(std::sqrt(squares), 1e-12));
    for (int i = 0; i < dims_; ++i) row[i] *= scale;
  }
  return pooled;
}

Result<ClassifierHead> ClassifierHead::load(const weights::WeightScope& scope, const ClassifierNames& names, int hidden,
                                            int labels, double epsilon, nn::LoadContext& context) {
  ClassifierHead head;
  head.names_ = names;
  if (!names.dense.empty()) {
    SW_ASSIGN(head.dense_, nn::OneShotLinear::load(scope, {{names.dense, hidden}}, hidden, context));
  }
  if (!names.norm.empty()) {
    SW_ASSIGN(head.norm_, nn::LayerNorm::load(scope, names.norm, hidden, epsilon, context));
  }
  if (!names.output.empty()) {
    SW_ASSIGN(head.output_, nn::OneShotLinear::load(scope, {{names.output, labels}}, hidden, context));
  }
  return head;
}

TensorView ClassifierHead::apply(TensorView x, const nn::OneShotStep& step) const {
  const auto sequences = int64_t(step.offsets.size()) - 1;
  TensorView pooled = step.arena.f32({sequences, x.shape[1]});
  kernels::pool_rows(x, step.offsets, names_.pooling, pooled, step.stream);
  step.count();
  if (dense_) {
    const TensorView y = step.arena.f32(pooled.shape);
    dense_->apply(pooled, y, names_.activation, step);
    pooled = y;
  }
  if (norm_) norm_->apply(pooled, pooled, step);
  if (!output_) return pooled;
  const TensorView scores = step.arena.f32({sequences, output_->outputs()});
  output_->apply(pooled, scores, Activation::kNone, step);
  return scores;
}

Result<SparseHead> SparseHead::load(const weights::WeightScope& scope, const weights::WeightScope& words,
                                    const EncoderConfig& config, nn::LoadContext& context) {
  SparseHead head;
  const MaskedLmNames& names = config.names.masked_lm;
  const int64_t hidden = config.layer.hidden;
  head.vocabulary_ = config.vocab_size;
  head.activation_ = config.layer.activation;
  SW_ASSIGN(head.dense_, nn::OneShotLinear::load(scope, {{names.dense, hidden}}, hidden, context));
  SW_ASSIGN(head.norm_, nn::LayerNorm::load(scope, names.norm, hidden, config.layer.epsilon, context));
  const nn::MatrixRow own{names.decoder, head.vocabulary_}, tied{config.names.words, head.vocabulary_};
  const bool has_own = scope.contains(names.decoder + ".weight");
  SW_ASSIGN(head.decoder_,
            nn::load_matrices(has_own ? scope : words, std::span(has_own ? &own : &tied, 1), hidden, context));
  if (scope.contains(names.bias)) {
    SW_ASSIGN(head.bias_, scope.f32(names.bias, {head.vocabulary_}));
  }
  return head;
}

size_t SparseHead::workspace_bytes(const EncoderConfig& config, int64_t inputs) {
  const auto bytes = [](int64_t rows, int64_t width) {
    return tensor::Arena::footprint(tensor::DType::kF32, {rows, width});
  };
  return bytes(inputs, config.vocab_size) + bytes(kRows, config.vocab_size) + bytes(kRows, config.layer.hidden);
}

TensorView SparseHead::apply(TensorView x, const nn::OneShotStep& step) const {
  const auto sequences = int64_t(step.offsets.size()) - 1;
  const int64_t hidden = x.shape[1];
  const TensorView weights = step.arena.f32({sequences, vocabulary_});
  const TensorView logits = step.arena.f32({kRows, vocabulary_}), transformed = step.arena.f32({kRows, hidden});
  std::memset(weights.data, 0, weights.bytes());
  for (int64_t s = 0; s < sequences; ++s) {
    float* best = weights.as<float>() + s * vocabulary_;
    for (int64_t begin = step.offsets[size_t(s)]; begin < step.offsets[size_t(s) + 1]; begin += kRows) {
      const int64_t rows = std::min<int64_t>(kRows, step.offsets[size_t(s) + 1] - begin);
      const TensorView y = transformed.rows(0, rows), z = logits.rows(0, rows);
      dense_.apply(x.rows(begin, begin + rows), y, activation_, step);
      norm_.apply(y, y, step);
      kernels::linear(y, decoder_, z, step.stream, {.bias = bias_.view()});
      step.count();
      const float* logit = z.as<float>();
      step.stream.parallel_for(vocabulary_, 4096, [&](int64_t first, int64_t last, int) {
        for (int64_t r = 0; r < rows; ++r) {
          for (int64_t i = first; i < last; ++i) best[i] = std::max(best[i], logit[r * vocabulary_ + i]);
        }
      });
    }
  }
  // The logarithm rises with the logit, so it is taken of the largest alone.
  float* all = weights.as<float>();
  step.stream.parallel_for(weights.elements(), 4096, [&](int64_t first, int64_t last, int) {
    for (int64_t i = first; i < last; ++i) all[i] = all[i] > 0 ? std::log1p(all[i]) : 0.0f;
  });
  return weights;
}

}  // namespace spillway::models
