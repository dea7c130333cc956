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

#include "kernels/cuda/gemv_stream.cuh"

namespace spillway::kernels::cuda {

constexpr int kByteRowsMax = 4;

struct GroupFact {
  float scale;
  int offset;
};

template <WeightFormat kFormat>
constexpr bool kNibbles = kFormat == WeightFormat::kInt4;

__device__ __forceinline__ uint32_t join_bytes(int a, int b, int c, int d) {
  const uint32_t low = __byte_perm(static_cast<uint32_t>(a), static_cast<uint32_t>(b), 0x0040);
  const uint32_t high = __byte_perm(static_cast<uint32_t>(c), static_cast<uint32_t>(d), 0x0040);
  return __byte_perm(low, high, 0x5410);
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
  const float inverse = 32512.0f / most;
  // 1.5 * 2^23 added leaves round(v) in the low bits, without the slow conversion.
  constexpr float kRounder = 12582912.0f;
  constexpr int kRounderBits = 0x4B400000;
  int low[8], high[8], sum = 0;
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    low[i] = __float_as_int(__fmaf_rn(v[i], inverse, kRounder));
    sum += low[i] - kRounderBits;
    high[i] = (low[i] + 128) >> 8;  // low's byte is what is left
  }
#pragma unroll
  for (int step = 8; step > 0; step /= 2) sum += __shfl_xor_sync(~0u, sum, step);
  const auto store = [&](char* column, const int(&values)[8]) {
    if constexpr (kNibbles<kFormat>) {  // by quantize_weight.h: 8 t + i of each 32, j of four
      char* to = column + at / 128 * 128 + at % 32 * 4 + at % 128 / 32 * 4;
      *reinterpret_cast<uint32_t*>(to) = join_bytes(values[0], values[4], values[1], values[5]);
      *reinterpret_cast<uint32_t*>(to + 16) = join_bytes(values[2], values[6], values[3], values[7]);
    } else {
      *reinterpret_cast<uint2*>(column + at) = make_uint2(join_bytes(values[0], values[1], values[2], values[3]),
                                                          join_bytes(values[4], values[5], values[6], values[7]));
    }
  };
  store(row, high);
  store(row + plan.column_bytes, low);
  if (threadIdx.x % 16 != 0) return;
  const bool finite = bits < 0x7F800000u;
  const float scale = finite ? most * (1.0f / 32512.0f) : __uint_as_float(0x7FC00000u);
  reinterpret_cast<GroupFact*>(row + 2 * plan.column_bytes)[at / 128] = {kNibbles<kFormat> ? scale * 0.0625f : scale,
                                                                         sum * 128};
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
  static constexpr int kGroups = kNibbles<kFormat> ? 2 : 1;  // of a slice of a stage
  const char* column;                                        // of this thread's fragments of the tokens
  const GroupFact* facts;                                    // of its token's sums
  float sums[2][2] = {};                                     // [tile][row of two]

  __device__ __forceinline__ void begin(const StreamPlan& plan, const char* kept) {
    const int lane = threadIdx.x % 32, g = lane / 4, t = lane % 4, slice = threadIdx.x / 32;
    column = kept + min(g / 2, plan.p.m - 1) * plan.x_stride + (g & 1) * plan.column_bytes + slice * kGroups * 128 +
             t * (kNibbles<kFormat> ? 32 : 16);
    facts = reinterpret_cast<const GroupFact*>(kept + min(t, plan.p.m - 1) * plan.x_stride + 2 * plan.column_bytes) +
            slice * kGroups;
  }

  __device__ __forceinline__ void run(const StreamPlan& plan, const Ring& ring, int stage, uint32_t parity, int tiles,
                                      int step, const StageScales<kFormat>& scales) {
    if (tiles > 1) {
      run_tiles<2>(plan, ring, stage, parity, step, scales);
    } else {
      run_tiles<1>(plan, ring, stage, parity, step, scales);
    }
  }

  template <int kTiles>
  __device__ __forceinline__ void run_tiles(const StreamPlan& plan, const Ring& ring, int stage, uint32_t parity,
                                            int step, const StageScales<kFormat>& scales) {
    const int lane = threadIdx.x % 32, g = lane / 4, t = lane % 4, slice = threadIdx.x / 32;
    const char* x = column + step * kStepElements<kFormat>;
    GroupFact fact[kGroups];
#pragma unroll
    for (int i = 0; i < kGroups; ++i) fact[i] = facts[step * kSlices * kGroups + i];
    ptx::barrier_wait(&ring.full[stage], parity);
    const char* weights = ring.data + stage * plan.stage_bytes + slice * plan.slab_bytes + stage_row(g) * 128;
    int totals[kTiles][2];
    int parts[kTiles][4] = {};
#pragma unroll
    for (int part = 0; part < 2; ++part) {
      const int segment = ((part * 4 + t) ^ stage_row(g)) * 16;
      uint4 q[kTiles][2];
      load_weight_part(weights + segment, q);
      if constexpr (kNibbles<kFormat>) {
        multiply_nibbles(x + part * 128, q, totals);
        promote(fact[part], scales, part, totals);
      } else {
        const uint4 v = *reinterpret_cast<const uint4*>(x + part * 64);
#pragma unroll
        for (int i = 0; i < kTiles; ++i) {
          mma_bytes(parts[i], q[i][0].x, q[i][1].x, q[i][0].y, q[i][1].y, v.x, v.y);
          mma_bytes(parts[i], q[i][0].z, q[i][1].z, q[i][0].w, q[i][1].w, v.z, v.w);
        }
      }
    }
    if constexpr (!kNibbles<kFormat>) {
#pragma unroll
      for (int i = 0; i < kTiles; ++i) {
        totals[i][0] = parts[i][0] * 256 + parts[i][1];
        totals[i][1] = parts[i][2] * 256 + parts[i][3];
      }
      promote(fact[0], scales, 0, totals);
    }
    __syncwarp();
    if (lane == 0) ptx::barrier_arrive(&ring.empty[stage]);
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
  __device__ __forceinline__ void promote(GroupFact fact, const StageScales<kFormat>& scales, int part,
                                          const int (&totals)[kTiles][2]) {
#pragma unroll
    for (int i = 0; i < kTiles; ++i) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        sums[i][half] += scales.value(part, i, half) * fact.scale * static_cast<float>(totals[i][half] - fact.offset);
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
