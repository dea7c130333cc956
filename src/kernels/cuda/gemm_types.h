// Words shared by the matrix products on NVIDIA GPUs: element types, stored weights, epilogues.
//
// Everything in the product files (gemm_*, gemv_*, grouped_*, quantize_*) is a launch function over raw device
// pointers: it allocates nothing, synchronises nothing, may be captured in a graph, and answers with the CUDA error of
// its launch (cudaErrorInvalidValue for arguments outside its contract). The caller owns all memory. Pointers and row
// strides are 16-byte aligned unless a contract says otherwise. Not their job: choosing between kernels (that is the
// chooser's).
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>

#ifdef __CUDACC__
#define SPILLWAY_HOST_DEVICE __host__ __device__
#else
#define SPILLWAY_HOST_DEVICE
#endif

namespace spillway::kernels::cuda {

enum class Scalar : uint8_t { kF32, kBf16, kF16 };

constexpr int scalar_bytes(Scalar type) { return type == Scalar::kF32 ? 4 : 2; }

// How a weight [n, k] (outputs by inputs) lies in device memory.
//   kBf16     bf16 row-major [n, k]; k a multiple of 8.
//   kF8Block  e4m3 row-major [n, k]; scales float32 [ceil(n / scale_rows), ceil(k / 128)] multiply; k a multiple of 16.
//             DeepSeek's checkpoints as they are (scale_rows 128).
//   kInt8     by launch_quantize_weight: bytes (value + 128) [n, round_up(k, 128)]; scales f16 [groups of 128, n].
//   kInt4     by launch_quantize_weight: nibbles (value + 8) [n, round_up(k, 128) / 2], each group of 128 in the order
//             given in quantize_weight.h; scales f16 [groups of 128, n].
enum class WeightFormat : uint8_t { kBf16, kF8Block, kInt8, kInt4 };

struct Weight {
  WeightFormat format = WeightFormat::kBf16;
  int n = 0;
  int k = 0;
  const void* data = nullptr;
  const void* scales = nullptr;
  int scale_rows = 128;  // kF8Block: outputs that share a scale; a power of two up to 128
};

constexpr int64_t groups_of_128(int64_t k) { return (k + 127) / 128; }

SPILLWAY_HOST_DEVICE constexpr int64_t weight_row_bytes(WeightFormat format, int64_t k) {
  const int64_t padded = (k + 127) / 128 * 128;
  return format == WeightFormat::kBf16      ? 2 * k
         : format == WeightFormat::kF8Block ? k
         : format == WeightFormat::kInt8    ? padded
                                            : padded / 2;
}

// Bytes of Weight::data and Weight::scales.
constexpr int64_t weight_data_bytes(WeightFormat format, int64_t n, int64_t k) {
  return n * weight_row_bytes(format, k);
}
constexpr int64_t weight_scale_bytes(WeightFormat format, int64_t n, int64_t k, int scale_rows = 128) {
  if (format == WeightFormat::kBf16) return 0;
  if (format == WeightFormat::kF8Block) return (n + scale_rows - 1) / scale_rows * groups_of_128(k) * 4;
  return n * groups_of_128(k) * 2;
}

// What becomes of the product p = x W^T (+ bias).
//   kStore   y = p
//   kAdd     y += p: the residual stream, in y's own type
//   kSwiGlu  y[:, j] = silu(p[:, j]) * p[:, n / 2 + j]: W is gate stacked on up, y has n / 2 columns
enum class Epilogue : uint8_t { kStore, kAdd, kSwiGlu };

}  // namespace spillway::kernels::cuda
