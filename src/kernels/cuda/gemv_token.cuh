// One row by int4 weights: every warp is on its own from the launch to the last sums. It owns slices of 256 weights
// along K, has them copied to its own slots in shared memory some steps ahead (a step: 16 rows by a slice), and
// multiplies them as they arrive; no other warp waits for it.
//
// The arithmetic is that of gemv_bytes.cuh. A fragment's eight columns hold what differs by kind: group of the slice
// (2), lower or higher nibbles (2), high or low bytes of the inputs (2); a lane has inputs of the one kind 2 group +
// higher that its column stands for and zeros for the others. So thread t of four ends with the sums of kind t, and the
// scales are applied to four kinds at once.
#pragma once

#include "kernels/cuda/attention_ptx.cuh"
#include "kernels/cuda/gemm_maps.h"
#include "kernels/cuda/gemv_bytes.cuh"

namespace spillway::kernels::cuda {

constexpr int kTokenWarps = 14, kTokenLongWarps = 15;   // of a block: one slice each, or several
constexpr int kTokenRows = 16;                          // of a step: one tile
constexpr int kTokenSlice = 256;                        // weights along K
constexpr int kTokenStepBytes = kTokenRows * 128;       // of weights
constexpr int kTokenInputBytes = kTokenSlice * 2 + 32;  // of a slice: its integers, then a KindFact for each kind
constexpr int kTokenScaleBytes = kTokenRows * 2 * 2;    // of a slice and tile; as many as its 16 sums

struct TokenPlan {
  SmallBatchProduct p;
  int units, half;        // outputs; rows from a unit's first row to its second, 0 where it has one
  int block_steps, more;  // a block's share in steps of two units; the first `more` blocks have one more
  int tile_units, tiles;  // of a tile; the most tiles of a block
  int slices;             // of K
  int turns;              // the most slices of a warp
  int box_bytes;          // of a step
};

// d = a b + c: a 16 x 32 without, b 32 x 8 with sign.
__device__ __forceinline__ void mma_kinds(int (&d)[4], const int (&c)[4], uint32_t a0, uint32_t a1, uint32_t a2,
                                          uint32_t a3, uint32_t b0, uint32_t b1) {
  asm("mma.sync.aligned.m16n8k32.row.col.s32.u8.s8.s32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%10, %11, %12, %13};"
      : "=r"(d[0]), "=r"(d[1]), "=r"(d[2]), "=r"(d[3])
      : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1), "r"(c[0]), "r"(c[1]), "r"(c[2]), "r"(c[3]));
}

__device__ __forceinline__ uint4 load_own_16(uint32_t at) {
  uint4 v;
  asm volatile("ld.shared.v4.u32 {%0, %1, %2, %3}, [%4];" : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w) : "r"(at));
  return v;
}
__device__ __forceinline__ void store_own(uint32_t at, uint32_t v) {
  asm volatile("st.shared.u32 [%0], %1;" ::"r"(at), "r"(v) : "memory");
}

__device__ __forceinline__ void store_own_16(uint32_t at, uint32_t a, uint32_t b, uint32_t c, uint32_t d) {
  asm volatile("st.shared.v4.u32 [%0], {%1, %2, %3, %4};" ::"r"(at), "r"(a), "r"(b), "r"(c), "r"(d) : "memory");
}

__device__ __forceinline__ uint32_t own_lane() { return threadIdx.x % 32; }

// The weights of a warp's steps on their way: tile by tile, in each its slices.
template <bool kLong>
struct TokenStream {
  const CUtensorMap* map;
  char* slots;
  uint64_t* barriers;  // a slot's
  int row, column;     // of the next step
  int left;            // steps
  int turn, turns;
  int tile_units, bytes;

  // One lane, once.
  static __device__ __forceinline__ void open(uint64_t* barriers, int depth) {
    for (int i = 0; i < depth; ++i) ptx::barrier_init(&barriers[i], 1);
    ptx::barrier_init_fence();
  }
  // Into slot i; one lane issues.
  __device__ __forceinline__ void copy(int i, int warp_column, int next_column) {
    if (left > 0 && ptx::elect_one()) {
      ptx::barrier_expect(&barriers[i], bytes);
      ptx::tensor_load_3d(slots + i * kTokenStepBytes, map, column, row, 0, &barriers[i]);
    }
    --left;
    if (!kLong || ++turn == turns) {
      turn = 0, row += tile_units, column = warp_column;
    } else {
      column += next_column;
    }
  }
};

