// The absorbed latent attention kernel of mla_decode.h for sm_90a.
//
// A block holds 64 rows, a row being a (new token, head) pair: their queries (72 KB) and two tiles of 64 latents (72 KB
// each) in shared memory as nine swizzled chunks of 64 columns. Four warpgroups:
//   loads      one thread; chunk by chunk, as soon as the half of the older tile that it replaces is free
//   scores     S = Q K^T (m64n64k16), softmax; leaves P in the tile's rope chunk, which the scores no longer need
//   outputs 0  O[:, 0:256] += P V (m64n128k16, V being the tile's own first columns, read transposed)
//   outputs 1  O[:, 256:512] += P V, held back until the next tile's scores are done, so that the tensor cores have
//              this to do while the next softmax runs
// Two blocks with the two halves of 128 heads are a cluster and walk the same stretch: each loads half of every tile
// into both (kPair), so that the cache is read once.
#pragma once

#include "kernels/cuda/attention_ptx.cuh"
#include "kernels/cuda/attention_wgmma.cuh"
#include "kernels/cuda/attention_work.cuh"
#include "kernels/cuda/mla_decode.h"

namespace spillway::kernels::cuda {

constexpr int kLatent = 512, kChunks = 9, kChunkBytes = 64 * 128, kStageBytesMla = kChunks * kChunkBytes;

struct MlaParams {
  char* out;
  int64_t out_stride;
  int heads;
  int ranks;  // blocks side by side: 1 or 2
  float scale_log2e;
  int page_tokens;
  Batch batch;
  WorkShape shape;  // units: of `ranks` row blocks
  float* partials;  // [slot][ranks][64][512]
  float2* sums;     // [slot][ranks][64]: maximum and sum
};

struct MlaShared {
  alignas(1024) char queries[kStageBytesMla];
  alignas(1024) char tiles[2][kStageBytesMla];
  float factors[2][64];  // what the outputs so far are to be multiplied with before this tile
  float2 totals[2][64];  // with a piece's last tile: the maximum and the sum
  uint64_t full[2][kChunks], empty[2][2], ready[2], go[2], queries_full, queries_empty;
  int scratch[40];
  int prefix[1];  // [sequences + 1]
};

template <typename T, bool kPair>
struct MlaBlock {
  const MlaParams& p;
  MlaShared& shared;
  WorkCursor cursor;
  const int rank, lane, warp;  // warp of the warpgroup
  Piece piece;
  int row_block, row_begin, rows, tiles, context;
  int count = 0;  // tiles so far

  __device__ __forceinline__ MlaBlock(const MlaParams& p_, MlaShared& shared_, bool whole)
      : p(p_),
        shared(shared_),
        rank(static_cast<int>(blockIdx.x) % p_.ranks),
        lane(threadIdx.x & 31),
        warp((threadIdx.x >> 5) & 3) {
    cursor.start(shared.prefix, p.shape, p.batch.sequences, static_cast<int>(blockIdx.x) / p.ranks, whole);
  }

  // The next piece in which the pair has rows; the same sequence of pieces in every warpgroup of both blocks.
  __device__ __forceinline__ bool next_piece() {
    while (cursor.take(piece)) {
      row_block = piece.unit * p.ranks + rank;
      row_begin = p.batch.row_begin[piece.sequence];
      rows = (p.batch.row_begin[piece.sequence + 1] - row_begin) * p.heads;
      if (piece.unit * p.ranks * 64 >= rows) continue;
      context = p.batch.contexts[piece.sequence];
      tiles = min(piece.tile_end, ceil_div(context, kTileTokens)) - piece.tile_begin;
      return true;
    }
    return false;
  }
  __device__ __forceinline__ int stage() const { return count & 1; }
  __device__ __forceinline__ uint32_t parity() const { return (count >> 1) & 1; }
  __device__ __forceinline__ int row_of(int half) const { return warp * 16 + half * 8 + lane / 4; }

