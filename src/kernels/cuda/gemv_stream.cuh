// The streaming core of the products of few rows: a ring of shared memory that bulk copies fill with 512 bytes of each
// of up to 64 weight rows and of the tokens, and the part that each of eight warps computes of a stage: 4 slices of 128
// bytes along K by 2 groups of 16 rows, the weight as the tensor cores' 16-row operand, the tokens as columns of 8.
#pragma once

#include "kernels/cuda/gemm_launch.cuh"
#include "kernels/cuda/gemv_small_batch.h"
#include "kernels/cuda/gemv_widen.cuh"

namespace spillway::kernels::cuda {

constexpr int kSlices = 4;
constexpr int kRowBytes = kSlices * 128;       // of one weight row in a stage
constexpr int kRowStride = kRowBytes + 64;     // 64 more: two rows' quarters fall on different banks
constexpr int kRowsMax = 64;                   // weight rows of a stage
constexpr int kConsumers = 8 * 32;
constexpr int kThreads = kConsumers + 32;
constexpr int kStagesMax = 24;
// Twice in one multiprocessor; where that makes too few stages, the whole of it.
constexpr int kSharedBytes[2] = {112 * 1024, 222 * 1024};
constexpr int kBarrierBytes = 2048;

// A ring's stages and what a stage holds: rows of weights, then tokens.
struct StreamPlan {
  SmallBatchProduct p;
  int units;        // outputs to share out: n, or n / 2 pairs
  int block_units;  // of one pass over K
  int stages;
  int stage_bytes;
  int x_offset;  // of the tokens in a stage, behind the weights
  int x_stride;  // bytes in shared memory
  int x_bytes;   // of one element
  int64_t row_bytes;
  int k_steps;
};

template <WeightFormat kFormat>
constexpr int kStepElements = Format<kFormat>::kElements16 * (kRowBytes / 16);

// Which weight rows a block works on: units [first, first + count), each one row, or two with SwiGLU.
struct Rows {
  int first, count, half;
  __device__ int local() const { return half > 0 ? 2 * count : count; }
  __device__ int global(int r) const { return half > 0 && r >= count ? half + first + r - count : first + r; }
};

struct Ring {
  uint64_t* full;
  uint64_t* empty;
  char* data;
};

// 8 elements of a token as 4 words of bf16, with the norm's weight if any; adds their squares to sum.
__device__ __forceinline__ void load_x8(const StreamPlan& plan, const char* x_row, int k_local, int k, bool valid,
                                        uint32_t (&x)[4], float& sum) {
  x[0] = x[1] = x[2] = x[3] = 0;
  if (!valid) return;
  const SmallBatchProduct& p = plan.p;
  if (p.x_type == Scalar::kBf16 && p.norm_weight == nullptr) {
    const uint4 q = *reinterpret_cast<const uint4*>(x_row + k_local * 2);
    x[0] = q.x, x[1] = q.y, x[2] = q.z, x[3] = q.w;
    return;
  }
  float v[8], w[8];
  load_8(x_row, k_local, p.x_type, v);
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

// The part of one warp in one stage: its 128 bytes of up to two tiles of 16 rows by all tokens.
template <WeightFormat kFormat, int kColumns>
struct WarpProduct {
  using F = Format<kFormat>;
  float sums[2][kColumns][4] = {};
  float squares[kColumns] = {};

  // scales: of the weight in hand; factor multiplies its products; step counts from the weight's first column.
  __device__ void run(const StreamPlan& plan, const Ring& ring, int stage, uint32_t parity, const int (&rows)[2][2],
                      int tiles, int step, const void* weight_scales, float factor = 1.0f) {
    const int lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
    const int slice = threadIdx.x / 32 % kSlices, first_tile = threadIdx.x / 32 / kSlices;
    constexpr int kPartElements = 4 * F::kElements16;
    const int k0 = step * kStepElements<kFormat> + slice * 2 * kPartElements;
    const int groups = (plan.p.weight.k + 127) / 128;
    float scales[2][2][2];
    if constexpr (F::kGroupParts > 0) {
#pragma unroll
      for (int part = 0; part < 2; part += F::kGroupParts) {
        const int group = min((k0 + part * kPartElements) / 128, groups - 1);
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          scales[part][i][0] = factor * load_scale<kFormat>(plan.p.weight, weight_scales, rows[i][0], group, groups);
          scales[part][i][1] = factor * load_scale<kFormat>(plan.p.weight, weight_scales, rows[i][1], group, groups);
        }
      }
    }
    ptx::barrier_wait(&ring.full[stage], parity);
    const char* weights = ring.data + stage * plan.stage_bytes;
    const char* x = weights + plan.x_offset;
    float part_sums[2][kColumns][4] = {};
#pragma unroll
    for (int part = 0; part < 2; ++part) {
      const int offset = slice * 128 + part * 64 + t * 16;
      const bool in_row = step * static_cast<int64_t>(kRowBytes) + offset < plan.row_bytes;
      uint4 q[2][2];
#pragma unroll
      for (int i = 0; i < 2; ++i) {
#pragma unroll
        for (int h = 0; h < 2; ++h) {
          q[i][h] = make_uint4(0, 0, 0, 0);
          const int row = (first_tile + 2 * i) * 16 + g + 8 * h;
          if (in_row && first_tile + 2 * i < tiles) {
            q[i][h] = *reinterpret_cast<const uint4*>(weights + row * kRowStride + offset);
          }
        }
      }
      multiply(plan, x, k0 + part * kPartElements, step, q, tiles > first_tile + 2, part_sums);
      if constexpr (F::kGroupParts > 0) {
        if ((part + 1) % F::kGroupParts == 0) promote(scales[part / F::kGroupParts * F::kGroupParts], part_sums);
      }
    }
    if constexpr (F::kGroupParts == 0) {
#pragma unroll
      for (int i = 0; i < 2; ++i)
#pragma unroll
        for (int c = 0; c < kColumns; ++c)
#pragma unroll
          for (int e = 0; e < 4; ++e) sums[i][c][e] += factor * part_sums[i][c][e];
    }
    __syncwarp();
    if (lane == 0) ptx::barrier_arrive(&ring.empty[stage]);
  }

  __device__ __forceinline__ void multiply(const StreamPlan& plan, const char* x, int k0, int step, const uint4 (&q)[2][2],
                                           bool second_tile, float (&part_sums)[2][kColumns][4]) {
    const int lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
#pragma unroll
    for (int u = 0; u < F::kElements16 / 8; ++u) {
      const int k = k0 + F::unit_k(t, u);
      uint32_t words[kColumns][4];
#pragma unroll
      for (int c = 0; c < kColumns; ++c) {
        const int token = min(8 * c + g, plan.p.m - 1);
        load_x8(plan, x + token * plan.x_stride, k - step * kStepElements<kFormat>, k, k < plan.p.weight.k, words[c],
                squares[c]);
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
            ptx::mma_bf16(part_sums[i][c], low.first, high.first, low.second, high.second, b.first, b.second);
          }
        }
      }
    }
  }

  __device__ __forceinline__ void promote(const float (&scales)[2][2], float (&part_sums)[2][kColumns][4]) {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
#pragma unroll
      for (int c = 0; c < kColumns; ++c) {
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          sums[i][c][e] += scales[i][e / 2] * part_sums[i][c][e];
          part_sums[i][c][e] = 0;
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
          const int row = (first_tile + 2 * i) * 16 + g + 8 * (e / 2), token = 8 * c + 2 * t + e % 2;
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
  constexpr int kPastRows = 15 * kRowStride;
  return sums_bytes(m) > kPastRows ? sums_bytes(m) : kPastRows;
}

}  // namespace spillway::kernels::cuda