// Asks for the scales of a slice and all tiles: [tile][group][row of 16], zeros where the tile has no row.
__device__ __forceinline__ void copy_token_scales(const TokenPlan& plan, uint32_t to, int slice, int first_unit,
                                                  int count) {
  const int lane = static_cast<int>(own_lane()), group = lane / 8 % 2, word = lane % 8;
  const bool upper = plan.half > 0 && word >= 4;
  const int unit = 2 * (upper ? word - 4 : word);
  const auto* from = static_cast<const char*>(plan.p.weight.scales) +
                     (int64_t{2 * slice + group} * plan.p.weight.n + (upper ? plan.half : 0) + first_unit + unit) * 2;
  for (int tile = lane / 16; tile < plan.tiles; tile += 2) {
    const bool mine = unit < plan.tile_units && tile * plan.tile_units + unit < count;
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(to + tile * kTokenScaleBytes + lane % 16 * 4),
                 "l"(from + int64_t{tile} * plan.tile_units * 2), "r"(mine ? 4 : 0)
                 : "memory");
  }
}

// What a lane's kind makes of its sums.
struct KindFact {
  float scale;
  int offset;
};

// Eight values of a slice to integers; to: the slice's place. Answers the fact of the lane's kind t.
__device__ __forceinline__ KindFact keep_slice(const float (&v)[8], uint32_t to) {
  const uint32_t lane = own_lane();
  uint32_t bits = 0;  // of the largest magnitude; what is not finite lies above all that is
#pragma unroll
  for (int i = 0; i < 8; ++i) bits = max(bits, __float_as_uint(fabsf(v[i])));
#pragma unroll
  for (int step = 8; step > 0; step /= 2) bits = max(bits, __shfl_xor_sync(~0u, bits, step));
  const float most = fmaxf(__uint_as_float(bits), 1e-30f), inverse = byte_inverse(most);
  int low[8], high[8], sum = 0;
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    low[i] = __float_as_int(__fmaf_rn(v[i], inverse, kRounder));
    sum += low[i] - kRounderBits;
    high[i] = low[i] + 128;
  }
#pragma unroll
  for (int step = 8; step > 0; step /= 2) sum += __shfl_xor_sync(~0u, sum, step);
  // [kind][high or low bytes][t][word], so that a lane of the product reads what lies at its own number.
  const uint32_t at = to + lane / 16 * 256 + lane % 4 * 16 + lane % 16 / 4 * 4;
  store_own(at, join_bytes<true>(high[0], high[4], high[1], high[5]));
  store_own(at + 64, join_bytes<false>(low[0], low[4], low[1], low[5]));
  store_own(at + 128, join_bytes<true>(high[2], high[6], high[3], high[7]));
  store_own(at + 192, join_bytes<false>(low[2], low[6], low[3], low[7]));
  const float scale = bits < 0x7F800000u ? most * (1.0f / kByteMost) : __uint_as_float(0x7FC00000u);
  const int t = static_cast<int>(lane % 4), source = t / 2 * 16;
  const float shared_scale = __shfl_sync(~0u, scale, source);
  const int offset = __shfl_sync(~0u, sum, source) * 128;
  return t % 2 == 0 ? KindFact{shared_scale, 0} : KindFact{shared_scale * 0.0625f, offset};
}
// The same of a group by four neighbouring lanes, 32 bf16 each: lane q of four has the pieces of eight values q + 4 j.
// to: the slice's place, half: which group of it.
__device__ __forceinline__ void keep_group(const uint4 (&pieces)[4], uint32_t to, uint32_t half, bool stored) {
  uint32_t words[16];
  const uint32_t bits = words_of_group(pieces, words);
  const float most = fmaxf(__uint_as_float(bits), 1e-30f), inverse = byte_inverse(most);
  uint32_t low[2][4], high[2][4];  // [lower or higher nibbles][piece]
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
    low[0][j] = join_bytes<false>(all[0], all[4], all[1], all[5]);
    low[1][j] = join_bytes<false>(all[2], all[6], all[3], all[7]);
    high[0][j] = join_bytes<true>(above[0], above[4], above[1], above[5]);
    high[1][j] = join_bytes<true>(above[2], above[6], above[3], above[7]);
  }
  sum -= static_cast<int>(32u * kRounderBits);
