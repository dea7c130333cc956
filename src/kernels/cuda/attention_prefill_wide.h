// The sm_90a path of attention_prefill, apart from the others so that they compile by themselves; and the portable
// path, for comparison.
#pragma once

#include "kernels/cuda/attention_paged.h"

namespace spillway::kernels::cuda {

// bf16 or f16, dim 128, pages of a multiple of 64 tokens, capability 9.0.
bool wide_prefill_takes(const PagedAttention& args);
cudaError_t wide_prefill(const PagedAttention& args, cudaStream_t stream);

cudaError_t attention_prefill_portable(const PagedAttention& args, cudaStream_t stream);

}  // namespace spillway::kernels::cuda
