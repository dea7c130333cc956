// bf16 products of 17 to a few hundred rows on sm_90: decode of many sequences. Bound by the weight's bytes up to about
// 128 rows; above, by the tensor cores and by L2.
//
// y = x W^T (+ bias) by Epilogue; k a multiple of 64. Sums over K are split over the blocks of a cluster where n is
// small and added in a fixed order: a row's bits depend on n, k and its own values only, within one tile height (64
// rows for m <= 64, else 128; tile_rows fixes it). Tolerance against float64: relative norm 3e-3 into bf16, 1e-4 into
// f32 (of exact bf16 operands).
#pragma once

#include "kernels/cuda/gemm_types.h"

namespace spillway::kernels::cuda {

struct Bf16Product {
  int m = 0;
  const void* x = nullptr;  // bf16 [m, k]
  int64_t x_stride = 0;     // elements, a multiple of 8
  Weight weight;            // kBf16
  const float* bias = nullptr;
  Epilogue epilogue = Epilogue::kStore;
  void* y = nullptr;  // [m, n], with kSwiGlu [m, n / 2]
  Scalar y_type = Scalar::kBf16;
  int64_t y_stride = 0;
  int tile_rows = 0;  // 64 or 128; 0: by m
  int share = 0;      // 1 or 2 blocks that share x's tile; 0: chosen
};

cudaError_t launch_bf16_product(const Bf16Product& product, cudaStream_t stream);

}  // namespace spillway::kernels::cuda
