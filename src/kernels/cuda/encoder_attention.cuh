// Attention over packed sequences in bf16 or f16, on mma.sync (sm_80 and later). A block takes kQueries of a tile of
// one head; the heads of a tile run side by side, so that whole rows are read at a time: its warps keep 16 rows each
// (kTiles times), the keys and values of the sequence pass through shared memory 64 rows at a time, two stages deep.
// Rows in shared memory are kDim elements, 16-byte chunks swizzled so that eight rows of a chunk lie in eight different
// banks.
#pragma once

#include "kernels/cuda/encoder_rows.cuh"
#include "kernels/device_encoder.h"

namespace spillway::kernels::cuda::sequence {

constexpr int kWarps = 4;
constexpr int kThreads = 32 * kWarps;
constexpr int kKeys = 64;  // a stage
constexpr int kQueries = 16 * kWarps;
constexpr int kParts = kAttentionTile / kQueries;  // blocks of a tile

struct Arguments {
  const void *q, *k, *v;
  const AttentionTile* tiles;
  int64_t stride;  // of rows
  int heads, dim, window;
  float scale_log2;  // of scores, times log2(e)
  void* y;
  const float* y_scale;  // of e4m3
  int tile_count;
};

// Byte offset of a chunk of 8 elements in a row.
template <int kDim>
__device__ __forceinline__ uint32_t place(int row, int chunk) {
  constexpr int kChunks = kDim / 8;
  const int swizzled = kChunks >= 8   ? chunk ^ (row & 7)
                       : kChunks == 4 ? chunk ^ ((row >> 1) & 3)
                                      : chunk ^ ((row >> 2) & 1);
  return uint32_t(row * kDim * 2 + swizzled * 16);
}

__device__ __forceinline__ void copy_16(uint32_t to, const void* from, bool valid) {
#if __CUDA_ARCH__ >= 800
  const int bytes = valid ? 16 : 0;
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(bytes) : "memory");
#endif
}
__device__ __forceinline__ void commit_copies() {
#if __CUDA_ARCH__ >= 800
  asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}
template <int kLeft>
__device__ __forceinline__ void wait_copies() {
#if __CUDA_ARCH__ >= 800
  asm volatile("cp.async.wait_group %0;" ::"n"(kLeft) : "memory");
#endif
}

__device__ __forceinline__ void load_matrices(uint32_t (&r)[4], uint32_t from) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(from)
               : "memory");
}
__device__ __forceinline__ void load_matrices_turned(uint32_t (&r)[4], uint32_t from) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(from)
               : "memory");
}

template <class T>
__device__ __forceinline__ void multiply(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
#if __CUDA_ARCH__ >= 800
  if constexpr (std::is_same_v<T, __half>) {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
  } else {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
  }
#endif
}

template <class T>
__device__ __forceinline__ uint32_t pack_pair(float low, float high) {
  if constexpr (std::is_same_v<T, __half>) {
    const __half2 pair = __floats2half2_rn(low, high);
    return *reinterpret_cast<const uint32_t*>(&pair);
  } else {
    return pack_bf16(low, high);
  }
}

// kRows rows of one head from global row `first`; those from `end` on and elements past dim are zeros. kAligned: rows
// and heads begin at multiples of 16 bytes.
template <class T, int kDim, int kRows, bool kAligned, int kLoaders = kThreads>
__device__ __forceinline__ void load_rows(const T* base, int64_t stride, int first, int end, int dim, uint32_t to,
                                          char* shared) {
  constexpr int kChunks = kDim / 8;
  static_assert(kRows * kChunks % kLoaders == 0,
                "a count of copies known to the compiler: else each costs a loop's branches");
#pragma unroll
  for (int j = 0; j < kRows * kChunks / kLoaders; ++j) {
    const int i = int(threadIdx.x) + j * kLoaders, row = i / kChunks, chunk = i % kChunks;
    const bool valid = first + row < end && chunk * 8 < dim;
    const T* from = base + int64_t(valid ? first + row : first) * stride + (valid ? chunk * 8 : 0);
    if constexpr (kAligned) {
      copy_16(to + place<kDim>(row, chunk), from, valid);
    } else {
      T* values = reinterpret_cast<T*>(shared + place<kDim>(row, chunk));
      for (int j = 0; j < 8; ++j) values[j] = valid && chunk * 8 + j < dim ? from[j] : from_float<T>(0.0f);
    }
  }
}

template <class T, int kDim, int kTiles>
struct Rows {
  static constexpr int kPairs = kDim / 8;
  uint32_t q[kTiles][kDim / 16][4];
  float o[kTiles][kPairs][4];
  float largest[kTiles][2], total[kTiles][2];
};

