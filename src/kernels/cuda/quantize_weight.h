// Weights to int8 and int4 by groups of 128 along K, at load; and any stored weight back to bf16 (for products of many
// rows, where widening once is cheaper than doing it in the product).
//
// Symmetric: scale = largest magnitude of the group / 127 (int8) or / 7 (int4), kept as f16; value = round(w / scale).
// int4: a group of 128 is 64 bytes: 32-bit word 4 t + j (t, j in 0..3) holds k = 32 j + 8 t + i, i in 0..7, in nibbles
// (from the lowest) i = 0, 2, 4, 6, 1, 3, 5, 7. One thread of a tensor-core fragment thus reads 16 bytes.
#pragma once

#include "kernels/cuda/gemm_types.h"

namespace spillway::kernels::cuda {

enum class WeightSourceType : uint8_t { kF32, kBf16, kF16, kF8Block };

struct QuantizeWeight {
  WeightSourceType source_type = WeightSourceType::kBf16;
  const void* source = nullptr;          // row-major [n, k]
  const float* source_scales = nullptr;  // kF8Block: [ceil(n / scale_rows), ceil(k / 128)]
  int source_scale_rows = 128;
  int n = 0;
  int k = 0;
  WeightFormat format = WeightFormat::kInt8;  // kInt8 or kInt4
  void* data = nullptr;                       // weight_data_bytes
  void* scales = nullptr;                     // weight_scale_bytes; column stride scales_stride
  // To stack several weights along n into one: n of the whole; data then points at this part's first row and scales at
  // its first column. 0: n.
  int64_t scales_stride = 0;
};

cudaError_t launch_quantize_weight(const QuantizeWeight& args, cudaStream_t stream);

// bf16 [n, k] to e4m3 with a float32 scale for each block of 128 x 128: the largest magnitude / 448. k a multiple of
// 128.
struct QuantizeBlocks {
  const void* source = nullptr;
  int n = 0;
  int k = 0;
  void* data = nullptr;     // [n, k]
  float* scales = nullptr;  // [ceil(n / 128), k / 128]
};

cudaError_t launch_quantize_blocks(const QuantizeBlocks& args, cudaStream_t stream);

// out: bf16 [n, k] (row stride k).
cudaError_t launch_dequantize_weight(const Weight& weight, void* out, cudaStream_t stream);

}  // namespace spillway::kernels::cuda
