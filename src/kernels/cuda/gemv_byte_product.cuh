// A warp's part of a stage by the integer tensor cores: the weights as they are stored, the tokens as gemv_bytes.cuh
// keeps them.
//
// What binds here is how long a warp takes for a stage, one instruction after the other. So every address is a register
// of 32 bits that one addition brings to the stage, and nothing is worked out twice.
#pragma once

#include "kernels/cuda/gemv_bytes.cuh"
#include "kernels/cuda/gemv_scales.cuh"

namespace spillway::kernels::cuda {

// d[16 x 8] += a[16 x 32] b[32 x 8], a without, b with sign.
__device__ __forceinline__ void mma_bytes(int (&d)[4], uint32_t a0, uint32_t a1, uint32_t a2, uint32_t a3, uint32_t b0,
                                          uint32_t b1) {
  asm("mma.sync.aligned.m16n8k32.row.col.s32.u8.s8.s32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+r"(d[0]), "+r"(d[1]), "+r"(d[2]), "+r"(d[3])
      : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}

template <int kOffset>
__device__ __forceinline__ uint4 load_shared_16(uint32_t at) {
  uint4 v;
  asm volatile("ld.shared.v4.u32 {%0, %1, %2, %3}, [%4 + %5];"
               : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
               : "r"(at), "n"(kOffset));
  return v;
}
template <int kOffset>
__device__ __forceinline__ float load_shared_half(uint32_t at) {
  uint16_t bits;
  asm volatile("ld.shared.u16 %0, [%1 + %2];" : "=h"(bits) : "r"(at), "n"(kOffset));
  return __half2float(__ushort_as_half(bits));
}
template <int kOffset>
__device__ __forceinline__ GroupFact load_shared_fact(uint32_t at) {
  uint32_t scale, offset;
  asm volatile("ld.shared.v2.u32 {%0, %1}, [%2 + %3];" : "=r"(scale), "=r"(offset) : "r"(at), "n"(kOffset));
  return {__uint_as_float(scale), static_cast<int>(offset)};
}

// Thread t of four holds the sums of token t; its rows are stage_row(g) and those 8, 16 and 24 on.
template <WeightFormat kFormat>
struct ByteProduct {
  using Scales = ScaleStream<kFormat>;
  static constexpr int kGroups = Scales::kGroups;
  static constexpr int kStepValues = kStepElements<kFormat>, kStepFacts = kSlices * kGroups * 8;
  uint32_t lane, weights, scale_place;  // of this thread's in stage 0; from the slot on
  uint32_t column, facts;               // of its fragments of the tokens, of its token's groups
  uint32_t sums_at, sums_row;           // where a pass leaves its sums; from row to row
  float sums[2][2] = {};                // [tile][row of two]

  __device__ __forceinline__ ByteProduct(const StreamPlan& plan, const Ring& ring, const char* kept, const float* to) {
    lane = keep_in_register(threadIdx.x % 32);
    const int g = static_cast<int>(threadIdx.x) % 32 / 4, t = static_cast<int>(threadIdx.x) % 4, m = plan.p.m;
    const int slice = static_cast<int>(threadIdx.x) / 32, row = stage_row(g);
    weights = keep_in_register(shared_address(ring.data) + slice * plan.slab_bytes + row * 128 + ((t ^ row) & 7) * 16);
    scale_place = keep_in_register(row * 2);
    column = keep_in_register(shared_address(kept) + min(g / 2, m - 1) * plan.x_stride + (g & 1) * plan.column_bytes +
                              slice * kGroups * 128 + t * (kNibbles<kFormat> ? 32 : 16));
    facts = keep_in_register(shared_address(kept) + min(t, m - 1) * plan.x_stride + 2 * plan.column_bytes +
                             slice * kGroups * 8);
    sums_row = m * 4;
    sums_at = keep_in_register(shared_address(to) + ((slice * kRowsMax + row) * m + t) * 4);
  }

  // stage_bytes: from the first stage on. full, empty: its barriers.
  template <int kTiles>
  __device__ __forceinline__ void run(uint32_t stage_bytes, uint32_t full, uint32_t empty, uint32_t parity,
                                      uint32_t column_at, uint32_t facts_at, const Scales& scales) {
    int offsets[kGroups];
    float factors[kGroups][kTiles][2];
    const uint32_t scales_at = scales.wait() + scale_place;
    load_factors<0, kTiles>(scales_at, facts_at, offsets[0], factors[0]);
    if constexpr (kGroups > 1) load_factors<1, kTiles>(scales_at, facts_at, offsets[1], factors[1]);
    ptx::barrier_wait_at(full, parity);
    const uint32_t first = weights + stage_bytes, second = first ^ 64;
    uint4 q[2][kTiles][2];
    load_rows<kTiles>(first, q[0]);
    load_rows<kTiles>(second, q[1]);
    int totals[kTiles][2];
    if constexpr (kNibbles<kFormat>) {
      multiply_nibbles(load_shared_16<0>(column_at), load_shared_16<16>(column_at), q[0], totals);
      promote(offsets[0], factors[0], totals);
      multiply_nibbles(load_shared_16<128>(column_at), load_shared_16<144>(column_at), q[1], totals);
      promote(offsets[1], factors[1], totals);
    } else {
      const uint4 v[2] = {load_shared_16<0>(column_at), load_shared_16<64>(column_at)};
#pragma unroll
      for (int i = 0; i < kTiles; ++i) {
        int parts[4] = {};
#pragma unroll
        for (int part = 0; part < 2; ++part) {
          const uint4 &a = q[part][i][0], &b = q[part][i][1];
          mma_bytes(parts, a.x, b.x, a.y, b.y, v[part].x, v[part].y);
          mma_bytes(parts, a.z, b.z, a.w, b.w, v[part].z, v[part].w);
        }
        totals[i][0] = parts[0] * 256 + parts[1];
        totals[i][1] = parts[2] * 256 + parts[3];
      }
      promote(offsets[0], factors[0], totals);
    }
    __syncwarp();
    if (lane == 0) ptx::barrier_arrive_at(empty);
  }

  template <int kTiles>
  static __device__ __forceinline__ void load_rows(uint32_t at, uint4 (&q)[kTiles][2]) {
    q[0][0] = load_shared_16<0>(at);
    q[0][1] = load_shared_16<8 * 128>(at);
    if constexpr (kTiles > 1) q[1][0] = load_shared_16<16 * 128>(at), q[1][1] = load_shared_16<24 * 128>(at);
  }

  template <int kGroup, int kTiles>
  static __device__ __forceinline__ void load_factors(uint32_t scales_at, uint32_t facts_at, int& offset,
                                                      float (&factors)[kTiles][2]) {
    constexpr int kSlot = kGroup * kScaleSlotBytes;
    const GroupFact fact = load_shared_fact<kGroup * 8>(facts_at);
    offset = fact.offset;
    factors[0][0] = load_shared_half<kSlot>(scales_at) * fact.scale;
    factors[0][1] = load_shared_half<kSlot + 16>(scales_at) * fact.scale;
    if constexpr (kTiles > 1) {
      factors[1][0] = load_shared_half<kSlot + 32>(scales_at) * fact.scale;
      factors[1][1] = load_shared_half<kSlot + 48>(scales_at) * fact.scale;
    }
  }

  template <int kTiles>
  static __device__ __forceinline__ void multiply_nibbles(uint4 v, uint4 w, const uint4 (&q)[kTiles][2],
                                                          int (&totals)[kTiles][2]) {
    constexpr uint32_t kLow = 0x0F0F0F0Fu, kHigh = 0xF0F0F0F0u;
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

  // To shared memory as [slice][row][token], `place` bytes on.
  __device__ __forceinline__ void leave(uint32_t place, int m, int tiles) {
    const bool mine = static_cast<int>(lane % 4) < m;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      if (mine && i / 2 < tiles) {
        asm volatile("st.shared.f32 [%0], %1;" ::"r"(sums_at + place + i * 8 * sums_row), "f"(sums[i / 2][i % 2])
                     : "memory");
      }
      sums[i / 2][i % 2] = 0;
    }
  }
};

}  // namespace spillway::kernels::cuda
