// The ring of a tiled product in shared memory: stages of x (a) and of the weight (b), then a barrier each for full and
// empty. One block's; the copy engine fills it, warpgroups multiply from it.
#pragma once

#include "kernels/cuda/gemm_ptx.cuh"

namespace spillway::kernels::cuda {

struct Stages {
  char* a;
  char* b;
  uint64_t* full;
  uint64_t* empty;
};

// In dynamic shared memory of at least 1,024 bytes more, for the swizzle's alignment.
template <int kStages, int kABytes, int kBBytes>
__device__ __forceinline__ Stages lay_stages(char* shared) {
  Stages s;
  s.a = reinterpret_cast<char*>((reinterpret_cast<uintptr_t>(shared) + 1023) / 1024 * 1024);
  s.b = s.a + kStages * kABytes;
  s.full = reinterpret_cast<uint64_t*>(s.b + kStages * kBBytes);
  s.empty = s.full + kStages;
  return s;
}

// One thread, before the block's (or cluster's) barrier. readers: arrivals that empty a stage.
template <int kStages>
__device__ __forceinline__ void open_stages(const Stages& s, uint32_t readers) {
  for (int i = 0; i < kStages; ++i) {
    ptx::barrier_init(&s.full[i], 1);
    ptx::barrier_init(&s.empty[i], readers);
  }
  ptx::barrier_init_fence();
}

}  // namespace spillway::kernels::cuda
