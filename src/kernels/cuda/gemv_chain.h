// Products of one row one after the other in one launch, each reading what those before it wrote: a decoder layer's
// output, gate and up, and down products with the next layer's queries, keys and values. One block a multiprocessor;
// their weights do not depend on the tokens, so the ring that streams them never drains while blocks wait for one
// another. The same bits as one launch a product.
//
// Blocks wait for each other, so all of them must be on the device at once: nothing that waits in its turn may run
// beside a chain, that is one stream of chains a device.
#pragma once

#include "kernels/cuda/gemv_small_batch.h"

namespace spillway::kernels::cuda {

constexpr int kChainMax = 4;

struct SmallBatchChain {
  int count = 0;
  // Of one row and one weight format, same_bits unset. What one adds to is written by launches before, or by an earlier
  // product of as many outputs.
  SmallBatchProduct products[kChainMax];
  unsigned long long* counter = nullptr;  // of arrivals; device memory, zero before the first chain, for chains alone
  int shared_bytes = 0;                   // of a block; 0: chosen
};

// sm_90, every product with an output for each block, and inputs that shared memory holds.
bool small_batch_chain_takes(const SmallBatchChain& chain);
cudaError_t launch_small_batch_chain(const SmallBatchChain& chain, cudaStream_t stream);

}  // namespace spillway::kernels::cuda
