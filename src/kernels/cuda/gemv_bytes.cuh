// Products of one to four rows by int8 and int4 weights on the integer tensor cores: the weights multiply as they are
// stored, which spares widening them.
//
// A token's values of a group of 128 are kept as integers of 16 bits, v = round(x / s) with s = largest |x| / 32512, in
// two columns: v's high bytes (rounded) and what is left. A fragment of eight columns thus holds four tokens. Weights
// are read without their sign (value + 128, or + 8): the group's sum of v, times the offset, comes off again. A word of
// int4 gives two operands by one mask each, of which the higher nibbles count 16 times: 16 low + high is 16 times the
// product. All sums of a group are exact; then both scales. A kept token: its high bytes, its low bytes (column_bytes
// each), a GroupFact for each group.
#pragma once

#include "kernels/cuda/gemv_scales.cuh"
#include "kernels/cuda/gemv_stream.cuh"

namespace spillway::kernels::cuda {

constexpr int kByteRowsMax = 4;

struct GroupFact {
  float scale;
  int offset;
};

template <WeightFormat kFormat>
constexpr bool kNibbles = kFormat == WeightFormat::kInt4;

// The lowest bytes of four words, or the ones above them.
template <bool kAbove>
__device__ __forceinline__ uint32_t join_bytes(int a, int b, int c, int d) {
  constexpr uint32_t kSelect = kAbove ? 0x0051 : 0x0040;
  const uint32_t low = __byte_perm(static_cast<uint32_t>(a), static_cast<uint32_t>(b), kSelect);
  const uint32_t high = __byte_perm(static_cast<uint32_t>(c), static_cast<uint32_t>(d), kSelect);
  return __byte_perm(low, high, 0x5410);
}

// Integers of 16 bits are most / kByteMost. Without a division's branch: this is what long rows wait for.
constexpr float kByteMost = 32512.0f;
__device__ __forceinline__ float byte_inverse(float most) {
  float inverse;  // of a number whose inverse is normal whatever `most` is
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(inverse) : "f"(most * 0x1p-16f));
  return inverse * (kByteMost * 0x1p-16f);
}
// 1.5 * 2^23 added leaves round(v) in the low bits, without the slow conversion.
constexpr float kRounder = 12582912.0f;
constexpr int kRounderBits = 0x4B400000;

// bits: of the group's largest magnitude, `most` as a number; what is not finite lies above all that is.
template <WeightFormat kFormat>
__device__ __forceinline__ void store_fact(const StreamPlan& plan, char* row, int group, uint32_t bits, float most,
                                           int sum) {
  const float scale = bits < 0x7F800000u ? most * (1.0f / kByteMost) : __uint_as_float(0x7FC00000u);
  reinterpret_cast<GroupFact*>(row + 2 * plan.column_bytes)[group] = {kNibbles<kFormat> ? scale * 0.0625f : scale,
                                                                      sum * 128};
}

// Eight neighbouring values of a token, at a multiple of 8; the 16 lanes that hold a group are together.
template <WeightFormat kFormat>
__device__ __forceinline__ void store_kept_bytes(const StreamPlan& plan, char* row, int at, const float (&v)[8]) {
  uint32_t bits = 0;  // of the largest magnitude; what is not finite lies above all that is
#pragma unroll
  for (int i = 0; i < 8; ++i) bits = max(bits, __float_as_uint(fabsf(v[i])));
#pragma unroll
  for (int step = 8; step > 0; step /= 2) bits = max(bits, __shfl_xor_sync(~0u, bits, step));
  const float most = fmaxf(__uint_as_float(bits), 1e-30f);  // its scales stay normal
  const float inverse = byte_inverse(most);
  int low[8], high[8], sum = 0;
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    low[i] = __float_as_int(__fmaf_rn(v[i], inverse, kRounder));
    sum += low[i] - kRounderBits;
    high[i] = low[i] + 128;  // its second byte; low's first is what is left
  }