#pragma unroll
  for (int step = 1; step < 4; step *= 2) sum += __shfl_xor_sync(~0u, sum, step);
  if (!stored) return;
  const uint32_t q = threadIdx.x % 4, at = to + half * 256 + q * 16;
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    store_own_16(at + h * 128, high[h][0], high[h][1], high[h][2], high[h][3]);
    store_own_16(at + h * 128 + 64, low[h][0], low[h][1], low[h][2], low[h][3]);
  }
  const float scale = bits < 0x7F800000u ? most * (1.0f / kByteMost) : __uint_as_float(0x7FC00000u);
  const uint32_t fact = to + kTokenSlice * 2 + half * 16;
  if (q == 0) store_own_16(fact, __float_as_uint(scale), 0, __float_as_uint(scale * 0.0625f), sum * 128);
}
__device__ __forceinline__ KindFact load_fact(uint32_t inputs) {
  uint32_t scale, offset;
  asm volatile("ld.shared.v2.u32 {%0, %1}, [%2];"
               : "=r"(scale), "=r"(offset)
               : "r"(inputs + kTokenSlice * 2 + threadIdx.x % 4 * 8));
  return {__uint_as_float(scale), static_cast<int>(offset)};
}

// The lane's column of each kind; at: the lane's place, or zeros'.
struct KindInputs {
  uint4 kinds[4];
  template <int kGroup>
  __device__ __forceinline__ void load(uint32_t at, uint32_t zeros) {
    const uint32_t kind = own_lane() / 8;
#pragma unroll
    for (uint32_t i = 2 * kGroup; i < 2 * kGroup + 2; ++i) kinds[i] = load_own_16(kind == i ? at : zeros);
  }
};

// A step's weights of a lane: [group][row of two].
struct TokenWeights {
  uint4 q[2][2];
  template <int kGroup>
  __device__ __forceinline__ void load(uint32_t at) {
    q[kGroup][0] = load_own_16(at ^ (kGroup * 64));
    q[kGroup][1] = load_own_16((at ^ (kGroup * 64)) + 1024);
  }
};

// d = 16 rows by a group, and what was `before`.
__device__ __forceinline__ void multiply_group(const uint4 (&q)[2], const uint4& v, const uint4& w,
                                               const int (&before)[4], int (&d)[4]) {
  constexpr uint32_t kLow = 0x0F0F0F0Fu, kHigh = 0xF0F0F0F0u;
  const uint4 &a = q[0], &b = q[1];
  mma_kinds(d, before, a.x & kLow, b.x & kLow, a.y & kLow, b.y & kLow, v.x, v.y);
  mma_kinds(d, d, a.x & kHigh, b.x & kHigh, a.y & kHigh, b.y & kHigh, w.x, w.y);
  mma_kinds(d, d, a.z & kLow, b.z & kLow, a.w & kLow, b.w & kLow, v.z, v.w);
  mma_kinds(d, d, a.z & kHigh, b.z & kHigh, a.w & kHigh, b.w & kHigh, w.z, w.w);
}
// Sums of kind t of the lane's two rows over both groups of a slice, whose offset comes off.
__device__ __forceinline__ void multiply_slice(const TokenWeights& weights, const KindInputs& x, int offset,
                                               int (&totals)[2]) {
  const int before[2][4] = {{0, -offset, 0, -offset}, {}};
  int sums[2][4];
  multiply_group(weights.q[0], x.kinds[0], x.kinds[1], before[0], sums[0]);
  multiply_group(weights.q[1], x.kinds[2], x.kinds[3], before[1], sums[1]);
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    totals[i] = (sums[0][2 * i] + sums[1][2 * i]) * 256 + (sums[0][2 * i + 1] + sums[1][2 * i + 1]);
  }
}

}  // namespace spillway::kernels::cuda
