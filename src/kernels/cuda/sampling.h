// The CUDA side of kernels/sampling.h. All pointers are the device's.
#pragma once

#include <cuda_runtime_api.h>

#include "kernels/sampling.h"

namespace spillway::kernels::cuda {

// For launches of up to `rows` rows of a vocabulary.
size_t sampling_workspace_bytes(int rows, int vocab);

// Three launches (two when no row has adjustments). overlap: programmatic dependent launch; nothing is read or written
// before the previous kernel has ended.
cudaError_t launch_sampling(const Sampling& sampling, bool overlap, cudaStream_t stream);

}  // namespace spillway::kernels::cuda
