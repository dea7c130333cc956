// bf16 products of up to 128 rows by weights wide enough to fill every multiprocessor with a tile of 288 of their rows
// (gate and up of a dense layer, the head) on sm_90. Bound by the weight's bytes; wider tiles than gemm_bf16's, so that
// x is read from L2 half as often. Bits differ from gemm_bf16's. Tolerance as there.
#pragma once

#include "kernels/cuda/gemm_bf16.h"

namespace spillway::kernels::cuda {

// Whether there is a kernel for it: no bias, not added to y, enough outputs.
bool bf16_wide_takes(const Bf16Product& product);
cudaError_t launch_bf16_wide_product(const Bf16Product& product, cudaStream_t stream);

}  // namespace spillway::kernels::cuda