#pragma unroll
  for (int step = 8; step > 0; step /= 2) sum += __shfl_xor_sync(~0u, sum, step);
  const auto store = [&]<bool kAbove>(char* column, const int(&values)[8]) {
    if constexpr (kNibbles<kFormat>) {  // by quantize_weight.h: 8 t + i of each 32, j of four
      char* to = column + at / 128 * 128 + at % 32 * 4 + at % 128 / 32 * 4;
      *reinterpret_cast<uint32_t*>(to) = join_bytes<kAbove>(values[0], values[4], values[1], values[5]);
      *reinterpret_cast<uint32_t*>(to + 16) = join_bytes<kAbove>(values[2], values[6], values[3], values[7]);
    } else {
      *reinterpret_cast<uint2*>(column + at) = make_uint2(join_bytes<kAbove>(values[0], values[1], values[2], values[3]),
                                                          join_bytes<kAbove>(values[4], values[5], values[6], values[7]));
    }
  };
  store.template operator()<true>(row, high);
  store.template operator()<false>(row + plan.column_bytes, low);
  if (threadIdx.x % 16 == 0) store_fact<kFormat>(plan, row, at / 128, bits, most, sum);
}

// A group of 128 by four neighbouring lanes, 32 values of bf16 each: lane q of four has the pieces of eight values
// eight_piece(q, 0 .. 3). The same bits as store_kept_bytes.
template <WeightFormat kFormat>
__device__ __forceinline__ int eight_piece(int q, int j) {
  return kNibbles<kFormat> ? q + 4 * j : j / 2 * 8 + 2 * q + j % 2;
}
template <WeightFormat kFormat>
__device__ __forceinline__ void store_group_bytes(const StreamPlan& plan, char* row, int group,
                                                  const uint4 (&pieces)[4]) {
  uint32_t words[16];
#pragma unroll
  for (int j = 0; j < 4; ++j) {
    words[4 * j] = pieces[j].x, words[4 * j + 1] = pieces[j].y;
    words[4 * j + 2] = pieces[j].z, words[4 * j + 3] = pieces[j].w;
  }
  constexpr uint32_t kMagnitudes = 0x7FFF7FFFu;
  uint32_t pair = 0;
#pragma unroll
  for (int i = 0; i < 16; i += 2) pair = __vimax3_u16x2(pair, words[i] & kMagnitudes, words[i + 1] & kMagnitudes);
  uint32_t bits = max(pair << 16, pair & 0xFFFF0000u);
#pragma unroll
  for (int step = 1; step < 4; step *= 2) bits = max(bits, __shfl_xor_sync(~0u, bits, step));
  const float most = fmaxf(__uint_as_float(bits), 1e-30f), inverse = byte_inverse(most);
  uint32_t low[8], high[8];  // words of four bytes
  int sum = 0;
#pragma unroll
  for (int j = 0; j < 4; ++j) {
    int all[8], above[8];
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      const uint32_t word = words[4 * j + i / 2];
      const float v = __uint_as_float(i % 2 == 0 ? word << 16 : word & 0xFFFF0000u);
      all[i] = __float_as_int(__fmaf_rn(v, inverse, kRounder));
      above[i] = __float_as_int(__fmaf_rn(v, inverse, kRounder + 128.0f));
      sum += all[i];
    }
    constexpr int kSecond = kNibbles<kFormat> ? 4 : 1, kThird = kNibbles<kFormat> ? 1 : 2,
                  kFourth = kNibbles<kFormat> ? 5 : 3, kOther = kNibbles<kFormat> ? 2 : 4;
    // In the order of store_kept_bytes: by 16 bytes of which pieces each have four, or by neighbours' eight.
    const int first = kNibbles<kFormat> ? j : 2 * j, second = kNibbles<kFormat> ? 4 + j : 2 * j + 1;
    low[first] = join_bytes<false>(all[0], all[kSecond], all[kThird], all[kFourth]);
    low[second] = join_bytes<false>(all[kOther], all[kOther + kSecond], all[kOther + kThird], all[kOther + kFourth]);
    high[first] = join_bytes<true>(above[0], above[kSecond], above[kThird], above[kFourth]);
    high[second] =
        join_bytes<true>(above[kOther], above[kOther + kSecond], above[kOther + kThird], above[kOther + kFourth]);
  }
  sum -= static_cast<int>(32u * kRounderBits);
