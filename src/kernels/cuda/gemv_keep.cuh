// The tokens' values on their way to shared memory, where the streamed products keep them for the whole launch
// (gemv_stream.cuh): normalised if asked for, zeros past K; as bf16, or as float16 scaled by a power of two for each
// token, so that whatever bf16 or float32 holds has its place; unscale takes that off the sums again; or as bytes
// (gemv_bytes.cuh). By the consumers; a token's bits do not depend on the others.
#pragma once

#include "kernels/cuda/gemv_bytes.cuh"
#include "kernels/cuda/gemv_stream.cuh"

namespace spillway::kernels::cuda {

constexpr int kHalfRowsMax = 8;  // that may be kept as float16: one block of columns

struct KeptRows {
  char* at;        // plan.x_stride bytes from token to token
  float* partial;  // RowFacts::kPartials
  float* unscale;  // [tokens] where values are scaled
};

// The power of two that brings a token's largest value into [2^13, 2^14).
__device__ __forceinline__ float half_scale(float most) {
  const int exponent = static_cast<int>(__float_as_uint(most) >> 23);
  return __uint_as_float(static_cast<uint32_t>(min(267 - exponent, 253)) << 23);
}
__device__ __forceinline__ float half_unscale(float scale) {
  return __uint_as_float((254u << 23) - __float_as_uint(scale));
}

template <bool kHalf>
__device__ __forceinline__ uint32_t pack_kept(float low, float high, float scale) {
  if constexpr (kHalf) {
    const __half2 pair = __floats2half2_rn(low * scale, high * scale);
    return *reinterpret_cast<const uint32_t*>(&pair);
  } else {
    return pack_bf16(low, high);
  }
}
template <InputKind kKind, WeightFormat kFormat>
__device__ __forceinline__ void store_kept(const StreamPlan& plan, char* row, int at, const float (&v)[8],
                                           float scale) {
  constexpr bool kHalf = kKind == InputKind::kKeptHalf;
  if constexpr (kKind == InputKind::kKeptBytes) return store_kept_bytes<kFormat>(plan, row, at, v);
  *reinterpret_cast<uint4*>(row + at * 2) =
      make_uint4(pack_kept<kHalf>(v[0], v[1], scale), pack_kept<kHalf>(v[2], v[3], scale),
                 pack_kept<kHalf>(v[4], v[5], scale), pack_kept<kHalf>(v[6], v[7], scale));
}

// A token's sum of squares and largest value over the consumers; parts() before their barrier, all() behind it.
template <InputKind kKind>
struct RowFacts {
  static constexpr bool kHalf = kKind == InputKind::kKeptHalf;
  static constexpr int kStride = kHalf                            ? kHalfRowsMax
                                 : kKind == InputKind::kKeptBytes ? kByteRowsMax
                                                                  : kSmallBatchRowsMax;
  static constexpr int kPartials = (kHalf ? 2 : 1) * 8 * kStride;  // of each warp: sums of squares, largest values
  float sum = 0, most = 0;

