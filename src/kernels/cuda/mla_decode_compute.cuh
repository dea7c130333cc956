// The warpgroups of mla_decode.cuh that compute; the kernel; the combination of pieces.
#pragma once

#include "kernels/cuda/mla_decode.cuh"

namespace spillway::kernels::cuda {

// Latents past the context may be NaN, which a probability of zero does not remove: zeros instead.
template <typename T, bool kPair>
__device__ __forceinline__ void MlaBlock<T, kPair>::clear_tail(int place, int valid, int barrier) {
  for (int c = 0; c < kChunks; ++c) ptx::barrier_wait(&shared.full[place][c], parity_of(place));
  const int thread = warp * 32 + lane, segments = (kTileTokens - valid) * 8;
  for (int at = thread; at < segments * kChunks; at += 128) {
    char* chunk = shared.tiles[place] + at / segments * kChunkBytes;
    *reinterpret_cast<uint4*>(chunk + valid * 128 + at % segments * 16) = make_uint4(0, 0, 0, 0);
  }
  publish_shared();
  ptx::named_barrier(barrier, 128);
}

// S = Q K^T of this side's tile, chunk by chunk as it arrives.
template <typename T, bool kPair>
template <int kSide>
__device__ __forceinline__ void MlaBlock<T, kPair>::scores(float (&s)[32], int tile) {
  const int token = (piece.tile_begin + tile) * kTileTokens;
  if (context - token < kTileTokens) clear_tail(kSide, context - token, 1 + kSide);
  const uint64_t a = inner_descriptor(ptx::shared_address(shared.queries));
  const uint64_t b = inner_descriptor(ptx::shared_address(shared.tiles[kSide]));
  hold(s);
#pragma unroll
  for (int c = 0; c < kChunks; ++c) {
    ptx::barrier_wait(&shared.full[kSide][c], parity_of(kSide));
    products_begin();
#pragma unroll
    for (int k = 0; k < 4; ++k) {
      const int at = c * (kChunkBytes / 16) + k * 2;
      product_n64<T>(s, a + at, b + at, c > 0 || k > 0);
    }
  }
  products_commit();
  products_wait<0>();
  hold(s);
}

// Probabilities to the tile's rope chunk, and the maximum they are relative to, for the other side.
template <typename T, bool kPair>
__device__ __forceinline__ void MlaBlock<T, kPair>::store_probabilities(const float (&s)[32], int place,
                                                                        const float (&m)[2]) {
  char* chunk = shared.tiles[place] + 8 * kChunkBytes;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int row = row_of(half);
    char* to = chunk + row * 128 + (lane % 4) * 4;
#pragma unroll
    for (int n = 0; n < 8; ++n) {
      *reinterpret_cast<uint32_t*>(to + ((n ^ (row & 7)) << 4)) =
          pack2<T>(s[n * 4 + half * 2], s[n * 4 + half * 2 + 1]);
    }
    if (lane % 4 == 0) shared.maxima[place][row] = m[half];
  }
  publish_shared();
  ptx::barrier_arrive(&shared.probabilities[place]);
}

template <int kCount>
__device__ __forceinline__ void scale_rows(float (&o)[2][kCount], const float (&factor)[2]) {
  if (!__any_sync(0xffffffffu, factor[0] != 1.0f || factor[1] != 1.0f)) return;
#pragma unroll
  for (int i = 0; i < 2 * kCount; ++i) o[i / kCount][i % kCount] *= factor[i / 2 % 2];
}

