// A warp's running attention over chunks of 16 tokens in shared memory: 16 * kMt rows on mma.sync m16n8k16, their
// softmax kept as it goes (maximum, sum, weighted values). Shared by the kernels of attention_decode.cuh and
// attention_token.cu, which differ in who loads the chunks and who combines the warps.
#pragma once

#include "kernels/cuda/attention_ptx.cuh"

namespace spillway::kernels::cuda {

// Rows of shared memory are swizzled by 16-byte segments so that ldmatrix meets no bank conflict.
template <typename T, int kDim, int kMt>
struct ChunkSums {
  static constexpr int kSegments = kDim / 8;
  static constexpr int kRowBytes = (kSegments + 7) / 8 * 128;
  static constexpr int kHalfBytes = 16 * kRowBytes;  // keys or values of a chunk
  static constexpr int kStageBytes = 2 * kHalfBytes;
  static constexpr int kRows = 16 * kMt;

  uint32_t q[kMt][kDim / 16][4];
  float o[kMt][kDim / 8][4];
  float m[kMt][2], l[kMt][2];
  int limit[kMt][2];  // the last position that the row attends to

  // Where a 16-byte segment of a token lies, from the chunk's first key or value.
  static __device__ __forceinline__ int place_of(int row, int segment) {
    return row * kRowBytes + ((segment ^ (row & 7)) << 4);
  }
  // The row of a thread's fragments.
  static __device__ __forceinline__ int row_of(int tile, int half) {
    return tile * 16 + half * 8 + static_cast<int>(threadIdx.x & 31) / 4;
  }

  __device__ __forceinline__ void begin(int t) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      m[t][half] = -INFINITY;
      l[t][half] = 0.0f;
    }
#pragma unroll
    for (int n = 0; n < kDim / 8; ++n) {
#pragma unroll
      for (int i = 0; i < 4; ++i) o[t][n][i] = 0.0f;
    }
  }

  // Scores of 16 tokens from `token` on, masked; then probabilities in place, the running maximum and sums updated.
  __device__ __forceinline__ void scores(float (&s)[kMt][2][4], uint32_t keys, int token) {
#pragma unroll
    for (int t = 0; t < kMt; ++t) {
#pragma unroll
      for (int i = 0; i < 8; ++i) s[t][i / 4][i % 4] = 0.0f;
    }
    const int lane = static_cast<int>(threadIdx.x & 31), row = (lane & 7) + ((lane >> 4) << 3);
    const uint32_t base = keys + row * kRowBytes;
#pragma unroll
    for (int k = 0; k < kDim / 16; ++k) {
      uint32_t b[4];
      load_matrix4(b, base + (((k * 2 + ((lane >> 3) & 1)) ^ (row & 7)) << 4));
#pragma unroll
      for (int t = 0; t < kMt; ++t) {
        mma16816<T>(s[t][0], q[t][k], b[0], b[1]);
        mma16816<T>(s[t][1], q[t][k], b[2], b[3]);
      }
    }
#pragma unroll
    for (int t = 0; t < kMt; ++t) {
#pragma unroll
      for (int i = 0; i < 8; ++i) {
        const int at = token + (i / 4) * 8 + (lane % 4) * 2 + (i & 1);
        if (at > limit[t][(i & 2) >> 1]) s[t][i / 4][i % 4] = -INFINITY;
      }
    }
  }

  __device__ __forceinline__ void softmax(float (&s)[2][4], int t, float scale_log2e) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float most = fmaxf(fmaxf(s[0][half * 2], s[0][half * 2 + 1]), fmaxf(s[1][half * 2], s[1][half * 2 + 1]));
      most = fmaxf(most, __shfl_xor_sync(0xffffffffu, most, 1));
      most = fmaxf(most, __shfl_xor_sync(0xffffffffu, most, 2));
      most = fmaxf(most, m[t][half]);
      const float at = most == -INFINITY ? 0.0f : most * scale_log2e;
      if (__any_sync(0xffffffffu, most != m[t][half])) {
        const float factor = exp2_fast(m[t][half] * scale_log2e - at);
        l[t][half] *= factor;
#pragma unroll
        for (int n = 0; n < kDim / 8; ++n) {
          o[t][n][half * 2] *= factor;
          o[t][n][half * 2 + 1] *= factor;
        }
        m[t][half] = most;
      }
#pragma unroll
      for (int n = 0; n < 2; ++n) {
#pragma unroll
        for (int i = half * 2; i < half * 2 + 2; ++i) {
          s[n][i] = exp2_fast(s[n][i] * scale_log2e - at);
          l[t][half] += s[n][i];
        }
      }
    }
  }

  __device__ __forceinline__ void chunk(uint32_t stage, int token, float scale_log2e) {
    float s[kMt][2][4];
    uint32_t a[kMt][4];
    scores(s, stage, token);
#pragma unroll
    for (int t = 0; t < kMt; ++t) {
      softmax(s[t], t, scale_log2e);
#pragma unroll
      for (int i = 0; i < 4; ++i) a[t][i] = pack2<T>(s[t][i / 2][(i % 2) * 2], s[t][i / 2][(i % 2) * 2 + 1]);
    }
    const int lane = static_cast<int>(threadIdx.x & 31), row = lane & 15;
    const uint32_t base = stage + kHalfBytes + row * kRowBytes;
#pragma unroll
    for (int n = 0; n < kDim / 16; ++n) {
      uint32_t b[4];
      load_matrix4_transposed(b, base + (((n * 2 + (lane >> 4)) ^ (row & 7)) << 4));
#pragma unroll
      for (int t = 0; t < kMt; ++t) {
        mma16816<T>(o[t][n * 2], a[t], b[0], b[1]);
        mma16816<T>(o[t][n * 2 + 1], a[t], b[2], b[3]);
      }
    }
  }
};

}  // namespace spillway::kernels::cuda