  __device__ __forceinline__ void take(float value, float weighted) {
    sum += value * value;
    if constexpr (kHalf) most = fmaxf(most, fabsf(weighted));
  }
  __device__ __forceinline__ void parts(const KeptRows& rows, int token) {
#pragma unroll
    for (int step = 16; step > 0; step /= 2) {
      sum += __shfl_xor_sync(~0u, sum, step);
      if constexpr (kHalf) most = fmaxf(most, __shfl_xor_sync(~0u, most, step));
    }
    if (threadIdx.x % 32 != 0) return;
    const int at = static_cast<int>(threadIdx.x) / 32 * kStride + token;
    rows.partial[at] = sum;
    if constexpr (kHalf) rows.partial[8 * kStride + at] = most;
  }
  __device__ __forceinline__ void all(const KeptRows& rows, int token) {
    sum = most = 0;
#pragma unroll
    for (int w = 0; w < 8; ++w) {
      sum += rows.partial[w * kStride + token];
      if constexpr (kHalf) most = fmaxf(most, rows.partial[(8 + w) * kStride + token]);
    }
  }
  // Of the token's values once they are multiplied by factor; leaves its inverse for the sums.
  __device__ __forceinline__ float scale(const KeptRows& rows, int token, float factor) const {
    if constexpr (!kHalf) return 1.0f;
    const float scale = half_scale(most * factor);
    if (threadIdx.x == 0) rows.unscale[token] = half_unscale(scale);
    return scale;
  }
};

__device__ __forceinline__ float norm_factor(const SmallBatchProduct& p, float sum) {
  return p.norm_weight != nullptr ? rsqrtf(sum / static_cast<float>(p.weight.k) + p.norm_eps) : 1.0f;
}

// What the sums of a token are multiplied by that is kept as bf16 or as bytes, neither of which waits for the norm's
// factor: bytes are relative to their group's largest value, and bf16 is as exact without it. Behind parts() and a
// barrier.
template <InputKind kKind>
__device__ __forceinline__ float late_factor(const SmallBatchProduct& p, const KeptRows& rows, int token) {
  if (p.norm_weight == nullptr) return 1.0f;
  RowFacts<kKind> facts;
  facts.all(rows, token);
  return norm_factor(p, facts.sum);
}

template <InputKind kKind, WeightFormat kFormat>
__device__ __forceinline__ void keep_x(const StreamPlan& plan, int tokens, const KeptRows& rows) {
  constexpr bool kHalf = kKind == InputKind::kKeptHalf;
  const SmallBatchProduct& p = plan.p;
  const int thread = static_cast<int>(threadIdx.x), k = p.weight.k;
  const bool normed = p.norm_weight != nullptr;
  const auto load = [&](int token, int at, float(&v)[8], float(&w)[8]) {
    load_8(static_cast<const char*>(p.x) + token * p.x_stride * (p.x_type == Scalar::kF32 ? 4 : 2), at, p.x_type, v);
    if (normed) load_8(p.norm_weight, at, p.norm_type, w);
  };
  if constexpr (kHalf) {
#pragma unroll 2
    for (int token = 0; token < tokens; ++token) {
      RowFacts<kKind> facts;
      for (int at = thread * 8; at < k; at += kConsumers * 8) {
        float v[8], w[8];
        load(token, at, v, w);
#pragma unroll
        for (int i = 0; i < 8; ++i) facts.take(v[i], normed ? v[i] * w[i] : v[i]);
      }
      facts.parts(rows, token);
    }
    ptx::named_barrier(1, kConsumers);
  }
  for (int token = 0; token < tokens; ++token) {
    RowFacts<kKind> facts;
    if constexpr (kHalf) facts.all(rows, token);
    const float factor = kHalf ? norm_factor(p, facts.sum) : 1.0f, scale = facts.scale(rows, token, factor);
    for (int at = thread * 8; at < plan.kept_elements; at += kConsumers * 8) {
      float v[8] = {}, w[8];
      if (at < k) load(token, at, v, w);
      if (normed && at < k) {
#pragma unroll
        for (int i = 0; i < 8; ++i) {
          if constexpr (!kHalf) facts.take(v[i], 0);
          v[i] *= factor * w[i];
        }
      }
      store_kept<kKind, kFormat>(plan, rows.at + token * plan.x_stride, at, v, scale);
    }
    if (!kHalf && normed) facts.parts(rows, token);
  }
  ptx::named_barrier(1, kConsumers);
}

// keep_x of one token with a norm whose row the consumers' registers hold: the norm's weights are read before the
// kernel in front has ended, the row once. The same bits.
template <InputKind kKind, WeightFormat kFormat>
struct HeldRow {
  static constexpr bool kHalf = kKind == InputKind::kKeptHalf;
  static constexpr int kGroups = 2;  // of 8 elements a thread
  float weights[kGroups][8];

  static __device__ __forceinline__ bool takes(const StreamPlan& plan) {
    return plan.p.m == 1 && plan.p.norm_weight != nullptr && plan.kept_elements <= kGroups * kConsumers * 8;
  }
  static __device__ __forceinline__ int place(int group) {
    return (group * kConsumers + static_cast<int>(threadIdx.x)) * 8;
  }
  __device__ __forceinline__ void load_norm(const StreamPlan& plan) {
#pragma unroll
    for (int n = 0; n < kGroups; ++n) {
      if (place(n) < plan.p.weight.k) load_8(plan.p.norm_weight, place(n), plan.p.norm_type, weights[n]);
    }
  }
  __device__ __forceinline__ void keep(const StreamPlan& plan, const KeptRows& rows) const {
    const int k = plan.p.weight.k;
    float v[kGroups][8] = {};
    RowFacts<kKind> facts;
#pragma unroll
    for (int n = 0; n < kGroups; ++n) {
      if (place(n) < k) load_8(plan.p.x, place(n), plan.p.x_type, v[n]);
    }
#pragma unroll
    for (int n = 0; n < kGroups; ++n) {
      if (place(n) >= k) continue;
#pragma unroll
      for (int i = 0; i < 8; ++i) facts.take(v[n][i], v[n][i] * weights[n][i]);
    }
    facts.parts(rows, 0);
    float factor = 1.0f, scale = 1.0f;
    if constexpr (kHalf) {  // the others' is late_factor
      ptx::named_barrier(1, kConsumers);
      facts.all(rows, 0);
      factor = norm_factor(plan.p, facts.sum), scale = facts.scale(rows, 0, factor);
    }
#pragma unroll
    for (int n = 0; n < kGroups; ++n) {
      if (place(n) >= plan.kept_elements) continue;
      if (place(n) < k) {
#pragma unroll
        for (int i = 0; i < 8; ++i) v[n][i] *= factor * weights[n][i];
      }
      store_kept<kKind, kFormat>(plan, rows.at, place(n), v[n], scale);
    }
    ptx::named_barrier(1, kConsumers);
  }
};

// keep_x of one token of bf16 without a norm: all of the row is under way at once, where a loop waits for one piece
// after the other. The same bits.
template <InputKind kKind, WeightFormat kFormat>
struct LongRow {
  static constexpr bool kHalf = kKind == InputKind::kKeptHalf;
  static constexpr int kPieces = 10;  // of 8 elements a thread

