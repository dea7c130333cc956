// DeviceEncoderLayer: EncoderLayer for a device whose kernels take what follows a product into it: activations in short
// floats, residuals added and gelu done by the products, norms that also give the next product's e4m3. The layer writes
// no buffer that it still reads, so a product may be run again and again. Owned by the model; engine's thread.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "kernels/device_encoder.h"
#include "nn/encoder_layer.h"
#include "nn/layer_norm.h"

namespace spillway::nn {

// One pass: where the batch's shape lies on the device, and its memory, all of `tokens` rows.
struct DevicePass {
  tensor::Stream& stream;
  Fusions fusions;
  tensor::TensorView tiles;      // attention's work
  tensor::TensorView positions;  // i32 [T]
  // Activations. x and sum take turns as the residual stream.
  tensor::TensorView x, sum, normed;         // [T, hidden]
  tensor::TensorView qkv;                    // [T, 3 hidden], or three of [T, hidden]
  tensor::TensorView attended;               // [T, hidden]
  tensor::TensorView inner, both;            // [T, intermediate], [T, 2 intermediate] of gated forms
  tensor::TensorView x8, attended8, inner8;  // e4m3, in fp8 only
  int64_t* launches = nullptr;

  void count(int64_t kernels = 1) const {
    if (launches != nullptr) *launches += kernels;
  }
};

// What is known of a norm's outputs: no value is larger than `value`, no row longer than `length`.
struct Bound {
  double value = 0;
  double length = 0;
};
Bound bound_of(const LayerNorm& norm);  // before it is placed
// The largest power of two that keeps values up to `bound` within e4m3: what is lost at the small end is below 2^-15 of
// the bound.
kernels::DeviceScale scale_for(double bound, tensor::Stream& stream);

Result<kernels::DeviceLinear> load_device_linear(const weights::WeightScope& scope, std::vector<MatrixRow> rows,
                                                 int64_t inputs, kernels::DeviceNumbers numbers, tensor::DType y_type,
                                                 LoadContext& context);

// y = activation(x W^T + bias + residual), as one kernel or (Fusions off) as several.
void device_linear(const kernels::DeviceProductArgs& args, const DevicePass& pass);

class DeviceEncoderLayer {
 public:
  // input: what bounds the layer's input, for fp8 (which only layers with norms behind take); becomes the output's.
  static Result<DeviceEncoderLayer> load(const weights::WeightScope& scope, const EncoderLayerConfig& config,
                                         kernels::DeviceNumbers numbers, bool split_qkv, Bound& input,
                                         LoadContext& context);

  // pass.x to pass.x. next: the scale of the next layer's e4m3 input, or null.
  void apply(tensor::TensorView rope, const kernels::DeviceScale* next, const DevicePass& pass) const;
  // Of its input; null where that is not e4m3.
  const kernels::DeviceScale* input_scale() const { return fp8() ? &x_scale_ : nullptr; }

 private:
  bool fp8() const { return numbers_ == kernels::DeviceNumbers::kFp8; }
  Status load_scales(const weights::WeightScope& scope, const Bound& input, LoadContext& context);
  void attend(tensor::TensorView x, tensor::TensorView rope, const DevicePass& pass) const;
  void feed_forward(tensor::TensorView x, tensor::TensorView residual, tensor::TensorView y,
                    const DevicePass& pass) const;

  EncoderLayerConfig config_;
  kernels::DeviceNumbers numbers_ = kernels::DeviceNumbers::kFp16;
  std::vector<kernels::DeviceLinear> qkv_;  // one, or three
  kernels::DeviceLinear attention_output_, mlp_in_, mlp_out_;
  std::optional<LayerNorm> attention_norm_, mlp_norm_;
  kernels::DeviceScale x_scale_, attended_scale_, middle_scale_, inner_scale_;
};

}  // namespace spillway::nn
