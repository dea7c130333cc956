// Running softmax of one row in a warp's registers, in plain float32; for the simple kernels.
#pragma once

#include "kernels/cuda/attention_ptx.cuh"

namespace spillway::kernels::cuda {

constexpr int kSimpleWarps = 4;
constexpr int kSimpleDimMax = 512;

template <typename T>
__device__ inline float dot(const float* q, const T* k, int dim) {
  float sum = 0.0f;
  for (int d = 0; d < dim; ++d) sum += q[d] * to_float(k[d]);
  return sum;
}

template <typename T>
struct SimpleSoftmax {
  float most = -INFINITY, sum = 0.0f;
  float acc[kSimpleDimMax / 32] = {};

  // Takes `count` tokens: lane i has the score of token i; value_of(i) is its row of dim elements.
  template <typename ValueOf>
  __device__ __forceinline__ void add(float score, int count, int dim, ValueOf value_of) {
    const int lane = threadIdx.x & 31;
    float now = score;
    for (int step = 16; step > 0; step /= 2) now = fmaxf(now, __shfl_xor_sync(0xffffffffu, now, step));
    now = fmaxf(now, most);
    const float factor = expf(most - now), p = lane < count ? expf(score - now) : 0.0f;
    most = now;
    float total = p;
    for (int step = 16; step > 0; step /= 2) total += __shfl_xor_sync(0xffffffffu, total, step);
    sum = sum * factor + total;
#pragma unroll
    for (int j = 0; j < kSimpleDimMax / 32; ++j) acc[j] *= factor;
    for (int i = 0; i < count; ++i) {
      const float weight = __shfl_sync(0xffffffffu, p, i);
      const T* v = value_of(i);
#pragma unroll
      for (int j = 0; j < kSimpleDimMax / 32; ++j) {
        if (j * 32 + lane < dim) acc[j] += weight * to_float(v[j * 32 + lane]);
      }
    }
  }

  __device__ __forceinline__ void write(T* out, int dim) const {
    const int lane = threadIdx.x & 31;
#pragma unroll
    for (int j = 0; j < kSimpleDimMax / 32; ++j) {
      if (j * 32 + lane < dim) out[j * 32 + lane] = from_float<T>(acc[j] / sum);
    }
  }
};

}  // namespace spillway::kernels::cuda
