// Attention over packed sequences in float32, on mma.sync with tf32 operands: one product each (11 bits), rounded on
// their way into shared memory, or three of values split in two (22 bits) where the pass is to be exact. Otherwise as
// encoder_attention.cuh. A warp keeps 16 rows kTiles times, so that what it reads of keys and values serves as often.
// Rows in shared memory are padded by 16 bytes, so that the eight rows and four columns of a fragment lie in 32 banks.
#pragma once

#include "kernels/cuda/encoder_attention.cuh"
#include "kernels/cuda/encoder_rows.cuh"
#include "kernels/device_encoder.h"

namespace spillway::kernels::cuda::sequence_f32 {

constexpr int kWarps = 6;
constexpr int kThreads = 32 * kWarps;
constexpr int kKeys = 32;  // a stage
template <int kDim>
constexpr int kTiles = kDim <= 64 ? 2 : 1;  // of 16 rows, a warp
template <int kDim>
constexpr int kQueries = 16 * kWarps* kTiles<kDim>;
template <int kDim>
constexpr int kParts = kAttentionTile / kQueries<kDim>;  // blocks of a tile
static_assert(kAttentionTile % kQueries<128> == 0 && kAttentionTile % kQueries<64> == 0, "whole blocks");

struct Arguments {
  const float *q, *k, *v;
  const AttentionTile* tiles;
  int64_t stride;
  int heads, dim, window;
  float scale_log2;
  float* y;
};

// c += a b, small terms first. Not exact: a and b are rounded already.
template <bool kExact>
__device__ __forceinline__ void multiply(float (&c)[4], const float (&a)[4], float b0, float b1) {
  uint32_t high[4];
#pragma unroll
  for (int i = 0; i < 4; ++i) high[i] = kExact ? ptx::to_tf32(a[i]) : __float_as_uint(a[i]);
  if constexpr (kExact) {
    const uint32_t b0_high = ptx::to_tf32(b0), b1_high = ptx::to_tf32(b1);
    uint32_t low[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) low[i] = ptx::to_tf32(a[i] - __uint_as_float(high[i]));
    ptx::mma_tf32(c, low, b0_high, b1_high);
    ptx::mma_tf32(c, high, ptx::to_tf32(b0 - __uint_as_float(b0_high)), ptx::to_tf32(b1 - __uint_as_float(b1_high)));
    ptx::mma_tf32(c, high, b0_high, b1_high);
  } else {
    ptx::mma_tf32(c, high, __float_as_uint(b0), __float_as_uint(b1));
  }
}

template <bool kExact>
__device__ __forceinline__ float operand(float x) {
  return kExact ? x : __uint_as_float(ptx::to_tf32(x));
}

// kRows rows of one head from global row `first`, in chunks of four floats; those from `end` on and elements past dim
// are zeros. kAligned: rows and heads begin at multiples of 16 bytes.
template <int kDim, int kRows, bool kAligned>
__device__ __forceinline__ void load_rows(const float* base, int64_t stride, int first, int end, int dim, float* to) {
  constexpr int kChunks = kDim / 4;
#pragma unroll
  for (int i = int(threadIdx.x); i < kRows * kChunks; i += kThreads) {
    const int row = i / kChunks, column = i % kChunks * 4;
    const bool valid = first + row < end && column < dim;
    const float* from = base + int64_t(valid ? first + row : first) * stride + (valid ? column : 0);
    float* into = to + row * (kDim + 4) + column;
    if constexpr (kAligned) {
      sequence::copy_16(ptx::shared_address(into), from, valid);
    } else {
      for (int j = 0; j < 4; ++j) into[j] = valid && column + j < dim ? from[j] : 0;
    }
  }
}

// Of what this thread has loaded.
template <int kDim, int kRows, bool kExact>
__device__ __forceinline__ void round_rows(float* rows) {
  if constexpr (kExact) return;
  constexpr int kChunks = kDim / 4;
#pragma unroll
  for (int i = int(threadIdx.x); i < kRows * kChunks; i += kThreads) {
    auto* four = reinterpret_cast<float4*>(rows + i / kChunks * (kDim + 4) + i % kChunks * 4);
    const float4 x = *four;
    *four = make_float4(operand<false>(x.x), operand<false>(x.y), operand<false>(x.z), operand<false>(x.w));
  }
}

// Scores of one stage become weights 2^(s - largest), and what came before is scaled to the new largest; those outside
// of the sequence or the window become 0.
template <int kDim>
__device__ __forceinline__ void soften(const Arguments& a, float (&s)[kKeys / 8][4], float (&o)[kDim / 8][4],
                                       float (&largest)[2], float (&total)[2], int first_row, int key, int end, int g,
                                       int t) {
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int row = first_row + g + 8 * half;
    float most = largest[half];
#pragma unroll
    for (int n = 0; n < kKeys / 8; ++n) {
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        const int column = key + n * 8 + 2 * t + i;
        float& score = s[n][2 * half + i];
        score = column >= end || (a.window > 0 && abs(row - column) > a.window) ? -INFINITY : score * a.scale_log2;
        most = fmaxf(most, score);
      }
    }
    most = fmaxf(most, __shfl_xor_sync(0xffffffffu, most, 1));
    most = fmaxf(most, __shfl_xor_sync(0xffffffffu, most, 2));
    const float offset = most == -INFINITY ? 0.0f : most, keep = sequence::power_of_two(largest[half] - offset);
    largest[half] = most;
    total[half] *= keep;
#pragma unroll
    for (int n = 0; n < kKeys / 8; ++n) {
#pragma unroll
      for (int i = 2 * half; i < 2 * half + 2; ++i) {
        s[n][i] = sequence::power_of_two(s[n][i] - offset);
        total[half] += s[n][i];
      }
    }
#pragma unroll
    for (int d = 0; d < kDim / 8; ++d) {
      o[d][2 * half] *= keep;
      o[d][2 * half + 1] *= keep;
    }
  }
}

