// What the attention launches share: capability, and launches that may overlap the kernel before them.
#pragma once

#include <cuda_runtime_api.h>

#include "kernels/cuda/gemm_launch.cuh"

namespace spillway::kernels::cuda {

inline int capability_major() { return compute_capability() / 10; }

// overlap: programmatic dependent launch. The kernel waits for the previous one before it touches memory.
template <typename... Params>
cudaError_t launch_kernel(void (*kernel)(Params...), dim3 grid, dim3 block, size_t shared, cudaStream_t stream,
                          bool overlap, const Params&... params) {
  const cudaError_t error = allow_shared(kernel, static_cast<int>(shared));
  if (error != cudaSuccess) return error;
  cudaLaunchAttribute early;
  early.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  early.val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t config = {};
  config.gridDim = grid;
  config.blockDim = block;
  config.dynamicSmemBytes = shared;
  config.stream = stream;
  config.attrs = &early;
  config.numAttrs = overlap && capability_major() >= 9 ? 1 : 0;
  return cudaLaunchKernelEx(&config, kernel, params...);
}

}  // namespace spillway::kernels::cuda
