// bf16 products of hundreds of rows and more on sm_90: prompts. Bound by the tensor cores.
//
// y = x W^T by Epilogue; k a multiple of 64. All of K is summed in one order: a row's bits depend on n, k and its own
// values only. Tolerance against float64: relative norm 3e-3 into bf16, 1e-4 into f32 (of exact bf16 operands).
#pragma once

#include "kernels/cuda/gemm_types.h"

namespace spillway::kernels::cuda {

struct Bf16PromptProduct {
  int m = 0;
  const void* x = nullptr;  // bf16 [m, k]
  int64_t x_stride = 0;     // elements, a multiple of 8
  Weight weight;            // kBf16, n a multiple of 8; of 16 with kSwiGlu
  Epilogue epilogue = Epilogue::kStore;
  void* y = nullptr;              // [m, n], with kSwiGlu [m, n / 2]
  Scalar y_type = Scalar::kBf16;  // kBf16 or kF32
  int64_t y_stride = 0;
  int band = 0;  // pairs of row tiles whose x stays in the L2 cache while the weight passes; 0: chosen
};

cudaError_t launch_bf16_prompt_product(const Bf16PromptProduct& product, cudaStream_t stream);

}  // namespace spillway::kernels::cuda
