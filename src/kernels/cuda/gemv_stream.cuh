// The streaming core of the products of few rows: a ring of shared memory that tensor copies fill with 512 bytes of each
// of up to 64 weight rows and of the tokens, and the part that each of eight warps computes of a stage: 4 slices of 128
// bytes along K by 2 groups of 16 rows, the weight as the tensor cores' 16-row operand, the tokens as columns of 8.
//
// A stage: 4 slabs (slices) of pitch rows of 128 bytes in the 128-byte swizzle, twice pitch where each unit has two rows;
// then the tokens as boxes of at most 1,024 bytes a token.
#pragma once

#include "kernels/cuda/gemm_launch.cuh"
#include "kernels/cuda/gemm_maps.h"
#include "kernels/cuda/gemv_small_batch.h"
#include "kernels/cuda/gemv_widen.cuh"

namespace spillway::kernels::cuda {

constexpr int kSlices = 4;
constexpr int kRowBytes = kSlices * 128;       // of one weight row in a stage
constexpr int kRowsMax = 64;                   // weight rows of a stage
constexpr int kConsumers = 8 * 32;
constexpr int kThreads = kConsumers + 32;
constexpr int kStagesMax = 24;
// Twice in one multiprocessor; where that makes too few stages, the whole of it.
constexpr int kSharedBytes[2] = {112 * 1024, 222 * 1024};
constexpr int kBarrierBytes = 2048;

// A ring's stages and what a stage holds.
struct StreamPlan {
  SmallBatchProduct p;
  int units;        // outputs to share out: n, or n / 2 pairs
  int block_units;  // of one pass over K
  int pitch;        // block_units up to a multiple of 8: rows of a slab for the first (or only) row of each unit
  int slab_bytes;   // of one slice
  int stages;
  int stage_bytes;
  int x_bytes;  // of one element
  int x_box;    // bytes of a token in one box
  int x_boxes;
  int64_t row_bytes;
  int k_steps;
};

template <WeightFormat kFormat>
constexpr int kStepElements = Format<kFormat>::kElements16 * (kRowBytes / 16);

// Which weight rows a block works on: units [first, first + count), each one row, or two with SwiGlu (then `half` rows
// apart in the weight and `pitch` rows apart in a stage).
struct Rows {
  int first, count, half, pitch;
  __device__ int local() const { return half > 0 ? pitch + count : count; }
  __device__ int global(int r) const {
    const bool second = half > 0 && r >= pitch;
    return (second ? half : 0) + first + min(second ? r - pitch : r, count - 1);
  }
};

// One thread: the boxes of a stage's weights; first_row counts from the first row of the map. Completes 4 slabs' bytes.
__device__ __forceinline__ void load_stage_weights(const StreamPlan& plan, const CUtensorMap* map, char* stage,
                                                   int first_row, int half, int step, uint64_t* full) {
#pragma unroll
  for (int slice = 0; slice < kSlices; ++slice) {
    const int column = step * kRowBytes + slice * 128;
    char* to = stage + slice * plan.slab_bytes;
    ptx::tensor_load(to, map, column, first_row, full);
    if (half > 0) ptx::tensor_load(to + plan.pitch * 128, map, column, first_row + half, full);
  }
}
__device__ __forceinline__ void load_stage_x(const StreamPlan& plan, const CUtensorMap* map, char* stage, int first_token,
                                             int step, uint64_t* full) {
  char* to = stage + kSlices * plan.slab_bytes;
  for (int box = 0; box < plan.x_boxes; ++box) {
    ptx::tensor_load(to + box * plan.p.m * plan.x_box, map, (step * plan.x_boxes + box) * plan.x_box / 4, first_token,
                     full);
  }
}
__device__ __forceinline__ uint32_t stage_transfer_bytes(const StreamPlan& plan, int rows_of_unit) {
  return static_cast<uint32_t>(kRowBytes * plan.block_units * rows_of_unit + plan.p.m * plan.x_box * plan.x_boxes);
}

struct Ring {
  uint64_t* full;
  uint64_t* empty;
  char* data;
};

// 8 elements of a token as 4 words of bf16, with the norm's weight if any; adds their squares to sum.
__device__ __forceinline__ void load_x8(const StreamPlan& plan, const char* x_at, int k, bool valid, uint32_t (&x)[4],
                                        float& sum) {
  x[0] = x[1] = x[2] = x[3] = 0;
  if (!valid) return;
  const SmallBatchProduct& p = plan.p;
  if (p.x_type == Scalar::kBf16 && p.norm_weight == nullptr) {
    const uint4 q = *reinterpret_cast<const uint4*>(x_at);
    x[0] = q.x, x[1] = q.y, x[2] = q.z, x[3] = q.w;
    return;
  }
  float v[8], w[8];
  load_8(x_at, 0, p.x_type, v);
  if (p.norm_weight != nullptr) {
    load_8(p.norm_weight, k, p.norm_type, w);
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      sum += v[i] * v[i];
      v[i] *= w[i];
    }
  }
#pragma unroll
  for (int i = 0; i < 4; ++i) x[i] = pack_bf16(v[2 * i], v[2 * i + 1]);
}