// Scores of one stage: s = q k^T.
template <class T, int kDim, int kTiles>
__device__ __forceinline__ void score(const Rows<T, kDim, kTiles>& rows, uint32_t keys, float (&s)[kTiles][8][4]) {
  const int lane = int(threadIdx.x % 32);
#pragma unroll
  for (int t = 0; t < kTiles; ++t) {
#pragma unroll
    for (int n = 0; n < 8; ++n) s[t][n][0] = s[t][n][1] = s[t][n][2] = s[t][n][3] = 0;
  }
#pragma unroll
  for (int k = 0; k < kDim / 16; ++k) {
#pragma unroll
    for (int n = 0; n < 4; ++n) {  // 16 keys
      uint32_t b[4];
      load_matrices(b, keys + place<kDim>(n * 16 + (lane & 7) + ((lane >> 4) << 3), k * 2 + ((lane >> 3) & 1)));
#pragma unroll
      for (int t = 0; t < kTiles; ++t) {
        multiply<T>(s[t][2 * n], rows.q[t][k], b[0], b[1]);
        multiply<T>(s[t][2 * n + 1], rows.q[t][k], b[2], b[3]);
      }
    }
  }
}

__device__ __forceinline__ float power_of_two(float x) {
  float y;  // exp2f also serves results below 2^-126: three instructions more
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

// Leaves weights 2^(s - largest) in s, and what came before scaled to the new largest.
template <class T, int kDim, int kTiles>
__device__ __forceinline__ void soften(Rows<T, kDim, kTiles>& rows, float (&s)[kTiles][8][4], float scale) {
#pragma unroll
  for (int t = 0; t < kTiles; ++t) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float largest = rows.largest[t][half];
#pragma unroll
      for (int n = 0; n < 8; ++n) largest = fmaxf(largest, fmaxf(s[t][n][2 * half], s[t][n][2 * half + 1]));
      largest = fmaxf(largest, __shfl_xor_sync(0xffffffffu, largest, 1));
      largest = fmaxf(largest, __shfl_xor_sync(0xffffffffu, largest, 2));
      const float offset = largest == -INFINITY ? 0.0f : largest * scale;
      const float keep = power_of_two(rows.largest[t][half] * scale - offset);  // 0 at first
      rows.largest[t][half] = largest;
      float total = rows.total[t][half] * keep;
#pragma unroll
      for (int n = 0; n < 8; ++n) {
#pragma unroll
        for (int i = 2 * half; i < 2 * half + 2; ++i) {
          s[t][n][i] = power_of_two(s[t][n][i] * scale - offset);
          total += s[t][n][i];
        }
      }
      rows.total[t][half] = total;
#pragma unroll
      for (int d = 0; d < kDim / 8; ++d) {
        rows.o[t][d][2 * half] *= keep;
        rows.o[t][d][2 * half + 1] *= keep;
      }
    }
  }
}

// o += weights values.
template <class T, int kDim, int kTiles>
__device__ __forceinline__ void weigh(Rows<T, kDim, kTiles>& rows, const float (&s)[kTiles][8][4], uint32_t values) {
  const int lane = int(threadIdx.x % 32);
#pragma unroll
  for (int k = 0; k < kKeys / 16; ++k) {
    uint32_t a[kTiles][4];
#pragma unroll
    for (int t = 0; t < kTiles; ++t) {
      a[t][0] = pack_pair<T>(s[t][2 * k][0], s[t][2 * k][1]);
      a[t][1] = pack_pair<T>(s[t][2 * k][2], s[t][2 * k][3]);
      a[t][2] = pack_pair<T>(s[t][2 * k + 1][0], s[t][2 * k + 1][1]);
      a[t][3] = pack_pair<T>(s[t][2 * k + 1][2], s[t][2 * k + 1][3]);
    }
#pragma unroll
    for (int d = 0; d < kDim / 16; ++d) {
      uint32_t b[4];
      load_matrices_turned(b, values + place<kDim>(k * 16 + (lane & 15), d * 2 + (lane >> 4)));
#pragma unroll
      for (int t = 0; t < kTiles; ++t) {
        multiply<T>(rows.o[t][2 * d], a[t], b[0], b[1]);
        multiply<T>(rows.o[t][2 * d + 1], a[t], b[2], b[3]);
      }
    }
  }
}

// Scores outside of the sequence or the window become -infinity.
template <int kTiles>
__device__ __forceinline__ void mask(float (&s)[kTiles][8][4], int first_row, int first_key, int end, int window) {
  const int lane = int(threadIdx.x % 32);
#pragma unroll
  for (int t = 0; t < kTiles; ++t) {
#pragma unroll
    for (int n = 0; n < 8; ++n) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int row = first_row + t * 16 + lane / 4 + (i >= 2 ? 8 : 0),
                  key = first_key + n * 8 + lane % 4 * 2 + i % 2;
        if (key >= end || (window > 0 && abs(row - key) > window)) s[t][n][i] = -INFINITY;
      }
    }
  }
}