  static __device__ __forceinline__ bool takes(const StreamPlan& plan) {
    return plan.p.m == 1 && plan.p.norm_weight == nullptr && plan.p.x_type == Scalar::kBf16 &&
           plan.kept_elements <= kPieces * kConsumers * 8;
  }
  static __device__ __forceinline__ int place(int piece) {
    return (piece * kConsumers + static_cast<int>(threadIdx.x)) * 8;
  }
  static __device__ __forceinline__ void widen(uint4 q, float (&v)[8]) {
    const uint32_t words[4] = {q.x, q.y, q.z, q.w};
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      v[2 * j] = __uint_as_float(words[j] << 16);
      v[2 * j + 1] = __uint_as_float(words[j] & 0xFFFF0000u);
    }
  }
  // As bytes: a group of 128 by four lanes, so that its largest value and its sum take two shuffles each.
  static __device__ __forceinline__ void keep_bytes(const StreamPlan& plan, const KeptRows& rows) {
    constexpr int kRounds = (kPieces + 3) / 4;
    const int thread = static_cast<int>(threadIdx.x), groups = plan.kept_elements / 128;
    const auto group_of = [&](int n) { return (n * kConsumers + thread) / 4; };
    const auto* x = static_cast<const __nv_bfloat16*>(plan.p.x);
    uint4 pieces[kRounds][4];
#pragma unroll
    for (int n = 0; n < kRounds; ++n) {
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        const int at = group_of(n) * 128 + eight_piece<kFormat>(thread % 4, j) * 8;
        pieces[n][j] = at < plan.p.weight.k ? *reinterpret_cast<const uint4*>(x + at) : uint4{};
      }
    }
#pragma unroll
    for (int n = 0; n < kRounds; ++n) {
      if (group_of(n) >= groups) break;  // all of a warp: there are eight groups in each slice of a step
      store_group_bytes<kFormat>(plan, rows.at, group_of(n), pieces[n]);
    }
    ptx::named_barrier(1, kConsumers);
  }
  static __device__ __forceinline__ void keep(const StreamPlan& plan, const KeptRows& rows) {
    if constexpr (kKind == InputKind::kKeptBytes) return keep_bytes(plan, rows);
    const auto* x = static_cast<const __nv_bfloat16*>(plan.p.x);
    uint4 pieces[kPieces];
#pragma unroll
    for (int n = 0; n < kPieces; ++n) {
      pieces[n] = place(n) < plan.p.weight.k ? *reinterpret_cast<const uint4*>(x + place(n)) : uint4{};
    }
    float scale = 1.0f;
    if constexpr (kHalf) {
      RowFacts<kKind> facts;
#pragma unroll
      for (int n = 0; n < kPieces; ++n) {
        float v[8];
        widen(pieces[n], v);
#pragma unroll
        for (int i = 0; i < 8; ++i) facts.take(v[i], v[i]);
      }
      facts.parts(rows, 0);
      ptx::named_barrier(1, kConsumers);
      facts.all(rows, 0);
      scale = facts.scale(rows, 0, 1.0f);
    }
#pragma unroll
    for (int n = 0; n < kPieces; ++n) {
      if (place(n) >= plan.kept_elements) break;
      float v[8];
      widen(pieces[n], v);
      store_kept<kKind, kFormat>(plan, rows.at, place(n), v, scale);
    }
    ptx::named_barrier(1, kConsumers);
  }
};

}  // namespace spillway::kernels::cuda