// O += P V with P of this warpgroup, in registers.
template <typename T>
__device__ __forceinline__ void start_own_outputs(float (&o)[2][64], const uint32_t (&a)[4][4], uint32_t values) {
  const uint64_t b = outer_descriptor(values, kChunkBytes);
  hold(o[0]);
  hold(o[1]);
  products_begin();
#pragma unroll
  for (int k = 0; k < 4; ++k) {
    product_n128_values<T>(o[0], a[k], b + k * 128, 1);
    product_n128_values<T>(o[1], a[k], b + k * 128 + kChunkBytes / 8, 1);
  }
  products_commit();
}
// O += P V with P in shared memory.
template <typename T>
__device__ __forceinline__ void start_other_outputs(float (&o)[2][64], uint32_t probabilities, uint32_t values) {
  const uint64_t a = inner_descriptor(probabilities), b = outer_descriptor(values, kChunkBytes);
  hold(o[0]);
  hold(o[1]);
  products_begin();
#pragma unroll
  for (int k = 0; k < 4; ++k) {
    product_n128_shared<T>(o[0], a + k * 2, b + k * 128, 1);
    product_n128_shared<T>(o[1], a + k * 2, b + k * 128 + kChunkBytes / 8, 1);
  }
  products_commit();
}
__device__ __forceinline__ void finish_outputs(float (&o)[2][64]) {
  products_wait<0>();
  hold(o[0]);
  hold(o[1]);
}

// Scores of 64 tokens from `token` on to probabilities in place; m and l go on, factor is what earlier sums and outputs
// are to be multiplied with.
template <typename T, bool kPair>
__device__ __forceinline__ void MlaBlock<T, kPair>::softmax(float (&s)[32], int token, const int (&limit)[2],
                                                            float (&m)[2], float (&l)[2], float (&factor)[2]) {
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    float most = m[half];
#pragma unroll
    for (int i = 0; i < 16; ++i) {
      float& x = s[i / 2 * 4 + half * 2 + i % 2];
      if (token + i / 2 * 8 + (lane % 4) * 2 + i % 2 > limit[half]) x = -INFINITY;
      most = fmaxf(most, x);
    }
    most = fmaxf(most, __shfl_xor_sync(0xffffffffu, most, 1));
    most = fmaxf(most, __shfl_xor_sync(0xffffffffu, most, 2));
    raise_maximum(most, half, m, l, factor);
    const float base = most == -INFINITY ? 0.0f : most * p.scale_log2e;
#pragma unroll
    for (int i = 0; i < 16; ++i) {
      float& x = s[i / 2 * 4 + half * 2 + i % 2];
      x = exp2_fast(x * p.scale_log2e - base);
      l[half] += x;
    }
  }
}

// One side through its pieces. m: the maximum of all tiles so far; l: this side's tiles' sums relative to it.
template <typename T, bool kPair>
template <int kSide>
__device__ __forceinline__ void MlaBlock<T, kPair>::compute() {
  const uint32_t own = ptx::shared_address(shared.tiles[kSide]), other = ptx::shared_address(shared.tiles[1 - kSide]);
  constexpr uint32_t kHalf = kSide * 4 * kChunkBytes;
  int units = 0;
  float o[2][64], s[32];
  while (next_piece()) {
    float m[2] = {-INFINITY, -INFINITY}, l[2] = {}, factor[2];
    int limit[2];
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int packed = row_block * 64 + row_of(half);
      limit[half] = packed < rows ? p.batch.positions[row_begin + packed / p.heads] : -1;
    }
#pragma unroll
    for (int i = 0; i < 128; ++i) o[i / 64][i % 64] = 0.0f;
    ptx::barrier_wait(&shared.queries_full, units & 1);
    ++units;
    const auto own_tile = [&](int t) {
      scores<kSide>(s, t);
      if (t + 2 >= tiles) ptx::barrier_arrive(&shared.queries_empty);
      softmax(s, (piece.tile_begin + t) * kTileTokens, limit, m, l, factor);
      store_probabilities(s, kSide, m);
      scale_rows(o, factor);
      uint32_t a[4][4];
#pragma unroll
      for (int i = 0; i < 16; ++i) a[i / 4][i % 4] = pack2<T>(s[i * 2], s[i * 2 + 1]);
      start_own_outputs<T>(o, a, own + kHalf);
      finish_outputs(o);
      release(kSide, kSide);
    };
    const auto other_tile = [&] {
      for (int c = kSide * 4; c < kSide * 4 + 4; ++c) {
        ptx::barrier_wait(&shared.full[1 - kSide][c], parity_of(1 - kSide));
      }
      ptx::barrier_wait(&shared.probabilities[1 - kSide], parity_of(1 - kSide));
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        raise_maximum(shared.maxima[1 - kSide][row_of(half)], half, m, l, factor);
      }
      scale_rows(o, factor);
      start_other_outputs<T>(o, other + 8 * kChunkBytes, other + kHalf);
      finish_outputs(o);
      release(1 - kSide, kSide);
      if (kSide == 0) release(1, 1);
    };
    for (int t = 0; t < tiles; t += 2) {
      const bool has_odd = t + 1 < tiles;
      if constexpr (kSide == 0) {
        own_tile(t);
        ++even_uses;
        if (has_odd) {
          other_tile();
          ++odd_uses;
        }
      } else {
        other_tile();
        ++even_uses;
        if (has_odd) {
          own_tile(t + 1);
          ++odd_uses;
        }
      }
    }
    if (kSide == 1 && tiles == 1) ptx::barrier_arrive(&shared.queries_empty);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      l[half] += __shfl_xor_sync(0xffffffffu, l[half], 1);
      l[half] += __shfl_xor_sync(0xffffffffu, l[half], 2);
      if (lane % 4 == 0) shared.totals[kSide][row_of(half)] = l[half];
    }
    ptx::barrier_arrive(&shared.met);
    ptx::barrier_wait(&shared.met, 0);
    const float total[2] = {l[0] + shared.totals[1 - kSide][row_of(0)], l[1] + shared.totals[1 - kSide][row_of(1)]};
    write(o, kSide, m, total);
    ptx::barrier_arrive(&shared.met);  // the totals have been read
    ptx::barrier_wait(&shared.met, 1);
  }
}

