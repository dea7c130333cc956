#include "nn/encoder_layer.h"

#include <algorithm>
#include <cmath>

#include "kernels/elementwise.h"
#include "kernels/rope.h"
#include "nn/step.h"

namespace spillway::nn {

using kernels::Activation;
using tensor::TensorView;

Result<OneShotLinear> OneShotLinear::load(const weights::WeightScope& scope, std::vector<MatrixRow> rows,
                                          int64_t inputs, LoadContext& context) {
  OneShotLinear product;
  const bool bias = scope.contains(rows[0].name + ".bias");
  SW_ASSIGN(product.linear_, Linear::load(scope, std::move(rows), inputs, bias, context));
  return product;
}

void OneShotLinear::apply(TensorView x, TensorView y, Activation activation, const OneShotStep& step) const {
  step.count();
  if (step.fusions.epilogue) {
    return kernels::linear(x, linear_.weight(), y, step.stream,
                           {.bias = linear_.bias().view(), .activation = activation});
  }
  kernels::linear(x, linear_.weight(), y, step.stream);
  if (!linear_.bias().empty()) {
    kernels::add_bias(y, linear_.bias(), step.stream);
    step.count();
  }
  if (activation == Activation::kNone) return;
  kernels::activate(y, activation, step.stream);
  step.count();
}

void OneShotLinear::add_to(TensorView x, TensorView y, const OneShotStep& step) const {
  kernels::linear(x, linear_.weight(), y, step.stream, {.bias = linear_.bias().view(), .accumulate = true});
  step.count();
}

Status EncoderLayer::load_qkv(const weights::WeightScope& scope, bool split, LoadContext& context) {
  const int64_t hidden = config_.hidden;
  std::vector<MatrixRow> rows;
  for (const std::string& name : config_.names.qkv)
    rows.push_back({name, 3 * hidden / int64_t(config_.names.qkv.size())});
  const bool apart = split && rows.size() == 3;
  for (size_t i = 0; i < (apart ? rows.size() : 1); ++i) {
    std::vector<MatrixRow> some = apart ? std::vector<MatrixRow>{rows[i]} : rows;
    SW_ASSIGN(OneShotLinear product, OneShotLinear::load(scope, std::move(some), hidden, context));
    qkv_.push_back(std::move(product));
  }
  return {};
}

Result<EncoderLayer> EncoderLayer::load(const weights::WeightScope& scope, const EncoderLayerConfig& config,
                                        bool split_qkv, const LayerNorm& before, LoadContext& context) {
  EncoderLayer layer;
  layer.config_ = config;
  const EncoderLayerNames& names = config.names;
  const int64_t hidden = config.hidden, intermediate = config.intermediate;
  if (config.has_attention_norm) {
    SW_ASSIGN(layer.attention_norm_, LayerNorm::load(scope, names.attention_norm, hidden, config.epsilon, context));
  }
  SW_ASSIGN(layer.mlp_norm_, LayerNorm::load(scope, names.mlp_norm, hidden, config.epsilon, context));
  // What comes from a layer norm has channels far larger than the rest.
  context.input_spread = {
      .sizes = config.norm_before && layer.attention_norm_ ? layer.attention_norm_->spread() : before.spread(),
      .first_output = split_qkv ? 0 : 2 * hidden};
  SW_TRY(layer.load_qkv(scope, split_qkv, context));
  context.input_spread = {};
  SW_ASSIGN(layer.attention_output_, OneShotLinear::load(scope, {{names.attention_output, hidden}}, hidden, context));
  std::vector<MatrixRow> mlp;
  const int64_t width = config.gated ? 2 * intermediate : intermediate;
  for (const std::string& name : names.mlp_in) mlp.push_back({name, width / int64_t(names.mlp_in.size())});
  context.input_spread = {.sizes = config.norm_before ? layer.mlp_norm_->spread() : layer.attention_norm_->spread()};
  SW_ASSIGN(layer.mlp_in_, OneShotLinear::load(scope, std::move(mlp), hidden, context));
  context.input_spread = {};
  SW_ASSIGN(layer.mlp_out_, OneShotLinear::load(scope, {{names.mlp_out, hidden}}, intermediate, context));
  return layer;
}

const LayerNorm& EncoderLayer::last_norm() const { return *mlp_norm_; }

size_t EncoderLayer::workspace_bytes(const EncoderLayerConfig& config, int64_t tokens) {
  const auto bytes = [](int64_t rows, int64_t width) {
    return tensor::Arena::footprint(tensor::DType::kF32, {rows, width});
  };
  const int64_t hidden = config.hidden, rows = std::min(tokens, kMlpRows);
  const size_t attention = 3 * bytes(tokens, hidden) + bytes(tokens, hidden);
  const size_t mlp = bytes(rows, (config.gated ? 3 : 1) * int64_t(config.intermediate)) + bytes(1, 64);
  return bytes(tokens, hidden) + std::max(attention, mlp) + bytes(tokens, hidden);
}

// Rows of host memory; a sequence's first never lies before its number.
void EncoderLayer::bring_firsts_in_front(TensorView x, std::span<const int32_t> offsets) {
  const int64_t width = x.shape[1];
  auto* rows = x.as<float>();
  for (int64_t s = 0; s + 1 < int64_t(offsets.size()); ++s) {
    const float* first = rows + offsets[size_t(s)] * width;
    if (first != rows + s * width) std::copy_n(first, width, rows + s * width);
  }
}

// residual += product(x): in the product, or as a pass of its own.
void EncoderLayer::add_residual(const OneShotLinear& product, TensorView x, TensorView residual,
                                const OneShotStep& step) const {
  if (step.fusions.residual_norm) return product.add_to(x, residual, step);
  const ArenaScope scope(step.arena);
  const TensorView y = step.arena.f32(residual.shape);
  product.apply(x, y, Activation::kNone, step);
  kernels::add(residual, y, step.stream);
  step.count();
}

void EncoderLayer::attend(TensorView x, TensorView residual, TensorView rope, bool half, Rows rows,
                          const OneShotStep& step) const {
  const ArenaScope scope(step.arena);
  const int64_t tokens = x.shape[0], hidden = config_.hidden;
  const int head_dim = config_.hidden / config_.heads;
  kernels::SequenceAttentionArgs args;
  args.offsets = step.offsets;
  args.heads = config_.heads;
  args.head_dim = head_dim;
  args.scale = 1.0f / std::sqrt(float(head_dim));
  args.window = config_.window;
  args.half = half;
  args.firsts = rows == Rows::kFirsts;
  TensorView* parts[] = {&args.q, &args.k, &args.v};
  if (qkv_.size() == 1) {
    const TensorView qkv = step.arena.f32({tokens, 3 * hidden});
    qkv_[0].apply(x, qkv, Activation::kNone, step);
    args.row_stride = 3 * hidden;
    for (int64_t i = 0; i < 3; ++i)
      *parts[i] = TensorView(qkv.as<float>() + i * hidden, tensor::DType::kF32, qkv.shape);
    if (!rope.empty()) {
      kernels::rope(
          {.x = qkv, .cos_sin = rope, .positions = step.positions, .heads = 2 * config_.heads, .head_dim = head_dim},
          step.stream);
      step.count();
    }
  } else {
    args.row_stride = hidden;
    for (size_t i = 0; i < 3; ++i) {
      *parts[i] = step.arena.f32({tokens, hidden});
      qkv_[i].apply(x, *parts[i], Activation::kNone, step);
      if (rope.empty() || i == 2) continue;
      kernels::rope(
          {.x = *parts[i], .cos_sin = rope, .positions = step.positions, .heads = config_.heads, .head_dim = head_dim},
          step.stream);
      step.count();
    }
  }
  args.y = step.arena.f32({tokens, hidden});
  kernels::sequence_attention(args, step.stream);
  step.count();
  if (rows == Rows::kFirsts) {
    bring_firsts_in_front(args.y, step.offsets);
    bring_firsts_in_front(residual, step.offsets);
    const int64_t sequences = int64_t(step.offsets.size()) - 1;
    args.y = args.y.rows(0, sequences);
    residual = residual.rows(0, sequences);
  }
  add_residual(attention_output_, args.y, residual, step);
}

void EncoderLayer::feed_forward(TensorView x, TensorView residual, const OneShotStep& step) const {
  for (int64_t begin = 0; begin < x.shape[0]; begin += kMlpRows) {
    const ArenaScope scope(step.arena);
    const int64_t end = std::min(begin + kMlpRows, x.shape[0]);
    const TensorView inner = step.arena.f32({end - begin, config_.intermediate});
    if (config_.gated) {
      const TensorView both = step.arena.f32({end - begin, 2 * int64_t(config_.intermediate)});
      mlp_in_.apply(x.rows(begin, end), both, Activation::kNone, step);
      kernels::gated_activation(both, config_.activation, inner, step.stream);
      step.count();
    } else {
      mlp_in_.apply(x.rows(begin, end), inner, config_.activation, step);
    }
    add_residual(mlp_out_, inner, residual.rows(begin, end), step);
  }
}

void EncoderLayer::apply(TensorView x, TensorView rope, bool half, const OneShotStep& step, Rows rows) const {
  const TensorView kept = rows == Rows::kAll ? x : x.rows(0, int64_t(step.offsets.size()) - 1);
  if (!config_.norm_before) {
    attend(x, x, rope, half, rows, step);
    attention_norm_->apply(kept, kept, step);
    feed_forward(kept, kept, step);
    mlp_norm_->apply(kept, kept, step);
    return;
  }
  const ArenaScope scope(step.arena);
  const TensorView normed = step.arena.f32(x.shape);
  if (attention_norm_) attention_norm_->apply(x, normed, step);
  attend(attention_norm_ ? normed : x, x, rope, half, rows, step);
  const TensorView kept_normed = normed.rows(0, kept.shape[0]);
  mlp_norm_->apply(kept, kept_normed, step);
  feed_forward(kept_normed, kept, step);
}

}  // namespace spillway::nn
