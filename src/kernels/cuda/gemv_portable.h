// The products of gemv_small_batch.h for GPUs without sm_90's copies (sm_80, 86, 89; slow but right below). Same
// contract; launch_small_batch calls it there, and tests compare both.
#pragma once

#include "kernels/cuda/gemv_small_batch.h"

namespace spillway::kernels::cuda {

inline bool small_batch_valid(const SmallBatchProduct& p) {
  const Weight& w = p.weight;
  if (p.m < 1 || p.m > kSmallBatchRowsMax || w.n < 1 || w.k < 8 || w.k % 8 != 0) return false;
  if (w.format == WeightFormat::kF8Block && w.k % 16 != 0) return false;
  if (p.epilogue == Epilogue::kSwiGlu && w.n % 2 != 0) return false;
  return p.x_type != Scalar::kF16 && p.y_type != Scalar::kF16;
}

cudaError_t launch_small_batch_portable(const SmallBatchProduct& product, cudaStream_t stream);

}  // namespace spillway::kernels::cuda