template <WeightFormat kFormat>
__device__ __forceinline__ float load_scale(const Weight& weight, const void* scales, int row, int group, int groups) {
  if constexpr (kFormat == WeightFormat::kF8Block) {
    return static_cast<const float*>(scales)[static_cast<int64_t>(row / weight.scale_rows) * groups + group];
  } else {
    return __half2float(static_cast<const __half*>(scales)[static_cast<int64_t>(group) * weight.n + row]);
  }
}

// Row g of a fragment is row stage_row(g) of eight: so that rows read together differ in the half of their 128 bytes
// that the swizzle puts a segment in.
__device__ __forceinline__ int stage_row(int g) { return g >> 1 | (g & 1) << 2; }

// The scales of a warp's rows in one stage: [group][tile][row of two].
using StageScales = float[2][2][2];

// step counts from the weight's first column; factor is multiplied in.
template <WeightFormat kFormat>
__device__ __forceinline__ void load_scales(const Weight& weight, const void* weight_scales, const int (&rows)[2][2],
                                            int step, float factor, StageScales& scales) {
  using F = Format<kFormat>;
  if constexpr (F::kGroupParts > 0) {
    constexpr int kPartElements = 4 * F::kElements16;
    const int k0 = step * kStepElements<kFormat> + static_cast<int>(threadIdx.x) / 32 % kSlices * 2 * kPartElements;
    const int groups = (weight.k + 127) / 128;
#pragma unroll
    for (int part = 0; part < 2; part += F::kGroupParts) {
      const int group = min((k0 + part * kPartElements) / 128, groups - 1);
#pragma unroll
      for (int i = 0; i < 2; ++i) {
#pragma unroll
        for (int h = 0; h < 2; ++h) {
          scales[part][i][h] = factor * load_scale<kFormat>(weight, weight_scales, rows[i][h], group, groups);
        }
      }
    }
  }
}

// The rows of the weight that a thread's fragments hold, for load_scales.
__device__ __forceinline__ void fragment_rows(const Rows& rows, int (&globals)[2][2]) {
  const int g = threadIdx.x % 32 / 4, first_tile = static_cast<int>(threadIdx.x) / 32 / kSlices;
#pragma unroll
  for (int i = 0; i < 2; ++i) {
#pragma unroll
    for (int h = 0; h < 2; ++h) globals[i][h] = rows.global((first_tile + 2 * i) * 16 + stage_row(g) + 8 * h);
  }
}

// The part of one warp in one stage: its 128 bytes of up to two tiles of 16 rows by all tokens.
template <WeightFormat kFormat, int kColumns>
struct WarpProduct {
  using F = Format<kFormat>;
  static constexpr int kChains = kColumns == 1 ? 2 : 1;  // of dependent products, for their latency
  float sums[2][kColumns][4] = {};
  float squares[kColumns] = {};

