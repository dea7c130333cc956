// Attention over packed sequences in bf16 or f16 on warpgroup products (sm_90a), heads of up to 64 elements. A block
// takes one tile of 128 queries of one head, a warpgroup half of it; keys and values pass through shared memory 64 rows
// at a time, two stages deep, by cp.async into the layout that products read: rows of 128 bytes, swizzled. Softmax and
// stores are those of encoder_attention.cuh, whose registers lie alike.
#pragma once

#include "kernels/cuda/attention_wgmma.cuh"
#include "kernels/cuda/encoder_attention.cuh"

namespace spillway::kernels::cuda::sequence {

constexpr int kWideDim = 64;
constexpr int kWideThreads = 256;
constexpr uint32_t kWideStage = kKeys * kWideDim * 2;  // of keys, or of values
constexpr uint32_t kWideQueries = kAttentionTile * kWideDim * 2;
constexpr size_t kWideShared = 1024 + kWideQueries + 4 * kWideStage;
static_assert(kAttentionTile == 2 * 64, "a warpgroup has 64 rows");

template <class T>
__device__ __forceinline__ void score_wide(float (&s)[1][8][4], uint32_t queries, uint32_t keys) {
  auto& sums = reinterpret_cast<float(&)[32]>(s);
  products_begin();
#pragma unroll
  for (int k = 0; k < kWideDim / 16; ++k)
    product_n64<T>(sums, inner_descriptor(queries) + uint64_t(2 * k), inner_descriptor(keys) + uint64_t(2 * k), k > 0);
  products_commit();
  products_wait<0>();
  hold(sums);
}

template <class T>
__device__ __forceinline__ void weigh_wide(Rows<T, kWideDim, 1>& rows, const float (&s)[1][8][4], uint32_t values) {
  auto& sums = reinterpret_cast<float(&)[32]>(rows.o);
  uint32_t a[kKeys / 16][4];
#pragma unroll
  for (int k = 0; k < kKeys / 16; ++k) {
    a[k][0] = pack_pair<T>(s[0][2 * k][0], s[0][2 * k][1]);
    a[k][1] = pack_pair<T>(s[0][2 * k][2], s[0][2 * k][3]);
    a[k][2] = pack_pair<T>(s[0][2 * k + 1][0], s[0][2 * k + 1][1]);
    a[k][3] = pack_pair<T>(s[0][2 * k + 1][2], s[0][2 * k + 1][3]);
  }
  hold(sums);
  products_begin();
#pragma unroll
  for (int k = 0; k < kKeys / 16; ++k)
    product_n64_values<T>(sums, a[k], outer_descriptor(values, kWideStage) + uint64_t(128 * k), 1);
  products_commit();
  products_wait<0>();
  hold(sums);
}

template <class T>
__global__ void __launch_bounds__(kWideThreads, 2) attend_wide(Arguments a) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  extern __shared__ char shared[];
  take_turn();
  const AttentionTile tile = a.tiles[blockIdx.y];
  if (tile.row >= tile.end) return;
  const int head = int(blockIdx.x), group = int(threadIdx.x / 128);
  const int rows_end = min(tile.row + kAttentionTile, tile.end);
  const int begin = a.window > 0 ? max(tile.begin, tile.row - a.window) : tile.begin;
  const int end = a.window > 0 ? min(tile.end, rows_end + a.window) : tile.end;
  const T* q = static_cast<const T*>(a.q) + head * a.dim;
  const T* k = static_cast<const T*>(a.k) + head * a.dim;
  const T* v = static_cast<const T*>(a.v) + head * a.dim;
  const uint32_t base = (uint32_t(__cvta_generic_to_shared(shared)) + 1023) & ~1023u;
  const uint32_t keys = base + kWideQueries, values = keys + 2 * kWideStage;
  const auto load_stage = [&](uint32_t stage, int first) {
    load_rows<T, kWideDim, kKeys, true, kWideThreads>(k, a.stride, first, end, a.dim, keys + stage * kWideStage,
                                                      nullptr);
    load_rows<T, kWideDim, kKeys, true, kWideThreads>(v, a.stride, first, end, a.dim, values + stage * kWideStage,
                                                      nullptr);
  };
  load_rows<T, kWideDim, kAttentionTile, true, kWideThreads>(q, a.stride, tile.row, rows_end, a.dim, base, nullptr);
  load_stage(0, begin);
  commit_copies();
  Rows<T, kWideDim, 1> rows;
  rows.largest[0][0] = rows.largest[0][1] = -INFINITY;
  rows.total[0][0] = rows.total[0][1] = 0;
#pragma unroll
  for (int d = 0; d < kWideDim / 8; ++d) rows.o[0][d][0] = rows.o[0][d][1] = rows.o[0][d][2] = rows.o[0][d][3] = 0;
  const bool works = tile.row + group * 64 < rows_end;  // else this warpgroup only loads
  const int first_row = tile.row + int(threadIdx.x / 32) * 16;
  uint32_t stage = 0;
  for (int key = begin; key < end; key += kKeys, stage ^= 1) {
    // The fence waits for copies under way too, so the next ones are asked for behind it, where all are done with the
    // stage that they fill.
    wait_copies<0>();
    publish_shared();
    __syncthreads();
    if (key + kKeys < end) load_stage(stage ^ 1, key + kKeys);
    commit_copies();
    if (works) {
      float s[1][8][4];
      score_wide<T>(s, base + uint32_t(group) * 64 * kWideDim * 2, keys + stage * kWideStage);
      if (key + kKeys > end || a.window > 0) mask<1>(s, first_row, key, end, a.window);
      soften(rows, s, a.scale_log2);
      weigh_wide(rows, s, values + stage * kWideStage);
    }
  }
  if (works) store_rows<T, kWideDim>(a, rows, first_row, rows_end, head);
#endif
}

}  // namespace spillway::kernels::cuda::sequence
