#include "models/device_encoder_heads.h"

#include <fmt/format.h>

#include <algorithm>

#include "tensor/cuda/cuda.h"
#include "weights/weight_source.h"

namespace spillway::models {

using kernels::Activation;
using kernels::DeviceLinear;
using kernels::DeviceNumbers;
using tensor::DType;
using tensor::TensorView;

namespace {

// Heads see one row a text: their products are not worth quantising.
DeviceNumbers head_numbers(DeviceNumbers numbers) {
  return numbers == DeviceNumbers::kFp8 ? DeviceNumbers::kFp16 : numbers;
}

TensorView pool(TensorView x, kernels::Pooling pooling, DType type, const DeviceHeadPass& head) {
  const TensorView y = head.arena.allocate(type, {head.sequences(), x.shape[1]});
  kernels::device_pool(x, head.offsets, pooling, y, head.pass.stream);
  head.pass.count();
  return y;
}

void norm_in_place(const nn::LayerNorm& norm, TensorView x, const DeviceHeadPass& head) {
  kernels::DeviceNormArgs args;
  args.x = args.y = x;
  args.weight = norm.weight();
  if (!norm.bias().empty()) args.bias = norm.bias();
  args.eps = norm.epsilon();
  kernels::device_norm(args, head.pass.stream);
  head.pass.count();
}

}  // namespace

Result<DeviceSentenceHead> DeviceSentenceHead::load(const SentenceConfig& config, int hidden, DeviceNumbers numbers,
                                                    nn::LoadContext& context) {
  DeviceSentenceHead head;
  head.config_ = config;
  head.dims_ = hidden;
  numbers = head_numbers(numbers);
  for (const SentenceDense& dense : config.dense) {
    if (dense.inputs != head.dims_) {
      return invalid(
          fmt::format("{}/config.json: in_features: expected {}, found {}", dense.folder, head.dims_, dense.inputs));
    }
    const DType type = &dense == &config.dense.back() ? DType::kF32 : kernels::activation_type(numbers);
    SW_ASSIGN(const auto source, weights::open_safetensors(dense.folder + "/model.safetensors"));
    SW_ASSIGN(DeviceLinear product, nn::load_device_linear(weights::WeightScope(*source), {{"linear", dense.outputs}},
                                                           dense.inputs, numbers, type, context));
    head.dense_.push_back(std::move(product));
    head.dims_ = dense.outputs;
  }
  return head;
}

TensorView DeviceSentenceHead::apply(TensorView x, const DeviceHeadPass& head) const {
  TensorView pooled = pool(x, config_.pooling, dense_.empty() ? DType::kF32 : x.dtype, head);
  for (size_t i = 0; i < dense_.size(); ++i) {
    const TensorView y =
        head.arena.allocate(i + 1 == dense_.size() ? DType::kF32 : x.dtype, {head.sequences(), dense_[i].n});
    nn::device_linear({.x = pooled, .weight = &dense_[i], .activation = config_.dense[i].activation, .y = y},
                      head.pass);
    pooled = y;
  }
  if (!config_.normalize) return pooled;
  kernels::device_normalize(pooled, head.pass.stream);
  head.pass.count();
  return pooled;
}

Result<DeviceClassifierHead> DeviceClassifierHead::load(const weights::WeightScope& scope, const ClassifierNames& names,
                                                        int hidden, int labels, double epsilon, DeviceNumbers numbers,
                                                        nn::LoadContext& context) {
  DeviceClassifierHead head;
  head.names_ = names;
  numbers = head_numbers(numbers);
  if (!names.dense.empty()) {
    const DType type = names.output.empty() ? DType::kF32 : kernels::activation_type(numbers);
    SW_ASSIGN(head.dense_, nn::load_device_linear(scope, {{names.dense, hidden}}, hidden, numbers, type, context));
  }
  if (!names.norm.empty()) {
    SW_ASSIGN(head.norm_, nn::LayerNorm::load(scope, names.norm, hidden, epsilon, context));
    head.norm_->place(context.stream);
  }
  if (!names.output.empty()) {
    SW_ASSIGN(head.output_,
              nn::load_device_linear(scope, {{names.output, labels}}, hidden, numbers, DType::kF32, context));
  }
  return head;
}

TensorView DeviceClassifierHead::apply(TensorView x, const DeviceHeadPass& head) const {
  TensorView pooled = pool(x, names_.pooling, x.dtype, head);
  if (dense_) {
    const TensorView y = head.arena.allocate(output_ ? x.dtype : DType::kF32, {head.sequences(), dense_->n});
    nn::device_linear({.x = pooled, .weight = &*dense_, .activation = names_.activation, .y = y}, head.pass);
    pooled = y;
  }
  if (norm_) norm_in_place(*norm_, pooled, head);
  if (!output_) return pooled;
  const TensorView scores = head.arena.f32({head.sequences(), output_->n});
  nn::device_linear({.x = pooled, .weight = &*output_, .y = scores}, head.pass);
  return scores;
}

Result<DeviceSparseHead> DeviceSparseHead::load(const weights::WeightScope& scope, const weights::WeightScope& words,
                                                const EncoderConfig& config, DeviceNumbers numbers,
                                                nn::LoadContext& context) {
  DeviceSparseHead head;
  const MaskedLmNames& names = config.names.masked_lm;
  const int64_t hidden = config.layer.hidden;
  numbers = head_numbers(numbers);
  head.activation_ = config.layer.activation;
  SW_ASSIGN(head.dense_, nn::load_device_linear(scope, {{names.dense, hidden}}, hidden, numbers,
                                                kernels::activation_type(numbers), context));
  SW_ASSIGN(head.norm_, nn::LayerNorm::load(scope, names.norm, hidden, config.layer.epsilon, context));
  head.norm_->place(context.stream);
  const nn::MatrixRow own{names.decoder, config.vocab_size}, tied{config.names.words, config.vocab_size};
  const bool has_own = scope.contains(names.decoder + ".weight");
  SW_ASSIGN(const nn::StoredMatrices matrix,
            nn::StoredMatrices::open(has_own ? scope : words, std::span(has_own ? &own : &tied, 1), hidden));
  tensor::Tensor bias;
  if (scope.contains(names.bias)) {
    SW_ASSIGN(bias, scope.f32(names.bias, {config.vocab_size}));
  }
  SW_ASSIGN(head.decoder_, kernels::pack_device_linear(matrix.sources(), bias, numbers, DType::kF32, context.stream));
  context.add(int64_t(config.vocab_size) * hidden, int64_t(head.decoder_.bytes()));
  return head;
}

size_t DeviceSparseHead::workspace_bytes(const EncoderConfig& config, int64_t inputs) {
  const auto bytes = [](int64_t rows, int64_t width) { return tensor::Arena::footprint(DType::kF32, {rows, width}); };
  return bytes(inputs, config.vocab_size) + bytes(kRows, config.vocab_size) + bytes(kRows, config.layer.hidden);
}

TensorView DeviceSparseHead::apply(TensorView x, const DeviceHeadPass& head) const {
  const nn::DevicePass& pass = head.pass;
  const int64_t vocabulary = decoder_.n, hidden = x.shape[1], tokens = x.shape[0];
  const TensorView best = head.arena.f32({head.sequences(), vocabulary});
  const TensorView logits = head.arena.f32({kRows, vocabulary}),
                   transformed = head.arena.allocate(x.dtype, {kRows, hidden});
  pass.stream.cuda().fill(best.data, 0, best.bytes());
  for (int64_t begin = 0; begin < tokens; begin += kRows) {
    const int64_t rows = std::min(kRows, tokens - begin);
    const TensorView y = transformed.rows(0, rows), z = logits.rows(0, rows);
    nn::device_linear({.x = x.rows(begin, begin + rows), .weight = &dense_, .activation = activation_, .y = y}, pass);
    norm_in_place(*norm_, y, head);
    nn::device_linear({.x = y, .weight = &decoder_, .y = z}, pass);
    kernels::device_row_maxima(z, head.sequence.rows(begin, begin + rows), best, pass.stream);
    pass.count();
  }
  // The logarithm rises with the logit, so it is taken of the largest alone.
  kernels::device_log1p(best, pass.stream);
  pass.count();
  return best;
}

}  // namespace spillway::models