  // scales: by load_scales for this step; factor multiplies the products of a weight without scales.
  __device__ void run(const StreamPlan& plan, const Ring& ring, int stage, uint32_t parity, int tiles, int step,
                      const StageScales& scales, float factor = 1.0f) {
    const int lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
    const int slice = threadIdx.x / 32 % kSlices, first_tile = threadIdx.x / 32 / kSlices;
    constexpr int kPartElements = 4 * F::kElements16;
    const int k0 = step * kStepElements<kFormat> + slice * 2 * kPartElements;
    ptx::barrier_wait(&ring.full[stage], parity);
    const char* base = ring.data + stage * plan.stage_bytes;
    const char* weights = base + slice * plan.slab_bytes + (first_tile * 16 + stage_row(g)) * 128;
    const char* x = base + kSlices * plan.slab_bytes;
    float part_sums[kChains][2][kColumns][4] = {};
#pragma unroll
    for (int part = 0; part < 2; ++part) {
      const int segment = ((part * 4 + t) ^ stage_row(g)) * 16;
      uint4 q[2][2];
#pragma unroll
      for (int i = 0; i < 2; ++i) {
#pragma unroll
        for (int h = 0; h < 2; ++h) {
          q[i][h] = make_uint4(0, 0, 0, 0);
          if (first_tile + 2 * i < tiles) {
            q[i][h] = *reinterpret_cast<const uint4*>(weights + (32 * i + 8 * h) * 128 + segment);
          }
        }
      }
      multiply(plan, x, k0 + part * kPartElements, step, q, tiles > first_tile + 2, part_sums);
      if constexpr (F::kGroupParts > 0) {
        if ((part + 1) % F::kGroupParts == 0) promote(scales[part / F::kGroupParts * F::kGroupParts], part_sums);
      }
    }
    if constexpr (F::kGroupParts == 0) {
      const float factors[2][2] = {{factor, factor}, {factor, factor}};
      promote(factors, part_sums);
    }
    __syncwarp();
    if (lane == 0) ptx::barrier_arrive(&ring.empty[stage]);
  }

  __device__ __forceinline__ void multiply(const StreamPlan& plan, const char* x, int k0, int step, const uint4 (&q)[2][2],
                                           bool second_tile, float (&part_sums)[kChains][2][kColumns][4]) {
    const int lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
#pragma unroll
    for (int u = 0; u < F::kElements16 / 8; ++u) {
      const int k = k0 + F::unit_k(t, u);
      const int at = (k - step * kStepElements<kFormat>) * plan.x_bytes;
      const char* x_at = x + (at >> 10) * (plan.p.m << 10) + (at & 1023);
      uint32_t words[kColumns][4];
#pragma unroll
      for (int c = 0; c < kColumns; ++c) {
        const int token = min(8 * c + g, plan.p.m - 1);
        load_x8(plan, x_at + token * plan.x_box, k, k < plan.p.weight.k, words[c], squares[c]);
      }
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        if (i == 1 && !second_tile) break;
#pragma unroll
        for (int j = 0; j < 2; ++j) {
          const Pair low = F::fragment(q[i][0], u, j), high = F::fragment(q[i][1], u, j);
#pragma unroll
          for (int c = 0; c < kColumns; ++c) {
            const Pair b = F::inputs(words[c], j);
            ptx::mma_bf16(part_sums[j % kChains][i][c], low.first, high.first, low.second, high.second, b.first,
                          b.second);
          }
        }
      }
    }
  }

  __device__ __forceinline__ void promote(const float (&scales)[2][2],
                                          float (&part_sums)[kChains][2][kColumns][4]) {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
#pragma unroll
      for (int c = 0; c < kColumns; ++c) {
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          float sum = part_sums[0][i][c][e];
          if constexpr (kChains == 2) sum += part_sums[1][i][c][e];
          sums[i][c][e] += scales[i][e / 2] * sum;
#pragma unroll
          for (int chain = 0; chain < kChains; ++chain) part_sums[chain][i][c][e] = 0;
        }
      }
    }
  }

  // To shared memory as [slice][row][token], and the squares as [slice][token].
  __device__ void leave(float* to, float* square_sums, int m, int tiles, bool norm) {
    const int lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
    const int slice = threadIdx.x / 32 % kSlices, first_tile = threadIdx.x / 32 / kSlices;
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      if (first_tile + 2 * i >= tiles) break;
#pragma unroll
      for (int c = 0; c < kColumns; ++c) {
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          const int row = (first_tile + 2 * i) * 16 + stage_row(g) + 8 * (e / 2), token = 8 * c + 2 * t + e % 2;
          if (token < m) to[(slice * kRowsMax + row) * m + token] = sums[i][c][e];
          sums[i][c][e] = 0;
        }
      }
    }
    if (!norm || first_tile != 0) return;
