// The portable prefill kernel of attention_paged.h on mma.sync m16n8k16 (sm_80 and newer): a block of four warps takes
// 64 * kMt packed rows of a kv head over its pages, 64 tokens at a time, two stages of cp.async deep.
#pragma once

#include "kernels/cuda/attention_paged.h"
#include "kernels/cuda/attention_ptx.cuh"
#include "kernels/cuda/attention_rows.cuh"

namespace spillway::kernels::cuda {

struct PrefillParams {
  const char* queries;
  char* out;
  int64_t query_stride, out_stride;  // elements
  int group;
  int tiles;  // of rows, upper bound
  float scale_log2e;
  KvPages pages;
  int64_t values_bytes;
  Batch batch;
};

template <typename T, int kDim, int kMt>
struct PrefillBlock {
  static constexpr int kThreads = 128;
  static constexpr int kTokens = 64;
  static constexpr int kRows = 64 * kMt;
  static constexpr int kSegments = kDim / 8;
  static constexpr int kRowBytes = (kSegments + 7) / 8 * 128;
  static constexpr int kHalfBytes = kTokens * kRowBytes;
  static constexpr int kQueryBytes = kRows * kRowBytes;
  static constexpr int kSharedBytes = kQueryBytes + 4 * kHalfBytes;

  const PrefillParams& p;
  const int lane, warp, kv_head;
  const uint32_t shared;
  const RowTile tile;
  float o[kMt][kDim / 8][4];
  float s[kMt][kTokens / 8][4];
  float m[kMt][2], l[kMt][2];
  int limit[kMt][2];

  __device__ __forceinline__ PrefillBlock(const PrefillParams& p_, const char* shared_, RowTile tile_, int kv_head_)
      : p(p_),
        lane(threadIdx.x & 31),
        warp(threadIdx.x >> 5),
        kv_head(kv_head_),
        shared(shared_address(shared_)),
        tile(tile_) {}

  static __device__ __forceinline__ uint32_t place(int row, int segment) {
    return row * kRowBytes + ((segment ^ (row & 7)) << 4);
  }
  // The packed row of accumulator rows (t, half), relative to the tile.
  __device__ __forceinline__ int row_of(int t, int half) const { return (warp * kMt + t) * 16 + half * 8 + lane / 4; }

  __device__ __forceinline__ void load_queries() {
    for (int at = threadIdx.x; at < kRows * kSegments; at += kThreads) {
      const int row = at / kSegments, segment = at % kSegments, packed = tile.first + row;
      const bool in = packed < tile.rows;
      const int64_t token = tile.row_begin + (in ? packed / p.group : 0), head = kv_head * p.group + packed % p.group;
      copy_async16(shared + place(row, segment), p.queries + (token * p.query_stride + head * kDim) * 2 + segment * 16,
                   in);
    }
  }

  // Keys (half 0) or values (half 1) of 64 tokens from `token` on; past `context` zeros.
  __device__ __forceinline__ void load_tokens(int half, int stage, int token, int context) {
    const int32_t* table = p.batch.page_table + static_cast<int64_t>(tile.sequence) * p.batch.pages_max;
    const uint32_t to = shared + kQueryBytes + (stage * 2 + half) * kHalfBytes;
    for (int at = threadIdx.x; at < kTokens * kSegments; at += kThreads) {
      const int row = at / kSegments, segment = at % kSegments, position = token + row;
      const bool in = position < context;
      const int index = (in ? position : 0) / p.pages.page_tokens;
      const char* from =
          static_cast<const char*>(p.pages.base) + table[index] * p.pages.page_stride_bytes +
          (static_cast<int64_t>(kv_head) * p.pages.page_tokens + (in ? position % p.pages.page_tokens : 0)) *
              (kDim * 2) +
          half * p.values_bytes;
      copy_async16(to + place(row, segment), from + segment * 16, in);
    }
  }

  __device__ __forceinline__ void begin() {
#pragma unroll
    for (int t = 0; t < kMt; ++t) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int packed = tile.first + row_of(t, half);
        limit[t][half] = packed < tile.rows ? p.batch.positions[tile.row_begin + packed / p.group] : -1;
        m[t][half] = -INFINITY;
        l[t][half] = 0.0f;
      }
#pragma unroll
      for (int i = 0; i < kDim / 2; ++i) o[t][i / 4][i % 4] = 0.0f;
    }
  }

  __device__ __forceinline__ void scores(uint32_t keys, int token) {
#pragma unroll
    for (int t = 0; t < kMt; ++t) {
#pragma unroll
      for (int i = 0; i < kTokens / 2; ++i) s[t][i / 4][i % 4] = 0.0f;
    }
#pragma unroll
    for (int k = 0; k < kDim / 16; ++k) {
      uint32_t a[kMt][4];
#pragma unroll
      for (int t = 0; t < kMt; ++t) {
        load_matrix4(a[t], shared + place((warp * kMt + t) * 16 + (lane & 15), k * 2 + (lane >> 4)));
      }
#pragma unroll
      for (int n = 0; n < kTokens / 16; ++n) {
        uint32_t b[4];
        load_matrix4(b, keys + place(n * 16 + (lane & 7) + ((lane >> 4) << 3), k * 2 + ((lane >> 3) & 1)));
#pragma unroll
        for (int t = 0; t < kMt; ++t) {
          mma16816<T>(s[t][n * 2], a[t], b[0], b[1]);
          mma16816<T>(s[t][n * 2 + 1], a[t], b[2], b[3]);
        }
      }
    }
#pragma unroll
    for (int t = 0; t < kMt; ++t) {
#pragma unroll
      for (int i = 0; i < kTokens / 2; ++i) {
        const int at = token + (i / 4) * 8 + (lane % 4) * 2 + (i & 1);
        if (at > limit[t][(i & 2) >> 1]) s[t][i / 4][i % 4] = -INFINITY;
      }
    }
  }

  __device__ __forceinline__ void softmax(int t) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float most = m[t][half];
