// What the small kernels share: values of f32, bf16 and f16 as float, sums over a block, and a launch by type. For .cu
// files only.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "kernels/cuda/context.h"
#include "kernels/cuda/gemm_launch.cuh"
#include "kernels/cuda/gemm_ptx.cuh"
#include "tensor/cuda/error.h"

namespace spillway::kernels::cuda {

__device__ inline float to_float(float x) { return x; }
__device__ inline float to_float(__nv_bfloat16 x) { return __bfloat162float(x); }
__device__ inline float to_float(__half x) { return __half2float(x); }
template <class T>
__device__ inline T from_float(float x);
template <>
__device__ inline float from_float<float>(float x) {
  return x;
}
template <>
__device__ inline __nv_bfloat16 from_float<__nv_bfloat16>(float x) {
  return __float2bfloat16(x);
}
template <>
__device__ inline __half from_float<__half>(float x) {
  return __float2half(x);
}

// Pair i of a rotated part from one place to another.
template <class T>
__device__ void rotate_pair(const T* from, T* to, int i, int half, bool halves, float cos, float sin) {
  const int first = halves ? i : 2 * i, second = halves ? i + half : 2 * i + 1;
  const float a = to_float(from[first]), b = to_float(from[second]);
  to[first] = from_float<T>(a * cos - b * sin);
  to[second] = from_float<T>(b * cos + a * sin);
}
template <class T>
__device__ void rotate_pair(const T* from, T* to, int i, int half, bool halves, const float* angles) {
  rotate_pair(from, to, i, half, halves, angles[i], angles[half + i]);
}

// The first statement of each small kernel: it may be set up while the previous one ends. It does not let the next one
// start before its own end: where that is a product whose blocks want a multiprocessor each, they would find some of
// them taken and land two on another, and the step waits for that one.
__device__ __forceinline__ void take_turn() { ptx::wait_for_previous(); }

// A launch that overlaps the end of the kernel before it; the kernel begins with take_turn().
template <class... Parameters, class... Arguments>
void launch_row_kernel(const char* name, void (*kernel)(Parameters...), dim3 grid, int threads, size_t shared,
                       tensor::Stream& stream, const Arguments&... arguments) {
  tensor::cuda::check(allow_shared(kernel, int(shared)), name);
  tensor::cuda::check(launch_kernel(kernel, grid, threads, shared, native(stream), true, 1, arguments...), name);
}

// Of all threads of the block, to all of them; in a fixed order. shared: 33 floats.
__device__ inline float block_sum(float value, float* shared) {
  for (int offset = 16; offset > 0; offset /= 2) value += __shfl_xor_sync(0xffffffffu, value, offset);
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, warps = (blockDim.x + 31) / 32;
  __syncthreads();
  if (lane == 0) shared[warp] = value;
  __syncthreads();
  if (threadIdx.x == 0) {
    float sum = 0;
    for (int w = 0; w < warps; ++w) sum += shared[w];
    shared[32] = sum;
  }
  __syncthreads();
  return shared[32];
}

// body(T{}) with the element type of dtype.
template <class Body>
void by_type(tensor::DType dtype, Body&& body) {
  switch (dtype) {
    case tensor::DType::kF32:
      return body(float{});
    case tensor::DType::kBF16:
      return body(__nv_bfloat16{});
    case tensor::DType::kF16:
      return body(__half{});
    default:
      SW_CHECK(false, "expected f32, bf16 or f16");
  }
}

inline int threads_for(int64_t width) { return width >= 4096 ? 512 : width >= 1024 ? 256 : width >= 256 ? 128 : 64; }

}  // namespace spillway::kernels::cuda
