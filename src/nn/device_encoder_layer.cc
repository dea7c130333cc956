#include "nn/device_encoder_layer.h"

#include <algorithm>
#include <cmath>

#include "nn/step.h"

namespace spillway::nn {

using kernels::Activation;
using kernels::DeviceLinear;
using kernels::DeviceNumbers;
using kernels::DeviceScale;
using tensor::TensorView;

namespace {

constexpr double kE4M3Max = 448;

// The largest bound of the rows' products with vectors of that length.
Result<double> product_bound(const weights::WeightScope& scope, const std::vector<MatrixRow>& rows, int64_t first,
                             int64_t last, int64_t inputs, double length, LoadContext& context) {
  double largest = 0;
  int64_t at = 0;
  for (const MatrixRow& row : rows) {
    SW_ASSIGN(const tensor::Tensor matrix, load_matrix_f32(scope, row, inputs, context.stream));
    tensor::Tensor bias;
    if (scope.contains(row.name + ".bias")) {
      SW_ASSIGN(bias, scope.f32(row.name + ".bias", {row.outputs}));
    }
    for (int64_t r = 0; r < row.outputs; ++r, ++at) {
      if (at < first || at >= last) continue;
      double squares = 0;
      const float* weight = matrix.as<float>() + r * inputs;
      for (int64_t i = 0; i < inputs; ++i) squares += double(weight[i]) * double(weight[i]);
      const double shift = bias.empty() ? 0 : std::abs(double(bias.as<float>()[r]));
      largest = std::max(largest, length * std::sqrt(squares) + shift);
    }
  }
  return largest;
}

std::vector<MatrixRow> named(const std::vector<std::string>& names, int64_t outputs) {
  std::vector<MatrixRow> rows;
  for (const std::string& name : names) rows.push_back({name, outputs / int64_t(names.size())});
  return rows;
}

}  // namespace

Bound bound_of(const LayerNorm& norm) {
  const auto size = double(norm.weight().shape().elements());
  Bound bound;
  double squares = 0, largest = 0;
  for (int64_t i = 0; i < int64_t(size); ++i) {
    const double weight = std::abs(double(norm.weight().as<float>()[i]));
    const double shift = norm.bias().empty() ? 0 : std::abs(double(norm.bias().as<float>()[i]));
    bound.value = std::max(bound.value, std::sqrt(size) * weight + shift);
    largest = std::max(largest, weight);
    squares += shift * shift;
  }
  bound.length = std::sqrt(size) * largest + std::sqrt(squares);
  return bound;
}

DeviceScale scale_for(double bound, tensor::Stream& stream) {
  const int exponent = bound > 0 ? int(std::floor(std::log2(kE4M3Max / bound))) : 0;
  return kernels::make_device_scale(std::ldexp(1.0f, std::clamp(exponent, -100, 100)), stream);
}

Result<DeviceLinear> load_device_linear(const weights::WeightScope& scope, std::vector<MatrixRow> rows, int64_t inputs,
                                        DeviceNumbers numbers, tensor::DType y_type, LoadContext& context) {
  SW_ASSIGN(const StoredMatrices matrices, StoredMatrices::open(scope, rows, inputs));
  int64_t outputs = 0;
  for (const MatrixRow& row : rows) outputs += row.outputs;
  tensor::Tensor bias;
  if (scope.contains(rows[0].name + ".bias")) {
    bias = tensor::Tensor(tensor::DType::kF32, {outputs});
    float* to = bias.as<float>();
    for (const MatrixRow& row : rows) {
      SW_ASSIGN(const weights::StoredTensor stored, scope.tensor(row.name + ".bias", {row.outputs}));
      weights::widen(stored.view(), to);
      to += row.outputs;
    }
  }
  auto packed = kernels::pack_device_linear(matrices.sources(), bias, numbers, y_type, context.stream);
  if (!packed.ok()) return std::move(packed).error().in(scope.path(rows[0].name));
  context.add(outputs * inputs + (bias.empty() ? 0 : outputs), int64_t(packed->bytes()));
  return packed;
}

void device_linear(const kernels::DeviceProductArgs& args, const DevicePass& pass) {
  kernels::DeviceProductArgs product = args;
  if (!pass.fusions.epilogue) {
    product.bias = false;
    product.activation = Activation::kNone;
  }
  if (!pass.fusions.residual_norm) product.residual = {};
  pass.count(kernels::device_product(product, pass.stream));
  if (!pass.fusions.epilogue && !args.weight->bias.empty()) {
    kernels::device_add_bias(args.y, args.weight->bias, pass.stream);
    pass.count();
  }
  if (!pass.fusions.epilogue && args.activation != Activation::kNone) {
    kernels::device_activate(args.y, args.activation, pass.stream);
    pass.count();
  }
  if (!pass.fusions.residual_norm && !args.residual.empty()) {
    kernels::device_add(args.y, args.residual, pass.stream);
    pass.count();
  }
}

Result<DeviceEncoderLayer> DeviceEncoderLayer::load(const weights::WeightScope& scope, const EncoderLayerConfig& config,
                                                    DeviceNumbers numbers, bool split_qkv, Bound& input,
                                                    LoadContext& context) {
  DeviceEncoderLayer layer;
  layer.config_ = config;
  layer.numbers_ = numbers;
  const EncoderLayerNames& names = config.names;
  const int64_t hidden = config.hidden, intermediate = config.intermediate;
  const tensor::DType type = kernels::activation_type(numbers);
  const auto load_product = [&](std::vector<MatrixRow> rows, int64_t inputs) {
    return load_device_linear(scope, std::move(rows), inputs, numbers, type, context);
  };
  std::vector<MatrixRow> qkv = named(names.qkv, 3 * hidden);
  if (split_qkv && qkv.size() == 3) {
    for (const MatrixRow& row : qkv) {
      SW_ASSIGN(DeviceLinear product, load_product({row}, hidden));
      layer.qkv_.push_back(std::move(product));
    }
  } else {
    SW_ASSIGN(DeviceLinear product, load_product(std::move(qkv), hidden));
    layer.qkv_.push_back(std::move(product));
  }
  SW_ASSIGN(layer.attention_output_, load_product({{names.attention_output, hidden}}, hidden));
  if (config.has_attention_norm) {
    SW_ASSIGN(layer.attention_norm_, LayerNorm::load(scope, names.attention_norm, hidden, config.epsilon, context));
  }
  SW_ASSIGN(layer.mlp_in_, load_product(named(names.mlp_in, config.gated ? 2 * intermediate : intermediate), hidden));
  SW_ASSIGN(layer.mlp_out_, load_product({{names.mlp_out, hidden}}, intermediate));
  SW_ASSIGN(layer.mlp_norm_, LayerNorm::load(scope, names.mlp_norm, hidden, config.epsilon, context));
  if (layer.fp8()) {
    SW_TRY(layer.load_scales(scope, input, context));
    input = bound_of(*layer.mlp_norm_);
  }
  if (layer.attention_norm_) layer.attention_norm_->place(context.stream);
  layer.mlp_norm_->place(context.stream);
  return layer;
}

Status DeviceEncoderLayer::load_scales(const weights::WeightScope& scope, const Bound& input, LoadContext& context) {
  if (config_.norm_before || config_.gated)
    return unsupported("precision fp8: expected layers with their norms behind and no gate; use fp16 or bf16");
  const int64_t hidden = config_.hidden;
  const std::vector<MatrixRow> qkv = named(config_.names.qkv, 3 * hidden);
  x_scale_ = scale_for(input.value, context.stream);
  // Attention gives means of values.
  SW_ASSIGN(const double values, product_bound(scope, qkv, 2 * hidden, 3 * hidden, hidden, input.length, context));
  attended_scale_ = scale_for(values, context.stream);
  const Bound middle = bound_of(*attention_norm_);
  middle_scale_ = scale_for(middle.value, context.stream);
  SW_ASSIGN(const double inner, product_bound(scope, named(config_.names.mlp_in, config_.intermediate), 0,
                                              config_.intermediate, hidden, middle.length, context));
  inner_scale_ = scale_for(inner, context.stream);
  return {};
}

void DeviceEncoderLayer::attend(TensorView x, TensorView rope, const DevicePass& pass) const {
  const int64_t tokens = pass.x.shape[0], hidden = config_.hidden;
  const int head_dim = config_.hidden / config_.heads;
  const size_t element = tensor::size_of(pass.qkv.dtype);
  const DeviceScale* x_scale = fp8() ? &x_scale_ : nullptr;
  const bool one = qkv_.size() == 1;
  kernels::DeviceAttentionArgs args;
  args.row_stride = one ? 3 * hidden : hidden;
  TensorView* parts[] = {&args.q, &args.k, &args.v};
  for (int64_t i = 0; i < 3; ++i) {
    const int64_t first = one ? i * hidden : i * hidden * tokens;
    *parts[i] = TensorView(pass.qkv.data + size_t(first) * element, pass.qkv.dtype, {tokens, args.row_stride});
    if (one) continue;
    device_linear({.x = x, .weight = &qkv_[size_t(i)], .y = *parts[i], .x_scale = x_scale}, pass);
  }
  if (one) device_linear({.x = x, .weight = &qkv_[0], .y = pass.qkv, .x_scale = x_scale}, pass);
  if (!rope.empty()) {
    for (int i = 0; i < (one ? 1 : 2); ++i) {
      kernels::device_rope(*parts[i], args.row_stride, one ? 2 * config_.heads : config_.heads, head_dim, rope,
                           pass.positions, pass.stream);
      pass.count();
    }
  }
  args.tiles = pass.tiles;
  args.heads = config_.heads;
  args.head_dim = head_dim;
  args.scale = 1.0f / std::sqrt(float(head_dim));
  args.window = config_.window;
  args.exact = numbers_ == DeviceNumbers::kFp32;
  args.y = fp8() ? pass.attended8 : pass.attended;
  args.y_scale = fp8() ? &attended_scale_ : nullptr;
  kernels::device_attention(args, pass.stream);
  pass.count();
  device_linear({.x = args.y, .weight = &attention_output_, .residual = pass.x, .y = pass.sum, .x_scale = args.y_scale},
                pass);
}

void DeviceEncoderLayer::feed_forward(TensorView x, TensorView residual, TensorView y, const DevicePass& pass) const {
  if (config_.gated) {
    device_linear({.x = x, .weight = &mlp_in_, .y = pass.both}, pass);
    kernels::device_gate(pass.both, config_.activation, pass.inner, pass.stream);
    pass.count();
  } else {
    device_linear({.x = x,
                   .weight = &mlp_in_,
                   .activation = config_.activation,
                   .y = fp8() ? pass.inner8 : pass.inner,
                   .x_scale = fp8() ? &middle_scale_ : nullptr,
                   .y_scale = fp8() ? &inner_scale_ : nullptr},
                  pass);
  }
  device_linear({.x = fp8() ? pass.inner8 : pass.inner,
                 .weight = &mlp_out_,
                 .residual = residual,
                 .y = y,
                 .x_scale = fp8() ? &inner_scale_ : nullptr},
                pass);
}

void DeviceEncoderLayer::apply(TensorView rope, const DeviceScale* next, const DevicePass& pass) const {
  const auto norm = [&](const LayerNorm& layer_norm, TensorView x, TensorView y, const DeviceScale* scale) {
    kernels::DeviceNormArgs args;
    args.x = x;
    args.weight = layer_norm.weight();
    if (!layer_norm.bias().empty()) args.bias = layer_norm.bias();
    args.eps = layer_norm.epsilon();
    args.y = y;
    if (scale != nullptr) args.y8 = pass.x8;
    args.scale = scale;
    kernels::device_norm(args, pass.stream);
    pass.count();
  };
  if (!config_.norm_before) {
    attend(fp8() ? pass.x8 : pass.x, rope, pass);
    norm(*attention_norm_, pass.sum, pass.x, fp8() ? &middle_scale_ : nullptr);
    feed_forward(fp8() ? pass.x8 : pass.x, pass.x, pass.sum, pass);
    norm(*mlp_norm_, pass.sum, pass.x, next);
    return;
  }
  if (attention_norm_) norm(*attention_norm_, pass.x, pass.normed, nullptr);
  attend(attention_norm_ ? pass.normed : pass.x, rope, pass);
  norm(*mlp_norm_, pass.sum, pass.normed, nullptr);
  feed_forward(pass.normed, pass.sum, pass.x, pass);
}

}  // namespace spillway::nn