#pragma unroll
    for (int c = 0; c < kColumns; ++c) {
      squares[c] += __shfl_xor_sync(~0u, squares[c], 1);
      squares[c] += __shfl_xor_sync(~0u, squares[c], 2);
      if (t == 0 && 8 * c + g < m) square_sums[slice * kSmallBatchRowsMax + 8 * c + g] = squares[c];
      squares[c] = 0;
    }
  }
};

// Sum over the slices of K of one row and token.
__device__ __forceinline__ float take_sum(const float* sums, int row, int token, int m) {
  float sum = 0;
#pragma unroll
  for (int s = 0; s < kSlices; ++s) sum += sums[(s * kRowsMax + row) * m + token];
  return sum;
}

constexpr int sums_bytes(int m) { return kSlices * kRowsMax * m * 4; }

// Behind the last stage: the sums. A tile's rows past those loaded are read as well, whatever lies there, and left out.
constexpr int tail_bytes(int m) {
  constexpr int kPastRows = 15 * 128;
  return sums_bytes(m) > kPastRows ? sums_bytes(m) : kPastRows;
}

// Fills what follows from p, units and block_units; shared_bytes holds the ring and what lies behind it.
inline void size_stream(StreamPlan* plan, int rows_of_unit, int step_elements, int shared_bytes) {
  const SmallBatchProduct& p = plan->p;
  plan->row_bytes = weight_row_bytes(p.weight.format, p.weight.k);
  plan->k_steps = static_cast<int>((plan->row_bytes + kRowBytes - 1) / kRowBytes);
  plan->pitch = (plan->block_units + 7) / 8 * 8;
  plan->slab_bytes = plan->pitch * rows_of_unit * 128;
  plan->x_bytes = scalar_bytes(p.x_type);
  const int x_row = step_elements * plan->x_bytes;
  plan->x_box = x_row < 1024 ? x_row : 1024;
  plan->x_boxes = x_row / plan->x_box;
  plan->stage_bytes = (kSlices * plan->slab_bytes + p.m * x_row + 1023) / 1024 * 1024;
  const int ring_bytes = shared_bytes - 1024 - tail_bytes(p.m) - kBarrierBytes;
  plan->stages = ring_bytes / plan->stage_bytes < kStagesMax ? ring_bytes / plan->stage_bytes : kStagesMax;
}
inline size_t stream_shared_bytes(const StreamPlan& plan) {
  return 1024 + static_cast<size_t>(plan.stages) * plan.stage_bytes + tail_bytes(plan.p.m);
}
__device__ __forceinline__ char* ring_base(char* shared) {
  return shared + ((1024 - (ptx::shared_address(shared) & 1023)) & 1023);
}

// rows: of the weight, all experts together; tokens: of x.
inline bool make_stream_maps(const StreamPlan& plan, int64_t rows, int64_t tokens, CUtensorMap* weight, CUtensorMap* x) {
  const SmallBatchProduct& p = plan.p;
  return make_map(weight, MapType::kBytes, p.weight.data, rows, plan.row_bytes, plan.row_bytes, plan.block_units, 128,
                  true) &&
         make_map(x, MapType::kF32, p.x, tokens, static_cast<int64_t>(p.weight.k) * plan.x_bytes / 4,
                  p.x_stride * plan.x_bytes, p.m, plan.x_box / 4, false);
}

}  // namespace spillway::kernels::cuda