#pragma unroll
  for (int step = 1; step < 4; step *= 2) sum += __shfl_xor_sync(~0u, sum, step);
  const int q = static_cast<int>(threadIdx.x) % 4;
  char* const to = row + group * 128 + q * (kNibbles<kFormat> ? 32 : 16);
  constexpr int kApart = kNibbles<kFormat> ? 16 : 64;
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    *reinterpret_cast<uint4*>(to + i * kApart) =
        make_uint4(high[4 * i], high[4 * i + 1], high[4 * i + 2], high[4 * i + 3]);
    *reinterpret_cast<uint4*>(to + plan.column_bytes + i * kApart) =
        make_uint4(low[4 * i], low[4 * i + 1], low[4 * i + 2], low[4 * i + 3]);
  }
  if (q == 0) store_fact<kFormat>(plan, row, group, bits, most, sum);
}

// d[16 x 8] += a[16 x 32] b[32 x 8], a without, b with sign.
__device__ __forceinline__ void mma_bytes(int (&d)[4], uint32_t a0, uint32_t a1, uint32_t a2, uint32_t a3, uint32_t b0,
                                          uint32_t b1) {
  asm("mma.sync.aligned.m16n8k32.row.col.s32.u8.s8.s32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+r"(d[0]), "+r"(d[1]), "+r"(d[2]), "+r"(d[3])
      : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}

// As WarpProduct: a warp's part of a stage. Thread t of four holds the sums of token t.
template <WeightFormat kFormat>
struct ByteProduct {
  using Scales = ScaleStream<kFormat>;
  static constexpr int kGroups = Scales::kGroups;  // of a slice of a stage
  const char* column;                                        // of this thread's fragments of the tokens
  const GroupFact* facts;                                    // of its token's sums
  int places[2][2];                                          // of the scales of this thread's rows, [tile][row of two]
  float sums[2][2] = {};

  __device__ __forceinline__ void begin(const StreamPlan& plan, const char* kept) {
    const int lane = threadIdx.x % 32, g = lane / 4, t = lane % 4, slice = threadIdx.x / 32;
    column = kept + min(g / 2, plan.p.m - 1) * plan.x_stride + (g & 1) * plan.column_bytes + slice * kGroups * 128 +
             t * (kNibbles<kFormat> ? 32 : 16);
    facts = reinterpret_cast<const GroupFact*>(kept + min(t, plan.p.m - 1) * plan.x_stride + 2 * plan.column_bytes) +
            slice * kGroups;
  }

  __device__ __forceinline__ void begin_pass(const Rows& rows) {
    const int row = stage_row(threadIdx.x % 32 / 4);
#pragma unroll
    for (int i = 0; i < 4; ++i) places[i / 2][i % 2] = Scales::place(rows, row + 8 * i);
  }

  __device__ __forceinline__ void run(const StreamPlan& plan, const Ring& ring, int stage, uint32_t parity, int tiles,
                                      int step, const Scales& scales) {
    if (tiles > 1) {
      run_tiles<2>(plan, ring, stage, parity, step, scales);
    } else {
      run_tiles<1>(plan, ring, stage, parity, step, scales);
    }
  }

  template <int kTiles>
  __device__ __forceinline__ void run_tiles(const StreamPlan& plan, const Ring& ring, int stage, uint32_t parity,
                                            int step, const Scales& scales) {
    const int lane = threadIdx.x % 32, g = lane / 4, t = lane % 4, slice = threadIdx.x / 32;
    const char* x = column + step * kStepElements<kFormat>;
    int offsets[kGroups];
    float factors[kGroups][kTiles][2];
    scales.wait();
#pragma unroll
    for (int group = 0; group < kGroups; ++group) {
      const GroupFact fact = facts[step * kSlices * kGroups + group];
      offsets[group] = fact.offset;
#pragma unroll
      for (int i = 0; i < kTiles; ++i) {
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          factors[group][i][half] = scales.value(group, places[i][half]) * fact.scale;
        }
      }
    }
    ptx::barrier_wait(&ring.full[stage], parity);
    const char* weights = ring.data + stage * plan.stage_bytes + slice * plan.slab_bytes + stage_row(g) * 128;
    uint4 q[2][kTiles][2];
#pragma unroll
    for (int part = 0; part < 2; ++part) {
      load_weight_part(weights + ((part * 4 + t) ^ stage_row(g)) * 16, q[part]);
    }
#ifdef SPW_EARLY
    __syncwarp();
    if (lane == 0) ptx::barrier_arrive(&ring.empty[stage]);
#endif
    int totals[kTiles][2];
    int parts[kTiles][4] = {};
#pragma unroll
    for (int part = 0; part < 2; ++part) {
      if constexpr (kNibbles<kFormat>) {
        multiply_nibbles(x + part * 128, q[part], totals);
        promote(offsets[part], factors[part], totals);
      } else {
        const uint4 v = *reinterpret_cast<const uint4*>(x + part * 64);
#pragma unroll
        for (int i = 0; i < kTiles; ++i) {
          mma_bytes(parts[i], q[part][i][0].x, q[part][i][1].x, q[part][i][0].y, q[part][i][1].y, v.x, v.y);
          mma_bytes(parts[i], q[part][i][0].z, q[part][i][1].z, q[part][i][0].w, q[part][i][1].w, v.z, v.w);
        }
      }
    }
    if constexpr (!kNibbles<kFormat>) {
#pragma unroll
      for (int i = 0; i < kTiles; ++i) {
        totals[i][0] = parts[i][0] * 256 + parts[i][1];
        totals[i][1] = parts[i][2] * 256 + parts[i][3];
      }
      promote(offsets[0], factors[0], totals);
    }
    __syncwarp();
#ifndef SPW_EARLY
    if (lane == 0) ptx::barrier_arrive(&ring.empty[stage]);
#endif
  }

  template <int kTiles>
  __device__ __forceinline__ void multiply_nibbles(const char* x, const uint4 (&q)[kTiles][2],
                                                   int (&totals)[kTiles][2]) {
    constexpr uint32_t kLow = 0x0F0F0F0Fu, kHigh = 0xF0F0F0F0u;
    const uint4 v = *reinterpret_cast<const uint4*>(x), w = *reinterpret_cast<const uint4*>(x + 16);
#pragma unroll
    for (int i = 0; i < kTiles; ++i) {
      const uint4 &a = q[i][0], &b = q[i][1];
      int low[4] = {}, high[4] = {};
      mma_bytes(low, a.x & kLow, b.x & kLow, a.y & kLow, b.y & kLow, v.x, v.y);
      mma_bytes(high, a.x & kHigh, b.x & kHigh, a.y & kHigh, b.y & kHigh, w.x, w.y);
      mma_bytes(low, a.z & kLow, b.z & kLow, a.w & kLow, b.w & kLow, v.z, v.w);
      mma_bytes(high, a.z & kHigh, b.z & kHigh, a.w & kHigh, b.w & kHigh, w.z, w.w);
      totals[i][0] = (low[0] * 16 + high[0]) * 256 + low[1] * 16 + high[1];
      totals[i][1] = (low[2] * 16 + high[2]) * 256 + low[3] * 16 + high[3];
    }
  }

  template <int kTiles>
  __device__ __forceinline__ void promote(int offset, const float (&factors)[kTiles][2],
                                          const int (&totals)[kTiles][2]) {
#pragma unroll
    for (int i = 0; i < kTiles; ++i) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        sums[i][half] += factors[i][half] * static_cast<float>(totals[i][half] - offset);
      }
    }
  }

  // To shared memory as [slice][row][token].
  __device__ void leave(float* to, int m, int tiles) {
    const int lane = threadIdx.x % 32, g = lane / 4, t = lane % 4, slice = threadIdx.x / 32;
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      if (i >= tiles) break;
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        if (t < m) to[(slice * kRowsMax + i * 16 + stage_row(g) + 8 * half) * m + t] = sums[i][half];
        sums[i][half] = 0;
      }
    }
  }
};

}  // namespace spillway::kernels::cuda
