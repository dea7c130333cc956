// bf16 products of up to 32 rows by weights of few outputs (qkv, output and down of a dense layer) on sm_90: K is
// shared by the blocks of a cluster, whose sums meet in shared memory; one launch, the residual added at its end. Bound
// by the weight's bytes. Sums are added in a fixed order, which depends on n and k. Tolerance as gemm_bf16.h.
#pragma once

#include "kernels/cuda/gemm_bf16.h"

namespace spillway::kernels::cuda {

// Whether there is a kernel for it: no bias, no SwiGLU.
bool bf16_split_takes(const Bf16Product& product);
// split: blocks that share K, 1 to 4; 0: as many as run at once.
cudaError_t launch_bf16_split_product(const Bf16Product& product, cudaStream_t stream, int split = 0);

}  // namespace spillway::kernels::cuda
