// The warpgroup of mla_decode.cuh that computes scores and probabilities; the kernel; the combination of pieces.
#pragma once

#include "kernels/cuda/mla_decode.cuh"

namespace spillway::kernels::cuda {

// Latents past the context may be NaN, which a probability of zero does not remove: zeros instead.
template <typename T, bool kPair>
__device__ __forceinline__ void MlaBlock<T, kPair>::clear_tail(int valid) {
  for (int c = 0; c < kChunks; ++c) ptx::barrier_wait(&shared.full[stage()][c], parity());
  const int thread = warp * 32 + lane, segments = (kTileTokens - valid) * 8;
  for (int at = thread; at < segments * kChunks; at += 128) {
    char* chunk = shared.tiles[stage()] + at / segments * kChunkBytes;
    *reinterpret_cast<uint4*>(chunk + valid * 128 + at % segments * 16) = make_uint4(0, 0, 0, 0);
  }
  publish_shared();
  ptx::named_barrier(1, 128);
}

template <typename T, bool kPair>
__device__ __forceinline__ void MlaBlock<T, kPair>::softmax(float (&s)[32], float (&m)[2], float (&l)[2],
                                                            const int (&limit)[2], int token, bool last) {
#pragma unroll
  for (int i = 0; i < 32; ++i) {
    if (token + i / 4 * 8 + (lane % 4) * 2 + i % 2 > limit[i / 2 % 2]) s[i] = -INFINITY;
  }
  char* chunk = shared.tiles[stage()] + 8 * kChunkBytes;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    float most = m[half];
#pragma unroll
    for (int i = 0; i < 16; ++i) most = fmaxf(most, s[i / 2 * 4 + half * 2 + i % 2]);
    most = fmaxf(most, __shfl_xor_sync(0xffffffffu, most, 1));
    most = fmaxf(most, __shfl_xor_sync(0xffffffffu, most, 2));
    const float at = most == -INFINITY ? 0.0f : most * p.scale_log2e;
    const float factor = exp2_fast(m[half] * p.scale_log2e - at);
    m[half] = most;
    l[half] *= factor;
    const int row = row_of(half);
    char* to = chunk + row * 128 + (lane % 4) * 4;
#pragma unroll
    for (int n = 0; n < 8; ++n) {
      const float low = exp2_fast(s[n * 4 + half * 2] * p.scale_log2e - at);
      const float high = exp2_fast(s[n * 4 + half * 2 + 1] * p.scale_log2e - at);
      l[half] += low + high;
      *reinterpret_cast<uint32_t*>(to + ((n ^ (row & 7)) << 4)) = pack2<T>(low, high);
    }
    float sum = l[half];
    if (last) {
      sum += __shfl_xor_sync(0xffffffffu, sum, 1);
      sum += __shfl_xor_sync(0xffffffffu, sum, 2);
    }
    if (lane % 4 == 0) {
      shared.factors[stage()][row] = factor;
      if (last) shared.totals[stage()][row] = make_float2(most, sum);
    }
  }
  publish_shared();
  ptx::barrier_arrive(&shared.ready[stage()]);
}