template <typename T, bool kPair>
__global__ void __launch_bounds__(384, 1)
    mla_decode_kernel(const __grid_constant__ MlaParams p, const __grid_constant__ CUtensorMap queries,
                      const __grid_constant__ CUtensorMap pages) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  extern __shared__ char mla_raw[];
  MlaShared& shared = *reinterpret_cast<MlaShared*>(mla_raw + ((1024 - (ptx::shared_address(mla_raw) & 1023)) & 1023));
  const int group = static_cast<int>(threadIdx.x >> 7);
  if (threadIdx.x == 0) {
    for (int stage = 0; stage < 2; ++stage) {
      for (int c = 0; c < kChunks; ++c) ptx::barrier_init(&shared.full[stage][c], 1);
      constexpr int kBlocks = kPair ? 2 : 1;
      for (int half = 0; half < 2; ++half) {
        // Of an odd tile's right half both sides are readers: the left one of its rope chunk.
        ptx::barrier_init(&shared.empty[stage][half], (stage == 1 && half == 1 ? 8 : 4) * kBlocks);
      }
      ptx::barrier_init(&shared.probabilities[stage], 128);
    }
    ptx::barrier_init(&shared.queries_full, 1);
    ptx::barrier_init(&shared.queries_empty, 256);
    ptx::barrier_init(&shared.met, 256);
    ptx::barrier_init_fence();
    publish_shared();
  }
  prefetch_page_table(p.batch);
  const bool whole = plan_work(p.batch, p.shape, shared.prefix, shared.scratch);
  if constexpr (kPair) ptx::cluster_sync();
  MlaBlock<T, kPair> block(p, shared, whole);
  if (group == 0) {
    ptx::fewer_registers<40>();
    wait_for_previous_kernel();  // all else follows from what is loaded
    let_next_kernel_start();
    if (blockIdx.x == 0 && threadIdx.x == 0) *p.whole = whole ? 1 : 0;
    if (threadIdx.x == 0) block.load(&queries, &pages);
  } else {
    ptx::more_registers<232>();
    if (group == 1) {
      block.template compute<0>();
    } else {
      block.template compute<1>();
    }
  }
  if constexpr (kPair) {
    // The other block may still write to this one's memory.
    __syncwarp();
    ptx::cluster_sync();
  }
