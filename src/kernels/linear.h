// Linear: y = x W^T (+ bias) over weights packed once: at load, or behind the first products.
//
// Each element of y is one chain of float32 sums over K in a fixed order, so its bits depend on its own row of x and on
// W only: not on M, nor on the other rows, nor on the number of threads.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "base/result.h"
#include "kernels/activation.h"
#include "tensor/stream.h"
#include "tensor/tensor.h"

namespace spillway::kernels {

// How products are computed.
//   kFp32: float32 multiply-adds; weights keep their stored type and are widened exactly.
//   kBf16: bf16 weights (f8 stays f8 in memory), x rounded to bf16, float32 sums. Tolerance: 2^-8 of |x||w| summed.
//   kInt8: weights quantised at load to int8 by groups of 128 along K; x as 16-bit integers by the same groups. The
//          tolerance is that of the weights' rounding: 2^-8 of the group's largest weight.
//   kW8A8: the same with x as bytes between the least and the largest of each group (the products of encoders). The
//          tolerance is that of both roundings: 2^-8 of the largest weight and 2^-8 of the range of x of each group.
// Of GPUs alone:
//   kTf32: kFp32 with products on the tensor cores, x and W rounded to tf32's 10 bits of mantissa.
//   kFp8:  kBf16 with bf16 weights quantised at load to e4m3 by blocks of 128 x 128, as DeepSeek's checkpoints are.
//   kInt4: kBf16 with weights as 4-bit integers by groups of 128 along K; on GPUs kInt8 is likewise of weights only.
// Where a weight's shape is none of a format's (K a multiple of 128), it stays as kBf16 has it.
enum class Precision : uint8_t { kFp32, kBf16, kInt8, kW8A8, kTf32, kFp8, kInt4 };

// Whether activations and the cache are float32.
constexpr bool computes_in_f32(Precision precision) {
  return precision == Precision::kFp32 || precision == Precision::kTf32;
}

// The short floats that a device computes with: bf16, or f16 on GPUs before sm_80.
tensor::DType half_type(tensor::Device device);

// How large each input is likely to be, up to a common factor: float32 [K], or empty. W8A8 on the CPU evens inputs out
// by it, moving the difference into the weights (SmoothQuant); others pay no regard.
struct InputSpread {
  tensor::TensorView sizes;
  int64_t first_output = 0;  // of all stacked outputs, those from here on decide (values more than queries and keys)
};

// A weight as stored: row-major [N, K], dtype f32|bf16|f16|f8e4m3, with optional float32 scales
// [ceil(N / block_n), ceil(K / block_k)] that multiply its blocks (f8e4m3 only; ragged edges allowed). With transposed,
// weight is [K, N] and has no scales.
struct WeightSource {
  tensor::TensorView weight;
  tensor::TensorView scales;
  int block_n = 128;
  int block_k = 128;  // a multiple of 4
  bool transposed = false;
  InputSpread spread = {};  // the same for stacked sources
};

enum class PackedFormat : uint8_t { kF32, kF16, kBf16, kF8, kInt8, kInt4 };

class LateWeight;

// A packed weight, in the memory of the stream's device. Layout on the CPU: panels of 32 outputs; see cpu/packing.h. On
// CUDA: row-major [N, K]; see cuda/weights.h. Move-only, read by all threads.
struct PackedLinear {
  int64_t n = 0;
  int64_t k = 0;
  Precision precision = Precision::kFp32;
  PackedFormat format = PackedFormat::kF32;
  int scale_block = 0;  // K elements that share a scale; 0 without scales
  tensor::Tensor data;
  // CPU: float32 [panels, ceil(K / scale_block), 32]; kW8A8 [panels, blocks, 2, 32], scales and sums of the integers,
  // and, of weights with a spread, the K numbers that x is multiplied with.
  tensor::Tensor scales;
  std::shared_ptr<LateWeight> late;  // CPU: has the panels instead of data, and scales; see late_weight.h

  size_t bytes() const;
};

// Packs sources stacked along N (for q, k and v, or gate and up, as one product): all of the same K and dtype. The
// order of outputs is that of the sources. Runs on all threads at about memory speed. Fails on types and shapes that do
// not fit.
Result<PackedLinear> pack_linear(std::span<const WeightSource> sources, Precision precision, tensor::Stream& stream);
Result<PackedLinear> pack_linear(const WeightSource& source, Precision precision, tensor::Stream& stream);

// The weight with its scales applied, float32 [N, K] (transposed: [K, N] as stored), in host memory.
Result<tensor::Tensor> dequantize(const WeightSource& source, tensor::Stream& stream);

// A norm in front of a product: y = W rms_norm(x). x is then float32; on devices that do not norm inside the product
// `normed` holds the rows between.
struct InputNorm {
  tensor::TensorView weight;  // float32 [K]; empty: no norm
  float epsilon = 0;
  tensor::TensorView normed;  // activations [M, K]; does not overlap x

  bool empty() const { return weight.empty(); }
};

struct LinearOptions {
  tensor::TensorView bias = {};               // float32 [N], optional
  bool accumulate = false;                    // y += instead of y =
  Activation activation = Activation::kNone;  // of the whole: y = activation(x W^T + bias (+ y)); CPU only
  InputNorm norm = {};
  bool gates = false;  // x is [M, 2 K], gates and ups: y = W (silu(gate) * up). Where takes_gates() says so
};

// Whether `down` reads what `gate_up` gives for so many rows and does the SwiGLU itself, where gated_linear would do it
// in a pass of its own.
bool takes_gates(const PackedLinear& gate_up, const PackedLinear& down, int64_t rows, tensor::Stream& stream);

// x activations [M, K], y [M, N]: activations or f32. x and y do not overlap.
void linear(tensor::TensorView x, const PackedLinear& weight, tensor::TensorView y, tensor::Stream& stream,
            const LinearOptions& options = {});

// y [M, N / 2] = silu(x Wg^T) * (x Wu^T), for a weight packed from {gate, up} (N / 2 outputs each). work: [M, N]. All
// activations, but x of a norm.
void gated_linear(tensor::TensorView x, const PackedLinear& gate_up, tensor::TensorView work, tensor::TensorView y,
                  tensor::Stream& stream, const InputNorm& norm = {});

// One matrix [n, k] a head: MLA's absorbed form.
struct HeadLinear {
  int heads = 0;
  int64_t n = 0;
  int64_t k = 0;
  std::vector<PackedLinear> weights;  // one a head; on CUDA one [heads * n, k] for all

  size_t bytes() const;
};

// W_h from rows [first, first + rows) of head h's block of `full` f32 [heads * block, columns], transposed to
// [columns, rows] on demand.
Result<HeadLinear> pack_heads(tensor::TensorView full, int heads, int64_t first, int64_t rows, bool transposed,
                              Precision precision, tensor::Stream& stream);

// Products by head, for MLA's absorbed form: y[t, h, :] = W_h x[t, h, :], with heads = weights.size(), each W_h [N, K].
// x f32 [T, heads, x_stride] of which the first K are read, from element x_offset; y f32 [T, heads, N].
void linear_by_head(tensor::TensorView x, int x_offset, std::span<const PackedLinear> weights, tensor::TensorView y,
                    tensor::Stream& stream);

}  // namespace spillway::kernels