#pragma unroll
      for (int n = 0; n < kTokens / 8; ++n) most = fmaxf(most, fmaxf(s[t][n][half * 2], s[t][n][half * 2 + 1]));
      most = fmaxf(most, __shfl_xor_sync(0xffffffffu, most, 1));
      most = fmaxf(most, __shfl_xor_sync(0xffffffffu, most, 2));
      const float at = most == -INFINITY ? 0.0f : most * p.scale_log2e;
      const float factor = exp2_fast(m[t][half] * p.scale_log2e - at);
      m[t][half] = most;
      l[t][half] *= factor;
#pragma unroll
      for (int n = 0; n < kDim / 8; ++n) {
        o[t][n][half * 2] *= factor;
        o[t][n][half * 2 + 1] *= factor;
      }
#pragma unroll
      for (int i = 0; i < kTokens / 4; ++i) {
        float& x = s[t][i / 2][half * 2 + i % 2];
        x = exp2_fast(x * p.scale_log2e - at);
        l[t][half] += x;
      }
    }
  }

  __device__ __forceinline__ void products(uint32_t values) {
#pragma unroll
    for (int k = 0; k < kTokens / 16; ++k) {
      uint32_t a[kMt][4];
#pragma unroll
      for (int t = 0; t < kMt; ++t) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          a[t][i] = pack2<T>(s[t][k * 2 + i / 2][(i % 2) * 2], s[t][k * 2 + i / 2][(i % 2) * 2 + 1]);
        }
      }
#pragma unroll
      for (int n = 0; n < kDim / 16; ++n) {
        uint32_t b[4];
        load_matrix4_transposed(b, values + place(k * 16 + (lane & 15), n * 2 + (lane >> 4)));
#pragma unroll
        for (int t = 0; t < kMt; ++t) {
          mma16816<T>(o[t][n * 2], a[t], b[0], b[1]);
          mma16816<T>(o[t][n * 2 + 1], a[t], b[2], b[3]);
        }
      }
    }
  }

  __device__ __forceinline__ void write() {
#pragma unroll
    for (int t = 0; t < kMt; ++t) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        float sum = l[t][half];
        sum += __shfl_xor_sync(0xffffffffu, sum, 1);
        sum += __shfl_xor_sync(0xffffffffu, sum, 2);
        const int packed = tile.first + row_of(t, half);
        if (packed >= tile.rows) continue;
        const float inverse = 1.0f / sum;
        const int64_t token = tile.row_begin + packed / p.group, head = kv_head * p.group + packed % p.group;
        char* to = p.out + (token * p.out_stride + head * kDim) * 2 + (lane % 4) * 4;
#pragma unroll
        for (int n = 0; n < kDim / 8; ++n) {
          *reinterpret_cast<uint32_t*>(to + n * 16) =
              pack2<T>(o[t][n][half * 2] * inverse, o[t][n][half * 2 + 1] * inverse);
        }
      }
    }
  }

  __device__ __forceinline__ void run() {
    const int last = min(tile.first + kRows, tile.rows) - 1;
    const int context = p.batch.positions[tile.row_begin + last / p.group] + 1;
    load_queries();
    load_tokens(0, 0, 0, context);
    load_tokens(1, 0, 0, context);
    copy_async_commit();
    begin();
    int stage = 0;
    for (int token = 0; token < context; token += kTokens) {
      if (token + kTokens < context) {
        load_tokens(0, stage ^ 1, token + kTokens, context);
        load_tokens(1, stage ^ 1, token + kTokens, context);
      }
      copy_async_commit();
      copy_async_wait<1>();
      __syncthreads();
      const uint32_t keys = shared + kQueryBytes + stage * 2 * kHalfBytes;
      scores(keys, token);
#pragma unroll
      for (int t = 0; t < kMt; ++t) softmax(t);
      products(keys + kHalfBytes);
      __syncthreads();
      stage ^= 1;
    }
    write();
  }
};

template <typename T, int kDim, int kMt>
__global__ void __launch_bounds__(128) attention_prefill_mma_kernel(const __grid_constant__ PrefillParams p) {
#if __CUDA_ARCH__ >= 800
  extern __shared__ __align__(128) char prefill_shared[];
  using Block = PrefillBlock<T, kDim, kMt>;
  wait_for_previous_kernel();
  // Late tiles have the longest contexts: they go first.
  const int tile_index = p.tiles - 1 - static_cast<int>(blockIdx.y);
  const RowTile tile = find_row_tile(p.batch, p.group, Block::kRows, tile_index);
  if (tile.sequence < 0) return;
  Block block(p, prefill_shared, tile, blockIdx.x);
  block.run();
#endif
}

}  // namespace spillway::kernels::cuda
