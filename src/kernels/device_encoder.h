// What encoders and vision models need on a device that computes in short floats: products with everything that follows
// them in the same kernel, norms that also quantise, attention over packed sequences whose bounds lie in device memory,
// pooling. Nothing here reads host memory at the launch but sizes, so a whole pass can be captured as a graph and
// replayed over other sequences. CUDA only; the CPU's twins, which tests compare with, are in kernels/encoder.h.
//
// Tolerances against the twins: fp32 2e-6 of the largest value (products: of |x||w| summed), tf32 1e-3, fp16 2e-3, bf16
// 1e-2. Gelu in products of fp16, bf16 and fp8 is the tanh form (4.7e-4 apart at most, under those types' rounding); in
// fp32 and tf32 it is exact. Sums may differ from run to run where the library's fastest algorithm does.
#pragma once

#include <span>

#include "kernels/activation.h"
#include "kernels/encoder.h"
#include "kernels/linear.h"

namespace spillway::kernels {

// In which numbers a pass computes.
//   kFp32  float32 between kernels; products of values split into three bf16 parts each (24 bits), float32 sums
//   kTf32  float32 between kernels; products on tf32 (11 bits)
//   kBf16, kFp16  between kernels and in products
//   kFp8   kFp16, but inputs and weights of the layers' products are e4m3 with a scale each
enum class DeviceNumbers : uint8_t { kFp32, kTf32, kBf16, kFp16, kFp8 };

tensor::DType activation_type(DeviceNumbers numbers);

// An error where the device cannot compute in them.
Status check_device_numbers(DeviceNumbers numbers, tensor::Device device);

// What e4m3 values were multiplied by, here and as f32 [1] on the device.
struct DeviceScale {
  tensor::Tensor on_device;
  float value = 1;
};
DeviceScale make_device_scale(float value, tensor::Stream& stream);

struct DeviceLinear {
  int64_t n = 0;
  int64_t k = 0;
  DeviceNumbers numbers = DeviceNumbers::kFp16;
  tensor::Tensor weight;  // [N, K] activations; kFp32: bf16 [N, 6 K], see split_parts; kFp8: e4m3
  tensor::Tensor bias;    // of y's type, or empty
  DeviceScale scale;      // kFp8: of the weight

  size_t bytes() const { return weight.bytes() + bias.bytes(); }
};

// Sources stacked along N; bias f32 [N] in host memory, or empty. y_type: of what the product gives, activations or
// f32.
Result<DeviceLinear> pack_device_linear(std::span<const WeightSource> sources, tensor::TensorView bias,
                                        DeviceNumbers numbers, tensor::DType y_type, tensor::Stream& stream);

// y = activation(x W^T + bias + residual).
struct DeviceProductArgs {
  tensor::TensorView x;  // [M, K] activations; e4m3 where the weight is
  const DeviceLinear* weight = nullptr;
  bool bias = true;  // false: leave the weight's out
  Activation activation = Activation::kNone;
  tensor::TensorView residual = {};  // like y, or empty; not y itself
  tensor::TensorView y;              // [M, N] of bias' type; e4m3 with y_scale
  int64_t y_stride = 0;              // elements from row to row; 0: N
  const DeviceScale* x_scale = nullptr;
  const DeviceScale* y_scale = nullptr;
};
// Gives the number of kernels.
int device_product(const DeviceProductArgs& args, tensor::Stream& stream);

// y[t] = norm(x[t]), or the sum of an embedding's rows normed. D up to 8,192.
struct DeviceNormArgs {
  tensor::TensorView x;                         // [T, D] activations; or empty, and:
  tensor::TensorView tokens, positions, types;  // activations [., D], the last two maybe empty
  tensor::TensorView ids, position, type;       // i32 [T]
  int first_position = 0;
  tensor::TensorView weight;  // f32 [D]; empty: no norm
  tensor::TensorView bias;    // f32 [D], or empty
  float eps = 0;
  tensor::TensorView y;   // [T, D] activations; may be x
  tensor::TensorView y8;  // e4m3 [T, D] times scale, or empty
  const DeviceScale* scale = nullptr;
};
void device_norm(const DeviceNormArgs& args, tensor::Stream& stream);

// x = activation(x), exact; x[t] += bias; x += y; y[t] = activation(x[t, :D]) * x[t, D:]. Any float types.
void device_activate(tensor::TensorView x, Activation activation, tensor::Stream& stream);
void device_add_bias(tensor::TensorView x, tensor::TensorView bias, tensor::Stream& stream);
void device_add(tensor::TensorView x, tensor::TensorView y, tensor::Stream& stream);
void device_gate(tensor::TensorView x, Activation activation, tensor::TensorView y, tensor::Stream& stream);

// Rotates heads [0, heads) of each row in place: rows of `stride` elements.
void device_rope(tensor::TensorView x, int64_t stride, int heads, int head_dim, tensor::TensorView cos_sin,
                 tensor::TensorView position, tensor::Stream& stream);

// Attention of every row to its own sequence, or to the rows at most `window` away in it. The work is a list of tiles:
// kAttentionTile rows of one sequence from `row`. Tiles of no rows are allowed (end 0), so a list may be padded.
constexpr int kAttentionTile = 192;
struct AttentionTile {
  int32_t row = 0;    // first
  int32_t begin = 0;  // of the sequence
  int32_t end = 0;
  int32_t unused = 0;
};
struct DeviceAttentionArgs {
  tensor::TensorView q, k, v;  // activations: rows of row_stride elements; head h starts at h * head_dim
  int64_t row_stride = 0;      // 3 * heads * head_dim where they are one product's columns
  tensor::TensorView tiles;    // i32 [tiles, 4] on the device
  int heads = 0;
  int head_dim = 0;  // up to 128
  float scale = 1;
  int window = 0;        // 0: the whole sequence
  bool exact = false;    // float32 activations: 24 bits in products rather than tf32's 11
  tensor::TensorView y;  // activations [T, heads head_dim], or e4m3 times y_scale; rows outside all tiles are left
  const DeviceScale* y_scale = nullptr;
};
void device_attention(const DeviceAttentionArgs& args, tensor::Stream& stream);

// y[s] = the pool of rows [offsets[s], offsets[s + 1]) of x [T, D]; zeros for none. offsets i32 [S + 1] on the device;
// y [S, D] activations or f32.
void device_pool(tensor::TensorView x, tensor::TensorView offsets, Pooling pooling, tensor::TensorView y,
                 tensor::Stream& stream);

// x[s] /= max(|x[s]|, 1e-12), f32.
void device_normalize(tensor::TensorView x, tensor::Stream& stream);

// best[sequence[r], v] = max(itself, logits[r, v]) where that is positive; f32. The last rows may be of sequence -1:
// they are left out.
void device_row_maxima(tensor::TensorView logits, tensor::TensorView sequence, tensor::TensorView best,
                       tensor::Stream& stream);
// x = log(1 + x), f32.
void device_log1p(tensor::TensorView x, tensor::Stream& stream);

// y f32 = x; y activations = x.
void device_convert(tensor::TensorView x, tensor::TensorView y, tensor::Stream& stream);

}  // namespace spillway::kernels