#endif
}

// A part of one row of a unit of several pieces, added in order: a warp.
template <typename T, int kParts>
__device__ __forceinline__ void combine_row(const MlaParams& p, WorkCursor& cursor, int sequence, int row_block,
                                            int row, int part) {
  constexpr int kQuads = 4 / kParts;  // of 4 values a lane
  const int lane = threadIdx.x & 31, packed = row_block * 64 + row, first = p.batch.row_begin[sequence];
  if (packed >= (p.batch.row_begin[sequence + 1] - first) * p.heads) return;
  const Piece piece = cursor.first_piece(sequence, row_block / p.ranks);
  if (piece.pieces == 1) return;
  const int rank = row_block % p.ranks;
  const auto at = [&](int i) { return (static_cast<int64_t>(cursor.slot_of(piece, i)) * p.ranks + rank) * 64 + row; };
  float most = -INFINITY, sum = 0.0f;
  for (int i = lane; i < piece.pieces; i += 32) most = fmaxf(most, p.sums[at(i)].x);
  for (int step = 16; step > 0; step /= 2) most = fmaxf(most, __shfl_xor_sync(0xffffffffu, most, step));
  float4 acc[kQuads] = {};
  for (int base = 0; base < piece.pieces; base += 32) {
    const float2 mine = base + lane < piece.pieces ? p.sums[at(base + lane)] : make_float2(-INFINITY, 0.0f);
    const float my_weight = exp2_fast((mine.x - most) * p.scale_log2e);
    const int count = min(32, piece.pieces - base);
#pragma unroll(6 * kParts > 16 ? 16 : 6 * kParts)
    for (int i = 0; i < count; ++i) {
      const float weight = __shfl_sync(0xffffffffu, my_weight, i);
      sum += weight * __shfl_sync(0xffffffffu, mine.y, i);
      const float4* from =
          reinterpret_cast<const float4*>(p.partials + at(base + i) * kLatent) + part * kQuads * 32 + lane;
#pragma unroll
      for (int j = 0; j < kQuads; ++j) {
        const float4 v = from[j * 32];
        acc[j].x += weight * v.x;
        acc[j].y += weight * v.y;
        acc[j].z += weight * v.z;
        acc[j].w += weight * v.w;
      }
    }
  }
  const float inverse = 1.0f / sum;
  uint2* to = reinterpret_cast<uint2*>(
                  p.out + ((first + packed / p.heads) * p.out_stride + int64_t{packed % p.heads} * kLatent) * 2) +
              part * kQuads * 32 + lane;
#pragma unroll
  for (int j = 0; j < kQuads; ++j) {
    to[j * 32] =
        make_uint2(pack2<T>(acc[j].x * inverse, acc[j].y * inverse), pack2<T>(acc[j].z * inverse, acc[j].w * inverse));
  }
}

// Items: an eighth of a row block each, of all sequences' row blocks; in kParts parts of the columns, so that few rows
// of many pieces occupy more than a few multiprocessors.
template <typename T, int kParts>
__global__ void __launch_bounds__(256) mla_combine_kernel(const __grid_constant__ MlaParams p, int row_blocks) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  extern __shared__ int combine_shared[];
  wait_for_previous_kernel();
  if (__ldcg(p.whole) != 0) return;
  plan_work(p.batch, p.shape, combine_shared + 40, combine_shared);
  WorkCursor cursor;
  cursor.start(combine_shared + 40, p.shape, p.batch.sequences, 0, false);
  const int items = p.batch.sequences * row_blocks * 8 * kParts, warp = static_cast<int>(threadIdx.x >> 5);
  for (int item = static_cast<int>(blockIdx.x); item < items; item += static_cast<int>(gridDim.x)) {
    const int eighth = item / kParts;
    combine_row<T, kParts>(p, cursor, eighth / 8 / row_blocks, eighth / 8 % row_blocks, eighth % 8 * 8 + warp,
                           item % kParts);
  }
#endif
}

}  // namespace spillway::kernels::cuda
