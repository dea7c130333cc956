// The warpgroups of mla_decode.cuh that compute; the kernel; the combination of pieces.
#pragma once

#include "kernels/cuda/gemm_tile_stage.cuh"
#include "kernels/cuda/mla_decode.cuh"

namespace spillway::kernels::cuda {

// Named barriers of both sides; 1 and 2 are clear_tail's.
constexpr int kTurns = 3;
// Of a row's scores over the maximum they are relative to, in powers of two.
constexpr float kGrowth = 8.0f;

// The sides take turns in starting products.
template <int kSide>
__device__ __forceinline__ void take_turn() {
  ptx::named_barrier(kTurns + kSide, 256);
}
template <int kSide>
__device__ __forceinline__ void pass_turn() {
  ptx::named_arrive(kTurns + 1 - kSide, 256);
}

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
  pass_turn<kSide>();
  products_wait<0>();
  hold(s);
}

// Probabilities to the tile's rope chunk, for the other side: each warp its 16 rows, eight tokens a matrix.
template <typename T, bool kPair>
__device__ __forceinline__ void MlaBlock<T, kPair>::store_probabilities(const uint32_t (&a)[4][4], int place) {
  const int row = warp * 16 + lane % 16;
  const uint32_t to = ptx::shared_address(shared.tiles[place] + 8 * kChunkBytes + row * 128);
#pragma unroll
  for (int k = 0; k < 4; ++k) {
    ptx::store_matrix4(to + static_cast<uint32_t>(((2 * k + lane / 16) ^ (row & 7)) << 4), a[k]);
  }
  publish_shared();
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
  for (int k = 0; k < 4; ++k) product_n256_values<T>(o, a[k], b + k * 128);
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
  for (int k = 0; k < 4; ++k) product_n256_shared<T>(o, a + k * 2, b + k * 128);
  products_commit();
}
__device__ __forceinline__ void finish_outputs(float (&o)[2][64]) {
  products_wait<0>();
  hold(o[0]);
  hold(o[1]);
}

// Of 64 tokens from `token` on: the largest score of each of this thread's rows, those past its limit left out.
template <typename T, bool kPair>
__device__ __forceinline__ void MlaBlock<T, kPair>::row_maxima(float (&s)[32], int token, const int (&limit)[2],
                                                               float (&most)[2]) const {
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    if (!__any_sync(0xffffffffu, token + kTileTokens - 1 > limit[half])) continue;
#pragma unroll
    for (int i = 0; i < 16; ++i) {
      if (token + i / 2 * 8 + (lane % 4) * 2 + i % 2 > limit[half]) s[i / 2 * 4 + half * 2 + i % 2] = -INFINITY;
    }
  }
  float part[2][2];
#pragma unroll
  for (int i = 0; i < 4; ++i) part[i / 2 % 2][i % 2] = s[i];
#pragma unroll
  for (int i = 4; i < 32; ++i) part[i / 2 % 2][i % 2] = fmaxf(part[i / 2 % 2][i % 2], s[i]);
#pragma unroll
  for (int half = 0; half < 2; ++half) most[half] = fmaxf(part[half][0], part[half][1]);
#pragma unroll
  for (int step = 1; step < 4; step *= 2) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      most[half] = fmaxf(most[half], __shfl_xor_sync(0xffffffffu, most[half], step));
    }
  }
}

// Scores to probabilities, packed as a product's operand and put into the tile's rope chunk for the other side with the
// maximum that they are relative to; their sums are added to l. That maximum is raised, and factor less than one, only
// where a row has outgrown it by kGrowth: what it is relative to does not matter, and to rescale outputs costs more.
template <typename T, bool kPair>
__device__ __forceinline__ void MlaBlock<T, kPair>::own_probabilities(float (&s)[32], float (&most)[2], int place,
                                                                      float (&m)[2], float (&l)[2], float (&factor)[2],
                                                                      uint32_t (&a)[4][4]) {
  float base[2], part[2][2] = {};
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    if (!((most[half] - m[half]) * p.scale_log2e > kGrowth)) most[half] = m[half];
    raise_maximum(most[half], half, m, l, factor);
    base[half] = m[half] == -INFINITY ? 0.0f : m[half] * p.scale_log2e;
    if (lane % 4 == 0) shared.maxima[place][row_of(half)] = m[half];
  }
