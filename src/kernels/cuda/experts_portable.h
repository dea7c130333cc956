// The routed experts of grouped_experts.h for GPUs before sm_90, without tensor cores: any float type of weights (bf16,
// f16 where the activations are, e4m3 in blocks) and of activations but float32. A token's bits depend on its own row,
// ids and weights only. Correctness first: an expert's weights are read once for a few of its rows at a time.
#pragma once

#include "kernels/cuda/grouped_experts.h"

namespace spillway::kernels::cuda {

size_t portable_experts_bytes(const ExpertsMlp& mlp, int tokens);

// ids in [0, experts). workspace: portable_experts_bytes().
cudaError_t launch_experts_portable(const ExpertsMlp& mlp, void* workspace, size_t workspace_bytes,
                                    cudaStream_t stream);

}  // namespace spillway::kernels::cuda
