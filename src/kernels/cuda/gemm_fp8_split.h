// FP8 products of few rows and outputs (gemm_fp8.h): where tiles of 64 rows by 128 outputs leave most of the chip idle,
// 2, 4 or 8 blocks of a cluster share the K of a tile.
#pragma once

#include "kernels/cuda/gemm_fp8.h"

namespace spillway::kernels::cuda {

// How many blocks launch_fp8_split would share a tile of these among; 1: it gains nothing.
int fp8_split(int m, int n, int k);

// split: 2, 4 or 8. A row's bits depend on it, n, k and its own values only.
cudaError_t launch_fp8_split(const Fp8Product& product, int split, cudaStream_t stream);

}  // namespace spillway::kernels::cuda