  __device__ __forceinline__ void load(const CUtensorMap* queries, const CUtensorMap* pages);
  __device__ __forceinline__ void score();
  __device__ __forceinline__ void output(int side);
  __device__ __forceinline__ void score_tile();
  __device__ __forceinline__ void clear_tail(int valid);
  __device__ __forceinline__ void softmax(float (&s)[32], float (&m)[2], float (&l)[2], const int (&limit)[2],
                                          int token, bool last);
  __device__ __forceinline__ void write(const float (&o)[2][64], int side, const float2 (&total)[2]);
};

__device__ __forceinline__ void load_box(void* to, const CUtensorMap* map, int x, int y, int z, uint64_t* barrier) {
  asm volatile(
      "cp.async.bulk.tensor.3d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4, %5}], [%2];" ::
          "r"(ptx::shared_address(to)),
      "l"(map), "r"(ptx::shared_address(barrier)), "r"(x), "r"(y), "r"(z)
      : "memory");
}

// Into the same place of both blocks of the pair, completing the barrier of each.
__device__ __forceinline__ void load_box_pair(void* to, const CUtensorMap* map, int x, int y, int z,
                                              uint64_t* barrier) {
  asm volatile(
      "cp.async.bulk.tensor.3d.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster "
      "[%0], [%1, {%3, %4, %5}], [%2], %6;" ::"r"(ptx::shared_address(to)),
      "l"(map), "r"(ptx::shared_address(barrier)), "r"(x), "r"(y), "r"(z), "h"(static_cast<uint16_t>(3))
      : "memory");
}

// One thread.
template <typename T, bool kPair>
__device__ __forceinline__ void MlaBlock<T, kPair>::load(const CUtensorMap* queries, const CUtensorMap* pages) {
  int units = 0;
  while (next_piece()) {
    ptx::barrier_wait(&shared.queries_empty, (units & 1) ^ 1);
    ptx::barrier_expect(&shared.queries_full, kStageBytesMla);
    const int first = row_block * 64;
    for (int c = 0; c < kChunks; ++c) {
      load_box(shared.queries + c * kChunkBytes, queries, c * 64, first % p.heads, row_begin + first / p.heads,
               &shared.queries_full);
    }
    ++units;
    const int32_t* table = p.batch.page_table + static_cast<int64_t>(piece.sequence) * p.batch.pages_max;
    for (int t = 0; t < tiles; ++t, ++count) {
      const int token = (piece.tile_begin + t) * kTileTokens, index = token / p.page_tokens;
      const int page = table[index], in_page = token - index * p.page_tokens;
      char* to = shared.tiles[stage()];
      uint64_t* full = shared.full[stage()];
      for (int side = 0; side < 2; ++side) {
        ptx::barrier_wait(&shared.empty[stage()][side], parity() ^ 1);
        for (int c = side * 4; c < (side == 0 ? 4 : kChunks); ++c) {
          ptx::barrier_expect(full + c, kChunkBytes);
          char* chunk = to + c * kChunkBytes;
          if constexpr (kPair) {
            load_box_pair(chunk + rank * (kChunkBytes / 2), pages, c * 64, in_page + rank * 32, page, full + c);
          } else {
            load_box(chunk, pages, c * 64, in_page, page, full + c);
          }
        }
      }
    }
  }
}

template <typename T, bool kPair>
__device__ __forceinline__ void MlaBlock<T, kPair>::output(int side) {
  float o[2][64];
  while (next_piece()) {
    float2 total[2] = {};
    for (int t = 0; t < tiles; ++t, ++count) {
      ptx::barrier_wait(&shared.ready[stage()], parity());
      const float factor[2] = {shared.factors[stage()][row_of(0)], shared.factors[stage()][row_of(1)]};
      if (t + 1 == tiles) {
        total[0] = shared.totals[stage()][row_of(0)];
        total[1] = shared.totals[stage()][row_of(1)];
      }
      if (t > 0 && __any_sync(0xffffffffu, factor[0] != 1.0f || factor[1] != 1.0f)) {
#pragma unroll
        for (int i = 0; i < 128; ++i) o[i / 64][i % 64] *= factor[i / 2 % 2];
      }
      for (int c = 0; c < 4; ++c) ptx::barrier_wait(&shared.full[stage()][side * 4 + c], parity());
      if (side == 1) ptx::barrier_wait(&shared.go[stage()], parity());
      const uint32_t tile = ptx::shared_address(shared.tiles[stage()]);
      const uint64_t a = inner_descriptor(tile + 8 * kChunkBytes);
      const uint64_t b = outer_descriptor(tile + side * 4 * kChunkBytes, kChunkBytes);
      hold(o[0]);
      hold(o[1]);
      products_begin();
#pragma unroll
      for (int k = 0; k < 4; ++k) {
        product_n128_shared<T>(o[0], a + k * 2, b + k * 128, t > 0 || k > 0);
        product_n128_shared<T>(o[1], a + k * 2, b + k * 128 + kChunkBytes / 8, t > 0 || k > 0);
      }
      products_commit();
      products_wait<0>();
      hold(o[0]);
      hold(o[1]);
      __syncwarp();
      if constexpr (kPair) {
        if (lane < 2) ptx::barrier_arrive_remote(&shared.empty[stage()][side], static_cast<uint32_t>(lane));
      } else {
        if (lane == 0) ptx::barrier_arrive(&shared.empty[stage()][side]);
      }
    }
    write(o, side, total);
  }
}

template <typename T, bool kPair>
__device__ __forceinline__ void MlaBlock<T, kPair>::write(const float (&o)[2][64], int side, const float2 (&total)[2]) {
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int row = row_of(half), packed = row_block * 64 + row;
    if (packed >= rows) continue;
    if (piece.pieces == 1) {
      const float inverse = 1.0f / total[half].y;
      char* to =
          p.out +
          ((row_begin + packed / p.heads) * p.out_stride + int64_t{packed % p.heads} * kLatent + side * 256) * 2 +
          (lane % 4) * 4;
#pragma unroll
      for (int n = 0; n < 32; ++n) {
        *reinterpret_cast<uint32_t*>(to + n * 16) =
            pack2<T>(o[n / 16][n % 16 * 4 + half * 2] * inverse, o[n / 16][n % 16 * 4 + half * 2 + 1] * inverse);
      }
    } else {
      const int64_t at = (static_cast<int64_t>(piece.slot) * p.ranks + rank) * 64 + row;
      float2* to = reinterpret_cast<float2*>(p.partials + at * kLatent + side * 256) + lane % 4;
#pragma unroll
      for (int n = 0; n < 32; ++n) {
        to[n * 4] = make_float2(o[n / 16][n % 16 * 4 + half * 2], o[n / 16][n % 16 * 4 + half * 2 + 1]);
      }
      if (side == 0 && lane % 4 == 0) p.sums[at] = total[half];
    }
  }
}

}  // namespace spillway::kernels::cuda

#include "kernels/cuda/mla_decode_scores.cuh"
