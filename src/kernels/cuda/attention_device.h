// What the attention launches ask of the current device. Cheap calls; any thread.
#pragma once

#include <cuda_runtime_api.h>

namespace spillway::kernels::cuda {

inline int device_attribute(cudaDeviceAttr attribute) {
  int device = 0, value = 0;
  cudaGetDevice(&device);
  cudaDeviceGetAttribute(&value, attribute, device);
  return value;
}
inline int capability_major() { return device_attribute(cudaDevAttrComputeCapabilityMajor); }
inline int processor_count() { return device_attribute(cudaDevAttrMultiProcessorCount); }

}  // namespace spillway::kernels::cuda
