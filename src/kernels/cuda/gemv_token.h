// Products of one row by int4 weights: decode at batch 1, where consumers of a shared ring would bind
// (NOTES-products.md). The contract is launch_small_batch's, which calls this.
#pragma once

#include "kernels/cuda/gemv_small_batch.h"

namespace spillway::kernels::cuda {

// One row, k a multiple of 256 and long enough that every warp has its own part.
bool token_product_takes(const SmallBatchProduct& product);
cudaError_t launch_token_product(const SmallBatchProduct& product, cudaStream_t stream);

}  // namespace spillway::kernels::cuda
