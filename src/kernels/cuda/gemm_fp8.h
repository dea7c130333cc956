// FP8 block-scaled products on sm_90: y = x W^T with x in e4m3 by token and group of 128 (quantize_activations.h) and W
// in e4m3 by blocks of 128 x 128 (WeightFormat::kF8Block, scale_rows 128). Each group's sum of 128 products is made on
// the tensor cores and promoted into float32 with both scales.
//
// n a multiple of 8, k a multiple of 128. A row's bits do not depend on m or on other rows with split 1.
// Tolerance against float64 on the quantised operands: relative norm 4e-3 into bf16, 1e-3 into f32.
#pragma once

#include "kernels/cuda/gemm_types.h"
#include "kernels/cuda/quantize_activations.h"

namespace spillway::kernels::cuda {

struct Fp8Product {
  int m = 0;
  QuantizedActivations x;                // [m, k]
  Weight weight;                         // kF8Block
  Epilogue epilogue = Epilogue::kStore;  // kStore or kAdd
  void* y = nullptr;                     // [m, n]
  Scalar y_type = Scalar::kBf16;         // kBf16 or kF32
  int64_t y_stride = 0;
  int tile_rows = 0;  // 64, 128, 192 or 256; 0: chosen by m, and of prompts by n and k
  int split = 0;      // blocks that share a tile's K (gemm_fp8_split.h): 1: none; 0: chosen by m, where tile_rows is
};

cudaError_t launch_fp8_product(const Fp8Product& product, cudaStream_t stream);

// Experts' products, one launch. W: [experts, n, k] with scales [experts, ceil(n / 128), k / 128].
//
// Contiguous: x is [m, k], rows sorted by expert, each expert's rows padded to whole blocks of block_rows (64: few rows
// an expert, decode; 128: prefill); block_experts[i] on the device names the expert of block i, or is negative for a
// block to skip. m is the padded capacity. Rows of padding are computed and written.
// Masked (decode): x is [experts, rows_max, k]; counts[e] on the device rows of each expert are valid, the others are
// neither used nor written. rows_max a multiple of 64; scales_stride = experts * rows_max. At most 1,024 experts.
constexpr int kGroupedBlockRows = 128;

struct Fp8GroupedProduct {
  int experts = 0;
  int m = 0;                               // contiguous: rows in all; masked: experts * rows_max
  int rows_max = 0;                        // masked
  int block_rows = kGroupedBlockRows;      // contiguous: 64 or 128
  const int32_t* block_experts = nullptr;  // contiguous: [m / block_rows]
  const int32_t* counts = nullptr;         // masked: [experts]
  QuantizedActivations x;
  Weight weight;      // n and k of one expert
  void* y = nullptr;  // [m, n]
  Scalar y_type = Scalar::kBf16;
  int64_t y_stride = 0;
};

cudaError_t launch_fp8_grouped_product(const Fp8GroupedProduct& product, cudaStream_t stream);

}  // namespace spillway::kernels::cuda
