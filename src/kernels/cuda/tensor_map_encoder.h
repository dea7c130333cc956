// The driver's function that makes tensor maps, found at run time so that nothing links against the driver; in the
// spelling of CUDA 12 or 13. For gemm_maps.cu and attention_maps.cu.
#pragma once

#include <cuda.h>
#include <cuda_runtime_api.h>

namespace spillway::kernels::cuda {

using TensorMapEncoder = CUresult (*)(CUtensorMap*, CUtensorMapDataType, cuuint32_t, void*, const cuuint64_t*,
                                      const cuuint64_t*, const cuuint32_t*, const cuuint32_t*, CUtensorMapInterleave,
                                      CUtensorMapSwizzle, CUtensorMapL2promotion, CUtensorMapFloatOOBfill);

// Null where the driver has none.
inline TensorMapEncoder find_tensor_map_encoder() {
  constexpr const char* kName = "cuTensorMapEncodeTiled";
  void* found = nullptr;
  cudaDriverEntryPointQueryResult result;
#if CUDART_VERSION >= 12050
  const cudaError_t error = cudaGetDriverEntryPointByVersion(kName, &found, 12000, cudaEnableDefault, &result);
#else
  const cudaError_t error = cudaGetDriverEntryPoint(kName, &found, cudaEnableDefault, &result);
#endif
  const bool good = error == cudaSuccess && result == cudaDriverEntryPointSuccess;
  return good ? reinterpret_cast<TensorMapEncoder>(found) : nullptr;
}

}  // namespace spillway::kernels::cuda
