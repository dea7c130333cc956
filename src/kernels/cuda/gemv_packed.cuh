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

}  // namespace spillway::kernels::cuda