template <typename T>
__device__ __forceinline__ void score_products(float (&s)[32], MlaShared& shared, int stage, uint32_t parity) {
  const uint64_t a = inner_descriptor(ptx::shared_address(shared.queries));
  const uint64_t b = inner_descriptor(ptx::shared_address(shared.tiles[stage]));
  hold(s);
#pragma unroll
  for (int c = 0; c < kChunks; ++c) {
    ptx::barrier_wait(&shared.full[stage][c], parity);
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

template <typename T, bool kPair>
__device__ __forceinline__ void MlaBlock<T, kPair>::score() {
  int units = 0;
  float s[32];
  while (next_piece()) {
    float m[2] = {-INFINITY, -INFINITY}, l[2] = {};
    int limit[2];
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int packed = row_block * 64 + row_of(half);
      limit[half] = packed < rows ? p.batch.positions[row_begin + packed / p.heads] : -1;
    }
    ptx::barrier_wait(&shared.queries_full, units & 1);
    ++units;
    for (int t = 0; t <= tiles; ++t) {
      const int token = (piece.tile_begin + t) * kTileTokens;
      if (t < tiles) {
        const int next = count + (t > 0);
        if (context - token < kTileTokens) {
          const int kept = count;
          count = next;
          clear_tail(context - token);
          count = kept;
        }
        // The scores of tile t; those of tile t - 1 have become probabilities.
        score_products<T>(s, shared, next & 1, (next >> 1) & 1);
        if (t + 1 == tiles && lane == 0) ptx::barrier_arrive(&shared.queries_empty);
      }
      if (t > 0) {
        if (lane == 0) ptx::barrier_arrive(&shared.go[stage()]);
        ++count;
      }
      if (t < tiles) softmax(s, m, l, limit, token, t + 1 == tiles);
    }
  }
}

template <typename T, bool kPair>
__global__ void __launch_bounds__(512, 1)
    mla_decode_kernel(const __grid_constant__ MlaParams p, const __grid_constant__ CUtensorMap queries,
                      const __grid_constant__ CUtensorMap pages) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  extern __shared__ char mla_raw[];
  MlaShared& shared = *reinterpret_cast<MlaShared*>(mla_raw + ((1024 - (ptx::shared_address(mla_raw) & 1023)) & 1023));
  const int group = static_cast<int>(threadIdx.x >> 7);
  if (threadIdx.x == 0) {
    for (int stage = 0; stage < 2; ++stage) {
      for (int c = 0; c < kChunks; ++c) ptx::barrier_init(&shared.full[stage][c], 1);
      for (int side = 0; side < 2; ++side) ptx::barrier_init(&shared.empty[stage][side], kPair ? 8 : 4);
      ptx::barrier_init(&shared.ready[stage], 128);
      ptx::barrier_init(&shared.go[stage], 4);
    }
    ptx::barrier_init(&shared.queries_full, 1);
    ptx::barrier_init(&shared.queries_empty, 4);
    ptx::barrier_init_fence();
    publish_shared();
  }
  wait_for_previous_kernel();
  let_next_kernel_start();
  prefetch_page_table(p.batch);
  const bool whole = plan_work(p.batch, p.shape, shared.prefix, shared.scratch);
  if constexpr (kPair) ptx::cluster_sync();
  MlaBlock<T, kPair> block(p, shared, whole);
  if (group == 0) {
    ptx::fewer_registers<32>();
    if (threadIdx.x == 0) block.load(&queries, &pages);
  } else if (group == 1) {
    ptx::fewer_registers<96>();
    block.score();
  } else {
    ptx::more_registers<192>();
    block.output(group - 2);
  }
  if constexpr (kPair) {
    // The other block may still write to this one's memory.
    __syncwarp();
    ptx::cluster_sync();
  }
#endif
}

// One row of a unit of several pieces, added in order: a warp.
template <typename T>
__device__ __forceinline__ void combine_row(const MlaParams& p, WorkCursor& cursor, int sequence, int row_block, int row) {
  const int lane = threadIdx.x & 31, packed = row_block * 64 + row, first = p.batch.row_begin[sequence];
  if (packed >= (p.batch.row_begin[sequence + 1] - first) * p.heads) return;
  const Piece piece = cursor.first_piece(sequence, row_block / p.ranks);
  if (piece.pieces == 1) return;
  const int rank = row_block % p.ranks;
  const auto at = [&](int i) { return (static_cast<int64_t>(cursor.slot_of(piece, i)) * p.ranks + rank) * 64 + row; };
  float most = -INFINITY, sum = 0.0f;
  for (int i = lane; i < piece.pieces; i += 32) most = fmaxf(most, p.sums[at(i)].x);
  for (int step = 16; step > 0; step /= 2) most = fmaxf(most, __shfl_xor_sync(0xffffffffu, most, step));
  float4 acc[4] = {};
  for (int base = 0; base < piece.pieces; base += 32) {
    const float2 mine = base + lane < piece.pieces ? p.sums[at(base + lane)] : make_float2(-INFINITY, 0.0f);
    const float my_weight = exp2_fast((mine.x - most) * p.scale_log2e);
    const int count = min(32, piece.pieces - base);
#pragma unroll 6
    for (int i = 0; i < count; ++i) {
      const float weight = __shfl_sync(0xffffffffu, my_weight, i);
      sum += weight * __shfl_sync(0xffffffffu, mine.y, i);
      const float4* from = reinterpret_cast<const float4*>(p.partials + at(base + i) * kLatent) + lane;
#pragma unroll
      for (int j = 0; j < 4; ++j) {
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
              lane;
#pragma unroll
  for (int j = 0; j < 4; ++j) {
    to[j * 32] =
        make_uint2(pack2<T>(acc[j].x * inverse, acc[j].y * inverse), pack2<T>(acc[j].z * inverse, acc[j].w * inverse));
  }
}

// Items: an eighth of a row block each, of all sequences' row blocks.
template <typename T>
__global__ void __launch_bounds__(256) mla_combine_kernel(const __grid_constant__ MlaParams p, int row_blocks) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  extern __shared__ int combine_shared[];
  wait_for_previous_kernel();
  if (plan_work(p.batch, p.shape, combine_shared + 40, combine_shared)) return;
  WorkCursor cursor;
  cursor.start(combine_shared + 40, p.shape, p.batch.sequences, 0, false);
  const int items = p.batch.sequences * row_blocks * 8, warp = static_cast<int>(threadIdx.x >> 5);
  for (int item = static_cast<int>(blockIdx.x); item < items; item += static_cast<int>(gridDim.x)) {
    combine_row<T>(p, cursor, item / 8 / row_blocks, item / 8 % row_blocks, item % 8 * 8 + warp);
  }
#endif
}

}  // namespace spillway::kernels::cuda
