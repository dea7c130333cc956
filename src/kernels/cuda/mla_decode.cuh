// The absorbed latent attention kernel of mla_decode.h for sm_90a.
//
// A block holds 64 rows, a row being a (new token, head) pair: their queries (72 KB) and two tiles of 64 latents (72 KB
// each) in shared memory as nine swizzled chunks of 64 columns. Three warpgroups:
//   loads    one thread; chunk by chunk, as soon as the half of the older tile that it replaces is free
//   left     scores of even tiles; O[:, 0:256]
//   right    scores of odd tiles; O[:, 256:512]
// Each adds its own probabilities times its half of the values from registers, and the other's from shared memory (they
// lie in a tile's rope chunk, which its scores no longer need). Their products take turns, six a pair of tiles: scores
// of the even one, of the odd one, then even left, even right, odd left and odd right outputs. So each half of a tile
// is free three products before its refill is needed, and one side's softmax is beside the other's products. Two blocks
// with the two halves of 128 heads are a cluster and walk the same stretch: each loads half of every tile into both
// (kPair), so that the cache is read once.
#pragma once

#include "kernels/cuda/attention_ptx.cuh"
#include "kernels/cuda/attention_wgmma.cuh"
#include "kernels/cuda/attention_work.cuh"
#include "kernels/cuda/gemm_tile_store.cuh"
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
  int* whole;       // left for the combination: 1 where no unit was split
};

struct MlaShared {
  alignas(1024) char queries[kStageBytesMla];
  alignas(1024) char tiles[2][kStageBytesMla];
  float maxima[2][64];  // the running maximum after the even and after the odd tile of a pair; with probabilities
  float totals[2][64];  // at a piece's end: each side's sums of probabilities
  uint64_t full[2][kChunks], empty[2][2], queries_full, queries_empty, met, ready[2];
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
  uint32_t even_uses = 0, odd_uses = 0;  // of each tile's place so far

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
  __device__ __forceinline__ uint32_t parity_of(int place) const { return (place == 0 ? even_uses : odd_uses) & 1; }
  __device__ __forceinline__ int row_of(int half) const { return warp * 16 + half * 8 + lane / 4; }

  __device__ __forceinline__ void load(const CUtensorMap* queries, const CUtensorMap* pages);
  template <int kSide>
  __device__ __forceinline__ void compute();
  template <int kSide>
  __device__ __forceinline__ void scores(float (&s)[32], int tile);
  __device__ __forceinline__ void clear_tail(int place, int valid, int barrier);
  __device__ __forceinline__ void row_maxima(float (&s)[32], int token, const int (&limit)[2], float (&most)[2]) const;
  __device__ __forceinline__ void own_probabilities(float (&s)[32], float (&most)[2], int place, float (&m)[2],
                                                    float (&l)[2], float (&factor)[2], uint32_t (&a)[4][4]);
  __device__ __forceinline__ void raise_maximum(float most, int half, float (&m)[2], float (&l)[2],
                                                float (&factor)[2]) const {
    factor[half] = most == m[half] ? 1.0f : exp2_fast((m[half] - most) * p.scale_log2e);
    m[half] = most;
    l[half] *= factor[half];
  }
  __device__ __forceinline__ void store_probabilities(const uint32_t (&a)[4][4], int place);
  __device__ __forceinline__ void release(int place, int half);
  __device__ __forceinline__ void write(const float (&o)[2][64], int side, const float (&m)[2],
                                        const float (&total)[2]);
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
    for (int t = 0; t < tiles; ++t) {
      const int token = (piece.tile_begin + t) * kTileTokens, index = token / p.page_tokens;
      const int page = table[index], in_page = token - index * p.page_tokens, place = t & 1;
      const uint32_t parity = ((place == 0 ? even_uses++ : odd_uses++) & 1) ^ 1;
      uint64_t* full = shared.full[place];
      for (int half = 0; half < 2; ++half) {
        ptx::barrier_wait(&shared.empty[place][half], parity);
        for (int c = half * 4; c < (half == 0 ? 4 : kChunks); ++c) {
          ptx::barrier_expect(full + c, kChunkBytes);
          char* chunk = shared.tiles[place] + c * kChunkBytes;
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

// This warpgroup no longer needs half of a tile.
template <typename T, bool kPair>
__device__ __forceinline__ void MlaBlock<T, kPair>::release(int place, int half) {
  __syncwarp();
  if constexpr (kPair) {
    if (lane < 2) ptx::barrier_arrive_remote(&shared.empty[place][half], static_cast<uint32_t>(lane));
  } else {
    if (lane == 0) ptx::barrier_arrive(&shared.empty[place][half]);
  }
}

template <typename T, bool kPair>
__device__ __forceinline__ void MlaBlock<T, kPair>::write(const float (&o)[2][64], int side, const float (&m)[2],
                                                          const float (&total)[2]) {
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int row = row_of(half), packed = row_block * 64 + row;
    const bool in = packed < rows;
    if (piece.pieces == 1) {
      const float inverse = 1.0f / total[half];
      const int64_t at =
          (row_begin + packed / p.heads) * p.out_stride + int64_t{packed % p.heads} * kLatent + side * 256;
      char* to = p.out + at * 2 + (lane % 4) * 16;
#pragma unroll
      for (int n = 0; n < 32; n += 4) {  // four threads exchange so that each writes 16 bytes
        uint32_t words[4];
#pragma unroll
        for (int j = 0; j < 4; ++j) {
          const int i = (n + j) % 16 * 4 + half * 2;
          words[j] = pack2<T>(o[n / 16][i] * inverse, o[n / 16][i + 1] * inverse);
        }
        transpose_4(words);
        if (in) *reinterpret_cast<uint4*>(to + n * 16) = make_uint4(words[0], words[1], words[2], words[3]);
      }
    } else if (in) {
      const int64_t at = (static_cast<int64_t>(piece.slot) * p.ranks + rank) * 64 + row;
      float2* to = reinterpret_cast<float2*>(p.partials + at * kLatent + side * 256) + lane % 4;
#pragma unroll
      for (int n = 0; n < 32; ++n) {
        to[n * 4] = make_float2(o[n / 16][n % 16 * 4 + half * 2], o[n / 16][n % 16 * 4 + half * 2 + 1]);
      }
      if (side == 0 && lane % 4 == 0) p.sums[at] = make_float2(m[half], total[half]);
    }
  }
}

}  // namespace spillway::kernels::cuda

#include "kernels/cuda/mla_decode_compute.cuh"