#pragma unroll
  for (int i = 0; i < 32; ++i) {
    s[i] = exp2_fast(s[i] * p.scale_log2e - base[i / 2 % 2]);
    part[i / 2 % 2][i % 2] += s[i];
  }
#pragma unroll
  for (int i = 0; i < 16; ++i) a[i / 4][i % 4] = pack2<T>(s[i * 2], s[i * 2 + 1]);
  store_probabilities(a, place);
#pragma unroll
  for (int half = 0; half < 2; ++half) l[half] += part[half][0] + part[half][1];
}

// One side through its pieces. m: the maximum of all tiles so far; l: this side's tiles' sums relative to it.
template <typename T, bool kPair>
template <int kSide>
__device__ __forceinline__ void MlaBlock<T, kPair>::compute() {
  const uint32_t own = ptx::shared_address(shared.tiles[kSide]), other = ptx::shared_address(shared.tiles[1 - kSide]);
  constexpr uint32_t kHalf = kSide * 4 * kChunkBytes;
  int units = 0;
  float o[2][64], s[32];
  if (kSide == 1) pass_turn<kSide>();
  while (next_piece()) {
    float m[2] = {-INFINITY, -INFINITY}, l[2] = {};
    uint32_t a[4][4];
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
    const auto own_scores = [&](int t) {
      take_turn<kSide>();
      scores<kSide>(s, t);
      if (t + 2 >= tiles) ptx::barrier_arrive(&shared.queries_empty);
    };
    const auto own_outputs = [&](const float(&by)[2]) {
      scale_rows(o, by);
      take_turn<kSide>();
      start_own_outputs<T>(o, a, own + kHalf);
      pass_turn<kSide>();
      finish_outputs(o);
      release(kSide, kSide);
    };
    const auto start_other = [&] {
      // Its values have arrived as well: the other side has waited for all chunks of its tile.
      ptx::barrier_wait(&shared.ready[1 - kSide], parity_of(1 - kSide));
      float by[2];
      for (int half = 0; half < 2; ++half) raise_maximum(shared.maxima[1 - kSide][row_of(half)], half, m, l, by);
      scale_rows(o, by);
      take_turn<kSide>();
      start_other_outputs<T>(o, other + 8 * kChunkBytes, other + kHalf);
      pass_turn<kSide>();
    };
    const auto finish_other = [&] {
      finish_outputs(o);
      release(1 - kSide, kSide);
      if (kSide == 0) release(1, 1);
    };
    for (int t = 0; t < tiles; t += 2) {
      const int token = (piece.tile_begin + t) * kTileTokens;
      const bool has_odd = t + 1 < tiles;
      float most[2], factor[2];
      if constexpr (kSide == 0) {
        own_scores(t);
        row_maxima(s, token, limit, most);
        own_probabilities(s, most, 0, m, l, factor, a);
        ptx::barrier_arrive(&shared.ready[0]);
        own_outputs(factor);
        if (has_odd) {
          start_other();
          finish_other();
        }
      } else {
        if (has_odd) {
          own_scores(t + 1);
          row_maxima(s, token + kTileTokens, limit, most);
        } else {
          take_turn<kSide>();
          pass_turn<kSide>();
        }
        start_other();
        if (has_odd) {
          own_probabilities(s, most, 1, m, l, factor, a);
          ptx::barrier_arrive(&shared.ready[1]);
        }
        finish_other();
        if (has_odd) own_outputs(factor);
      }
      ++even_uses;
      if (has_odd) ++odd_uses;
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
    }
    ptx::barrier_init(&shared.queries_full, 1);
    ptx::barrier_init(&shared.queries_empty, 256);
    ptx::barrier_init(&shared.met, 256);
    // Of every thread: racecheck does not follow bar.arrive (NOTES-attention.md).
    for (int place = 0; place < 2; ++place) ptx::barrier_init(&shared.ready[place], 128);
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
