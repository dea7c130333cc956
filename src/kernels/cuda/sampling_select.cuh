// Where the candidates of a row end: the least (logit, token) among the best `count`, or among the best that hold a
// mass. A block selects by digits of one 50-bit key, larger for larger logits and then for lower tokens; masses are
// fixed-point integers, so that no result depends on an order of sums.
#pragma once

#include <cstdint>

namespace spillway::kernels::cuda {

constexpr int kDrawThreads = 512;
constexpr int kDigitBits = 10, kDigits = 5, kBins = 1 << kDigitBits;
constexpr uint32_t kTokenMask = (1u << 18) - 1;

__device__ __forceinline__ uint64_t rank_key(float logit, int token) {
  const uint32_t bits = __float_as_uint(logit);
  const uint32_t ordered = bits & 0x80000000u ? ~bits : bits | 0x80000000u;
  return static_cast<uint64_t>(ordered) << 18 | (kTokenMask - static_cast<uint32_t>(token));
}

// A weight in [0, 1] as an integer of 40 bits behind the point.
__device__ __forceinline__ uint64_t fixed_weight(float logit, float max, float scale) {
  return static_cast<uint64_t>(expf((logit - max) * scale) * 0x1p40f);
}

struct SelectShared {
  uint32_t counts[kBins];
  unsigned long long masses[kBins];
  uint64_t prefix, above;  // above: of what is wanted, already found in larger keys
  uint32_t bin_count;
  bool found;
};

// The bin, from the largest down, in which `wanted` is reached. One warp.
template <typename Value>
__device__ __forceinline__ void find_bin(SelectShared& s, const Value& value_of, uint64_t wanted) {
  const int lane = threadIdx.x % 32;
  const int top = kBins - 1 - lane * (kBins / 32);
  uint64_t sum = 0;
  for (int i = 0; i < kBins / 32; ++i) sum += value_of(top - i);
  uint64_t before = sum;
#pragma unroll
  for (int step = 1; step < 32; step *= 2) {
    const uint64_t lower = __shfl_up_sync(~0u, before, step);
    if (lane >= step) before += lower;
  }
  before += s.above - sum;
  const unsigned reached = __ballot_sync(~0u, before + sum >= wanted);
  if (lane == 0) s.found = reached != 0;
  __syncwarp();
  if (reached == 0 || lane != __ffs(static_cast<int>(reached)) - 1) return;
  int bin = top;
  while (bin > top - kBins / 32 + 1 && before + value_of(bin) < wanted) before += value_of(bin--);
  s.prefix = s.prefix << kDigitBits | static_cast<uint64_t>(bin);
  s.above = before;
  s.bin_count = s.counts[bin];
}

// The least key such that the keys from it on, none below `least`, are `wanted` in number, or in mass if by_mass;
// `least` where all together are fewer. source(f) calls f(key, weight) for each element of the calling thread.
template <typename Source>
__device__ uint64_t select_key(SelectShared& s, const Source& source, uint64_t least, uint64_t wanted, bool by_mass) {
  if (threadIdx.x == 0) s.prefix = s.above = 0;
  for (int digit = 0; digit < kDigits; ++digit) {
    const int shift = (kDigits - 1 - digit) * kDigitBits;
    for (int i = threadIdx.x; i < kBins; i += kDrawThreads) s.counts[i] = 0, s.masses[i] = 0;
    __syncthreads();
    const uint64_t prefix = s.prefix;
    source([&](uint64_t key, uint64_t weight) {
      if (key < least || key >> (shift + kDigitBits) != prefix) return;
      const int bin = static_cast<int>(key >> shift) & (kBins - 1);
      atomicAdd(&s.counts[bin], 1u);
      if (by_mass) atomicAdd(&s.masses[bin], static_cast<unsigned long long>(weight));
    });
    __syncthreads();
    if (threadIdx.x < 32) {
      if (by_mass) {
        find_bin(
            s, [&](int bin) { return s.masses[bin]; }, wanted);
      } else {
        find_bin(
            s, [&](int bin) { return static_cast<unsigned long long>(s.counts[bin]); }, wanted);
      }
    }
    __syncthreads();
    if (!s.found) return least;
    const uint64_t from = s.prefix << shift;
    const bool last = s.bin_count == 1;
    __syncthreads();
    if (last) return from > least ? from : least;
  }
  return s.prefix > least ? s.prefix : least;
}

}  // namespace spillway::kernels::cuda
