// What the matrix products share on both sides of a launch: loads and stores by type, and the launch itself.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "kernels/cuda/gemm_types.h"

namespace spillway::kernels::cuda {

__device__ __forceinline__ uint32_t pack_bf16(float low, float high) {
  const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
  return *reinterpret_cast<const uint32_t*>(&pair);
}
__device__ __forceinline__ float silu(float v) { return v / (1.0f + __expf(-v)); }

// 8 values from element i (a multiple of 8); values aligned to 16 bytes. kF32 or kBf16.
__device__ __forceinline__ void load_8(const void* values, int64_t i, Scalar type, float (&v)[8]) {
  if (type == Scalar::kF32) {
    const float4* from = reinterpret_cast<const float4*>(static_cast<const float*>(values) + i);
    const float4 a = from[0], b = from[1];
    v[0] = a.x, v[1] = a.y, v[2] = a.z, v[3] = a.w, v[4] = b.x, v[5] = b.y, v[6] = b.z, v[7] = b.w;
  } else {
    const uint4 q = *reinterpret_cast<const uint4*>(static_cast<const __nv_bfloat16*>(values) + i);
    const uint32_t words[4] = {q.x, q.y, q.z, q.w};
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      v[2 * j] = __uint_as_float(words[j] << 16);
      v[2 * j + 1] = __uint_as_float(words[j] & 0xFFFF0000u);
    }
  }
}

// Of eight bf16 each.
__device__ __forceinline__ float dot_8(const uint4& a, const uint4& b, float sum) {
  const uint32_t x[4] = {a.x, a.y, a.z, a.w}, y[4] = {b.x, b.y, b.z, b.w};
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    sum += __uint_as_float(x[i] << 16) * __uint_as_float(y[i] << 16);
    sum += __uint_as_float(x[i] & 0xFFFF0000u) * __uint_as_float(y[i] & 0xFFFF0000u);
  }
  return sum;
}

__device__ __forceinline__ void store_one(void* y, Scalar type, int64_t i, float value, bool add) {
  if (type == Scalar::kF32) {
    float* to = static_cast<float*>(y) + i;
    *to = add ? *to + value : value;
  } else {
    auto* to = static_cast<__nv_bfloat16*>(y) + i;
    *to = __float2bfloat16(add ? __bfloat162float(*to) + value : value);
  }
}

// Multiprocessors of the current device; asked once for each device.
inline int processor_count() {
  static int counts[64] = {};
  int device = 0;
  if (cudaGetDevice(&device) != cudaSuccess || device < 0 || device >= 64) return 1;
  if (counts[device] == 0) cudaDeviceGetAttribute(&counts[device], cudaDevAttrMultiProcessorCount, device);
  return counts[device] > 0 ? counts[device] : 1;
}

// Asked which code of this program the device runs.
template <int kUnused>
__global__ void code_probe() {}

// As 90 for sm_90: of the code that the current device runs, which is older than the chip where the build has none for
// it; so DeviceInfo::capability() too.
inline int compute_capability() {
  static int found[64] = {};
  int device = 0;
  if (cudaGetDevice(&device) != cudaSuccess || device < 0 || device >= 64) return 0;
  if (found[device] == 0) {
    cudaFuncAttributes attributes = {};
    if (cudaFuncGetAttributes(&attributes, code_probe<0>) == cudaSuccess) found[device] = attributes.ptxVersion;
  }
  return found[device];
}

// Shared memory that a block may have: the device's, and no more than the chips of this code have.
inline int shared_bytes_max() {
  static int found[64] = {};
  int device = 0;
  if (cudaGetDevice(&device) != cudaSuccess || device < 0 || device >= 64) return 48 << 10;
  if (found[device] == 0) {
    cudaDeviceGetAttribute(&found[device], cudaDevAttrMaxSharedMemoryPerBlockOptin, device);
    const int code = compute_capability(), of_code = code == 70   ? 96
                                                     : code == 75 ? 64
                                                     : code == 80 ? 163
                                                     : code < 90  ? 99
                                                                  : 227;
    found[device] = found[device] < of_code << 10 ? found[device] : of_code << 10;
  }
  return found[device];
}

// Every kernel asks for the same division of L1: a multiprocessor drains before it divides anew.
template <typename Kernel>
cudaError_t allow_shared(Kernel kernel, int bytes) {
  if (bytes > shared_bytes_max()) return cudaErrorInvalidValue;
  const cudaError_t error =
      cudaFuncSetAttribute(kernel, cudaFuncAttributePreferredSharedMemoryCarveout, cudaSharedmemCarveoutMaxShared);
  if (error != cudaSuccess) return error;
  return cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
}

// overlap: with programmatic dependent launch. cluster: blocks that share a cluster along x.
template <typename... Parameters, typename... Arguments>
cudaError_t launch_kernel(void (*kernel)(Parameters...), dim3 grid, int threads, size_t shared, cudaStream_t stream,
                          bool overlap, int cluster, const Arguments&... arguments) {
  cudaLaunchAttribute attributes[2];
  int count = 0;
  if (overlap && compute_capability() >= 90) {
    attributes[count].id = cudaLaunchAttributeProgrammaticStreamSerialization;
    attributes[count++].val.programmaticStreamSerializationAllowed = 1;
  }
  if (cluster > 1) {
    attributes[count].id = cudaLaunchAttributeClusterDimension;
    attributes[count].val.clusterDim.x = static_cast<unsigned>(cluster);
    attributes[count].val.clusterDim.y = 1;
    attributes[count++].val.clusterDim.z = 1;
  }
  cudaLaunchConfig_t config = {};
  config.gridDim = grid;
  config.blockDim = dim3(static_cast<unsigned>(threads));
  config.dynamicSmemBytes = shared;
  config.stream = stream;
  config.attrs = attributes;
  config.numAttrs = static_cast<unsigned>(count);
  return cudaLaunchKernelEx(&config, kernel, arguments...);
}

}  // namespace spillway::kernels::cuda
