// One token's choice of experts by one warp, all in registers: lane l holds the kPer experts from l * kPer on. Ties
// take the lower expert; a logit that is not a number counts as the lowest.
#pragma once

#include <cstdint>

#include "kernels/moe.h"

namespace spillway::kernels::cuda {

// Whether the warp's way takes such a routing: up to 256 experts, groups that are whole lanes, a power of two of them.
inline bool warp_routes(const RoutingOptions& o, int experts) {
  if (experts < 1 || experts > 256 || o.experts_per_token > 32 || o.groups > 32) return false;
  if (experts > 32 && experts != 64 && experts != 128 && experts != 256) return false;
  const int per = experts > 32 ? experts / 32 : 1, size = experts / o.groups, lanes = size / per;
  return o.groups_per_token >= o.groups || (size % per == 0 && lanes > 0 && (lanes & (lanes - 1)) == 0);
}

// Larger for a larger value; 0 for none.
__device__ __forceinline__ uint32_t order_of(float value) {
  const uint32_t bits = __float_as_uint(value);
  return (bits & 0x80000000u) != 0 ? ~bits : bits | 0x80000000u;
}
__device__ __forceinline__ uint32_t warp_most(uint32_t value) {
#if __CUDA_ARCH__ >= 800
  return __reduce_max_sync(0xffffffffu, value);
#else
  for (int step = 16; step > 0; step /= 2) value = max(value, __shfl_xor_sync(0xffffffffu, value, step));
  return value;
#endif
}

// logits to scores.
template <int kPer>
__device__ __forceinline__ void warp_scores(float (&scores)[kPer], const RoutingOptions& o, int experts) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  if (o.score == RoutingOptions::Score::kSigmoid) {
#pragma unroll
    for (int i = 0; i < kPer; ++i) scores[i] = 1.0f / (1.0f + expf(-scores[i]));
    return;
  }
  float most = -INFINITY, total = 0;
#pragma unroll
  for (int i = 0; i < kPer; ++i) most = fmaxf(most, lane * kPer + i < experts ? scores[i] : -INFINITY);
  for (int step = 16; step > 0; step /= 2) most = fmaxf(most, __shfl_xor_sync(0xffffffffu, most, step));
#pragma unroll
  for (int i = 0; i < kPer; ++i) {
    scores[i] = lane * kPer + i < experts ? expf(scores[i] - most) : 0.0f;
    total += scores[i];
  }
  for (int step = 16; step > 0; step /= 2) total += __shfl_xor_sync(0xffffffffu, total, step);
#pragma unroll
  for (int i = 0; i < kPer; ++i) scores[i] /= total;
}

// Whether the group of this lane is among the best, by the sum of its two best choices.
template <int kPer>
__device__ __forceinline__ bool group_stays(const float (&choice)[kPer], const RoutingOptions& o, int experts) {
  const int size = experts / o.groups, lanes = size / kPer, group = static_cast<int>(threadIdx.x) % 32 / lanes;
  float first = -INFINITY, second = -INFINITY;
#pragma unroll
  for (int i = 0; i < kPer; ++i) {
    second = fmaxf(second, fminf(first, choice[i]));
    first = fmaxf(first, choice[i]);
  }
  for (int step = 1; step < lanes; step *= 2) {
    const float other = __shfl_xor_sync(0xffffffffu, first, step), next = __shfl_xor_sync(0xffffffffu, second, step);
    second = fmaxf(fminf(first, other), fmaxf(second, next));
    first = fmaxf(first, other);
  }
  const float score = size > 1 ? first + second : first;
  int better = 0;
  for (int g = 0; g < o.groups; ++g) {
    const float other = __shfl_sync(0xffffffffu, score, g * lanes);
    better += other > score || (other == score && g < group) ? 1 : 0;
  }
  return better < o.groups_per_token;
}

// logits: of this token; bias: null for none. All lanes call it.
template <int kPer>
__device__ void route_by_warp(const float* logits, const float* bias, const RoutingOptions& o, int experts,
                              int32_t* ids, float* weights) {
  const int lane = static_cast<int>(threadIdx.x) % 32, first = lane * kPer;
  float scores[kPer], choice[kPer];
  uint32_t order[kPer];
#pragma unroll
  for (int i = 0; i < kPer; ++i) {
    scores[i] = first + i < experts ? __ldcg(logits + first + i) : 0.0f;
    choice[i] = bias != nullptr && first + i < experts ? bias[first + i] : 0.0f;
  }
  warp_scores<kPer>(scores, o, experts);
#pragma unroll
  for (int i = 0; i < kPer; ++i) {
    choice[i] += scores[i];
    if (isnan(choice[i])) choice[i] = -INFINITY;
  }
  const bool stays = o.groups_per_token >= o.groups || group_stays<kPer>(choice, o, experts);
  uint32_t most = 0;  // of this lane
  int at = 0;
  const auto find = [&] {
    most = 0, at = 0;
#pragma unroll
    for (int i = kPer - 1; i >= 0; --i) {
      if (order[i] >= most) most = order[i], at = i;
    }
  };
#pragma unroll
  for (int i = 0; i < kPer; ++i) {
    order[i] = first + i < experts ? order_of(stays ? choice[i] : -INFINITY) : 0;
  }
  find();
  float sum = 0, mine = 0;
  int my_id = 0;
  for (int slot = 0; slot < o.experts_per_token; ++slot) {
    const int owner = __ffs(static_cast<int>(__ballot_sync(0xffffffffu, most == warp_most(most)))) - 1;
    float score = 0;
#pragma unroll
    for (int i = 0; i < kPer; ++i) score = i == at ? scores[i] : score;
    score = __shfl_sync(0xffffffffu, score, owner);
    const int id = __shfl_sync(0xffffffffu, first + at, owner);
    sum += score;
    if (lane == slot) mine = score, my_id = id;
    if (lane == owner) {
#pragma unroll
      for (int i = 0; i < kPer; ++i) order[i] = i == at ? 0 : order[i];
      find();
    }
  }
  const float factor = o.normalize ? o.scale / (sum + 1e-20f) : o.scale;
  if (lane < o.experts_per_token) {
    ids[lane] = my_id;
    weights[lane] = mine * factor;
  }
}

}  // namespace spillway::kernels::cuda