// Outputs of a warp's 16 rows from first_row, divided by their totals.
template <class T, int kDim>
__device__ __forceinline__ void store_rows(const Arguments& a, const Rows<T, kDim, 1>& rows, int first_row,
                                           int rows_end, int head) {
  const int lane = int(threadIdx.x % 32);
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    float total = rows.total[0][half];
    total += __shfl_xor_sync(0xffffffffu, total, 1);
    total += __shfl_xor_sync(0xffffffffu, total, 2);
    const float inverse = 1.0f / total;
    const int row = first_row + lane / 4 + half * 8;
    if (row >= rows_end) continue;
    const int64_t at = int64_t(row) * a.heads * a.dim + head * a.dim;
#pragma unroll
    for (int d = 0; d < kDim / 8; ++d) {
      const int column = d * 8 + lane % 4 * 2;
      if (column >= a.dim) continue;  // dim is even
      const float x = rows.o[0][d][2 * half] * inverse, z = rows.o[0][d][2 * half + 1] * inverse;
      if (a.y_scale != nullptr) {
        *reinterpret_cast<__nv_fp8x2_storage_t*>(static_cast<uint8_t*>(a.y) + at + column) =
            __nv_cvt_float2_to_fp8x2({x * *a.y_scale, z * *a.y_scale}, __NV_SATFINITE, __NV_E4M3);
      } else {
        *reinterpret_cast<uint32_t*>(static_cast<T*>(a.y) + at + column) = pack_pair<T>(x, z);
      }
    }
  }
}

template <class T, int kDim, bool kAligned>
__global__ void __launch_bounds__(kThreads) attend_sequences(Arguments a) {
#if __CUDA_ARCH__ >= 800
  constexpr int kTiles = 1;
  constexpr uint32_t kStage = kKeys * kDim * 2;
  extern __shared__ __align__(128) char shared[];
  take_turn();
  AttentionTile tile = a.tiles[blockIdx.y / kParts];
  tile.row += int(blockIdx.y % kParts) * kQueries;
  if (tile.row >= tile.end) return;
  const int head = int(blockIdx.x), warp = int(threadIdx.x / 32), lane = int(threadIdx.x % 32);
  const int rows_end = min(tile.row + kQueries, tile.end);
  const int begin = a.window > 0 ? max(tile.begin, tile.row - a.window) : tile.begin;
  const int end = a.window > 0 ? min(tile.end, rows_end + a.window) : tile.end;
  const T* q = static_cast<const T*>(a.q) + head * a.dim;
  const T* k = static_cast<const T*>(a.k) + head * a.dim;
  const T* v = static_cast<const T*>(a.v) + head * a.dim;
  const auto base = uint32_t(__cvta_generic_to_shared(shared));
  const uint32_t queries = base, keys = base + kStage, values = keys + 2 * kStage;
  const auto load_stage = [&](int stage, int first) {
    load_rows<T, kDim, kKeys, kAligned>(k, a.stride, first, end, a.dim, keys + stage * kStage,
                                        shared + (1 + stage) * kStage);
    load_rows<T, kDim, kKeys, kAligned>(v, a.stride, first, end, a.dim, values + stage * kStage,
                                        shared + (3 + stage) * kStage);
  };
  load_rows<T, kDim, kQueries, kAligned>(q, a.stride, tile.row, rows_end, a.dim, queries, shared);
  load_stage(0, begin);
  commit_copies();
  Rows<T, kDim, kTiles> rows;
  rows.largest[0][0] = rows.largest[0][1] = -INFINITY;
  rows.total[0][0] = rows.total[0][1] = 0;
#pragma unroll
  for (int d = 0; d < kDim / 8; ++d) rows.o[0][d][0] = rows.o[0][d][1] = rows.o[0][d][2] = rows.o[0][d][3] = 0;
  const int first_row = tile.row + warp * 16;
  const bool works = first_row < rows_end;  // else it only loads
  int stage = 0;
  for (int key = begin; key < end; key += kKeys, stage ^= 1) {
    if (key + kKeys < end) load_stage(stage ^ 1, key + kKeys);
    commit_copies();
    wait_copies<1>();
    __syncthreads();
    if (works) {
      if (key == begin) {
#pragma unroll
        for (int c = 0; c < kDim / 16; ++c)
          load_matrices(rows.q[0][c], queries + place<kDim>(warp * 16 + (lane & 15), c * 2 + (lane >> 4)));
      }
      float s[kTiles][8][4];
      score(rows, keys + stage * kStage, s);
      if (key + kKeys > end || a.window > 0) mask<kTiles>(s, first_row, key, end, a.window);
      soften(rows, s, a.scale_log2);
      weigh(rows, s, values + stage * kStage);
    }
    __syncthreads();
  }
  if (!works) return;
  store_rows<T, kDim>(a, rows, first_row, rows_end, head);
#endif
}

}  // namespace spillway::kernels::cuda::sequence