// Outputs of a warp's 16 rows from first_row, divided by their totals.
template <int kDim>
__device__ __forceinline__ void store_rows(const Arguments& a, const float (&o)[kDim / 8][4], const float (&total)[2],
                                           int first_row, int rows_end, int head, int g, int t) {
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    float sum = total[half];
    sum += __shfl_xor_sync(0xffffffffu, sum, 1);
    sum += __shfl_xor_sync(0xffffffffu, sum, 2);
    const float inverse = 1.0f / sum;
    const int row = first_row + g + 8 * half;
    if (row >= rows_end) continue;
    float* to = a.y + int64_t(row) * a.heads * a.dim + head * a.dim;
#pragma unroll
    for (int d = 0; d < kDim / 8; ++d) {
      if (d * 8 + 2 * t >= a.dim) continue;
      *reinterpret_cast<float2*>(to + d * 8 + 2 * t) =
          make_float2(o[d][2 * half] * inverse, o[d][2 * half + 1] * inverse);
    }
  }
}

template <int kDim, bool kExact, bool kAligned>
__global__ void __launch_bounds__(kThreads) attend_f32(Arguments a) {
  constexpr int kRow = kDim + 4, kSome = kTiles<kDim>, kStage = 2 * kKeys * kRow;  // keys, then values
  extern __shared__ __align__(16) float memory[];
  float *queries = memory, *stages = queries + kQueries<kDim> * kRow;
  take_turn();
  AttentionTile tile = a.tiles[blockIdx.y / kParts<kDim>];
  tile.row += int(blockIdx.y % kParts<kDim>) * kQueries<kDim>;
  if (tile.row >= tile.end) return;
  const int head = int(blockIdx.x), warp = int(threadIdx.x / 32), lane = int(threadIdx.x % 32);
  const int g = lane / 4, t = lane % 4;
  const int rows_end = min(tile.row + kQueries<kDim>, tile.end);
  const int begin = a.window > 0 ? max(tile.begin, tile.row - a.window) : tile.begin;
  const int end = a.window > 0 ? min(tile.end, rows_end + a.window) : tile.end;
  const float *q = a.q + head * a.dim, *k = a.k + head * a.dim, *v = a.v + head * a.dim;
  const auto load_stage = [&](int stage, int key) {
    load_rows<kDim, kKeys, kAligned>(k, a.stride, key, end, a.dim, stages + stage * kStage);
    load_rows<kDim, kKeys, kAligned>(v, a.stride, key, end, a.dim, stages + stage * kStage + kKeys * kRow);
  };
  load_rows<kDim, kQueries<kDim>, kAligned>(q, a.stride, tile.row, rows_end, a.dim, queries);
  load_stage(0, begin);
  sequence::commit_copies();
  const int first = warp * 16 * kSome, first_row = tile.row + first;
  float o[kSome][kDim / 8][4] = {}, largest[kSome][2], total[kSome][2];
#pragma unroll
  for (int m = 0; m < kSome; ++m) largest[m][0] = largest[m][1] = -INFINITY, total[m][0] = total[m][1] = 0;
  const float* own = queries + first * kRow;
  const bool works = first_row < rows_end;  // else it only loads
  int stage = 0;
  for (int key = begin; key < end; key += kKeys, stage ^= 1) {
    if (key + kKeys < end) load_stage(stage ^ 1, key + kKeys);
    sequence::commit_copies();
    sequence::wait_copies<1>();
    float *keys = stages + stage * kStage, *values = keys + kKeys * kRow;
    if (key == begin) round_rows<kDim, kQueries<kDim>, kExact>(queries);
    round_rows<kDim, kKeys, kExact>(keys);
    round_rows<kDim, kKeys, kExact>(values);
    __syncthreads();
    if (works) {
      float s[kSome][kKeys / 8][4] = {};
#pragma unroll 4
      for (int c = 0; c < kDim; c += 8) {
        float part[kSome][4];
#pragma unroll
        for (int m = 0; m < kSome; ++m) {
          const float* from = own + (m * 16 + g) * kRow + c + t;
          part[m][0] = from[0], part[m][1] = from[8 * kRow], part[m][2] = from[4], part[m][3] = from[8 * kRow + 4];
        }
#pragma unroll
        for (int n = 0; n < kKeys / 8; ++n) {
          const float* from = keys + (n * 8 + g) * kRow + c + t;
          const float b0 = from[0], b1 = from[4];
#pragma unroll
          for (int m = 0; m < kSome; ++m) multiply<kExact>(s[m][n], part[m], b0, b1);
        }
      }
#pragma unroll
      for (int m = 0; m < kSome; ++m)
        soften<kDim>(a, s[m], o[m], largest[m], total[m], first_row + m * 16, key, end, g, t);
        // The columns of scores that a thread holds, 2 t and 2 t + 1, stand for t and t + 4 of the operand: values
        // likewise.
#pragma unroll
      for (int n = 0; n < kKeys / 8; ++n) {
        float part[kSome][4];
#pragma unroll
        for (int m = 0; m < kSome; ++m) {
          part[m][0] = operand<kExact>(s[m][n][0]), part[m][1] = operand<kExact>(s[m][n][2]);
          part[m][2] = operand<kExact>(s[m][n][1]), part[m][3] = operand<kExact>(s[m][n][3]);
        }
        const float* from = values + (n * 8 + 2 * t) * kRow + g;
#pragma unroll
        for (int d = 0; d < kDim / 8; ++d) {
          const float b0 = from[d * 8], b1 = from[kRow + d * 8];
#pragma unroll
          for (int m = 0; m < kSome; ++m) multiply<kExact>(o[m][d], part[m], b0, b1);
        }
      }
    }
    __syncthreads();
  }
#pragma unroll
  for (int m = 0; m < kSome; ++m)
    if (works) store_rows<kDim>(a, o[m], total[m], first_row + m * 16, rows_end, head, g, t);
}

template <int kDim>
constexpr size_t kShared = size_t(kQueries<kDim> + 4 * kKeys) * (kDim + 4) * sizeof(float);

}  // namespace spillway::kernels::cuda::sequence_f32
