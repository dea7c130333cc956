// bf16 weights that a thread holds, packed, while it goes from token to token.
#pragma once

#include <cstdint>

namespace spillway::kernels::cuda {

// At the head of the loop over tokens: they are widened anew each time, not kept as twice the registers.
template <int kCount>
__device__ __forceinline__ void keep_packed(uint4 (&w)[kCount]) {
#pragma unroll
  for (int i = 0; i < kCount; ++i) asm volatile("" : "+r"(w[i].x), "+r"(w[i].y), "+r"(w[i].z), "+r"(w[i].w));
}

// sums[i] of kLanes neighbouring lanes added up: lane l of them has that of i = l * kCount / kLanes.
template <int kLanes, int kCount>
__device__ __forceinline__ float sum_over_lanes(float (&sums)[kCount]) {
  static_assert(kCount <= kLanes && kLanes <= 32);
  const int lane = static_cast<int>(threadIdx.x) % kLanes;
#pragma unroll
  for (int step = kLanes / 2; step > 0; step /= 2) {
    const int half = step * kCount / kLanes;
    if (half == 0) sums[0] += __shfl_xor_sync(0xffffffffu, sums[0], step);
#pragma unroll
    for (int i = 0; i < half; ++i) {
      const bool upper = (lane & step) != 0;
      const float mine = upper ? sums[i + half] : sums[i], other = upper ? sums[i] : sums[i + half];
      sums[i] = mine + __shfl_xor_sync(0xffffffffu, other, step);
    }
  }
  return sums[0];
}

}  // namespace spillway::kernels::cuda
