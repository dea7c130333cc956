// The decode kernel of attention_paged.h on mma.sync m16n8k16 (sm_80 and newer).
//
// A unit is a kv head and 16 * kMt rows, a row being a (new token, query head of the kv head) pair: every key and value
// read serves all of them. Each warp streams its own 16-token chunks of the block's stretch through a private ring of
// cp.async stages, with no barrier until a piece ends; loads run ahead across pieces. Rows of shared memory are
// swizzled by 16-byte segments so that ldmatrix meets no bank conflict.
//
// kFresh: queries are the layer's fused projection, of one new token a sequence, whose key and value the warp that has
// their chunk puts into the page and into its stage. Then all that is loaded ahead is of earlier steps.
#pragma once

#include "kernels/cuda/attention_chunk.cuh"
#include "kernels/cuda/attention_fresh.cuh"
#include "kernels/cuda/attention_paged.h"
#include "kernels/cuda/attention_work.cuh"

namespace spillway::kernels::cuda {

struct DecodeParams {
  const char* queries;
  char* out;
  int64_t query_stride, out_stride;  // elements
  int group;                         // query heads of a kv head
  int row_blocks;                    // of 16 * kMt rows; units = kv_heads * row_blocks
  int rows_used;                     // of a row block: 16 * kMt at most
  float scale_log2e;
  KvPages pages;
  int64_t values_bytes;  // from a page's first key to its first value
  Batch batch;
  WorkShape shape;
  float* partials;  // [slot][rows_used][kDim], then [slot][rows_used][2]: maximum and sum
  float* partial_sums;
  int* counters;  // [sequences][units]
  FreshToken fresh;
  bool starts_next;
};

template <typename T, int kDim, int kMt, int kWarps, int kStages, bool kFresh = false>
struct DecodeBlock : ChunkSums<T, kDim, kMt> {
  using Sums = ChunkSums<T, kDim, kMt>;
  using Sums::kHalfBytes, Sums::kRows, Sums::kSegments, Sums::kStageBytes;
  using Sums::l, Sums::limit, Sums::m, Sums::o, Sums::q, Sums::row_of;
  static constexpr int kThreads = kWarps * 32;
  static constexpr int kSumBytes = Sums::kRowBytes * 2;  // of a row's values as float32
  static_assert(16 * kSumBytes == kStageBytes);

  static size_t shared_bytes(int sequences) {
    return size_t{kWarps} * kStages * kStageBytes + kWarps * 16 * 8 + size_t(sequences + 1 + 40 + kWarps) * 4;
  }

  const DecodeParams& p;
  const int lane, warp;
  char* const shared;   // [kWarps][kStages]
  const uint32_t ring;  // this warp's stages
  float2* const sums;   // [kWarps][16]: maximum and sum of a row
  int* const stage_of;  // [kWarps]: where a warp's values of 16 rows lie
  int* const scratch;   // [40]

  // What is loaded next.
  WorkCursor cursor;
  Piece loading;
  int load_chunk, load_chunks, load_stage = 0, load_context = 0;
  bool load_more = true;
  int pages_ahead = 0;  // lane i: the page of this warp's chunk i of each 32

  FreshKeyValue<T, kDim> fresh;
  int fresh_chunk = -1;  // of the piece being computed, where this warp has the new token's

  __device__ __forceinline__ DecodeBlock(const DecodeParams& p_, char* shared_)
      : p(p_),
        lane(threadIdx.x & 31),
        warp(threadIdx.x >> 5),
        shared(shared_),
        ring(shared_address(shared_) + (threadIdx.x >> 5) * kStages * kStageBytes),
        sums(reinterpret_cast<float2*>(shared_ + kWarps * kStages * kStageBytes)),
        stage_of(reinterpret_cast<int*>(sums + kWarps * 16)),
        scratch(stage_of + kWarps) {}

  __device__ __forceinline__ int chunks_of(const Piece& piece) const {
    const int context = p.batch.contexts[piece.sequence];
    return ceil_div(min(piece.tile_end * kTileTokens, context) - piece.tile_begin * kTileTokens, 16);
  }

  // Moves to this warp's next chunk to load, over as many pieces as it takes.
  __device__ __forceinline__ void seek() {
    while (load_chunk >= load_chunks) {
      load_more = cursor.take(loading);
      if (!load_more) return;
      load_chunk = warp;
      load_context = p.batch.contexts[loading.sequence];
      load_chunks = ceil_div(min(loading.tile_end * kTileTokens, load_context) - loading.tile_begin * kTileTokens, 16);
    }
  }

  // This warp's next 32 chunks: one read instead of one before each copy.
  __device__ __forceinline__ void find_pages() {
    const int token = loading.tile_begin * kTileTokens + (load_chunk + lane * kWarps) * 16;
    if (load_chunk + lane * kWarps >= load_chunks) return;
    pages_ahead =
        p.batch.page_table[static_cast<int64_t>(loading.sequence) * p.batch.pages_max + token / p.pages.page_tokens];
  }

  // Whether the next chunk to load holds rows that this step writes.
  __device__ __forceinline__ bool loads_new_row() const {
    const int s = loading.sequence, new_rows = p.batch.row_begin[s + 1] - p.batch.row_begin[s];
    return loading.tile_begin * kTileTokens + load_chunk * 16 + 16 > p.batch.contexts[s] - new_rows;
  }

  __device__ __forceinline__ char* key_in(int page, int kv_head, int token) const {
    return static_cast<char*>(p.pages.base) + page * p.pages.page_stride_bytes +
           (static_cast<int64_t>(kv_head) * p.pages.page_tokens + token % p.pages.page_tokens) * (kDim * 2);
  }
  __device__ __forceinline__ char* key_of(int sequence, int kv_head, int token) const {
    const int64_t first = static_cast<int64_t>(sequence) * p.batch.pages_max;
    return key_in(p.batch.page_table[first + token / p.pages.page_tokens], kv_head, token);
  }

  __device__ __forceinline__ void load_next() {
    if (load_more) {
      const int token = loading.tile_begin * kTileTokens + load_chunk * 16, round = load_chunk / kWarps % 32;
      const int valid = load_context - token - (kFresh ? 1 : 0);
      if (round == 0) find_pages();
      const char* from = key_in(__shfl_sync(0xffffffffu, pages_ahead, round), loading.unit / p.row_blocks, token);
      const uint32_t to = ring + load_stage * kStageBytes;
#pragma unroll
      for (int i = 0; i < kSegments / 2; ++i) {
        const int at = i * 32 + lane, row = at / kSegments, segment = at % kSegments;
        const uint32_t place = to + Sums::place_of(row, segment);
        const bool in = row < valid;
        const char* source = from + (in ? at * 16 : 0);
        copy_async16(place, source, in);
        copy_async16(place + kHalfBytes, source + p.values_bytes, in);
      }
      load_chunk += kWarps;
      seek();
    }
    copy_async_commit();
    load_stage = load_stage + 1 == kStages ? 0 : load_stage + 1;
  }

  // A unit's queries, and the new token's key and value in the warp that has its chunk.
  __device__ __forceinline__ void begin_fresh_unit(const Piece& piece);
  __device__ __forceinline__ void put_fresh(int stage, int token);

  // The unit's queries to registers, the running softmax to its beginning.
  __device__ __forceinline__ void begin_unit(const Piece& piece) {
    const int first = p.batch.row_begin[piece.sequence];
    const int rows = (p.batch.row_begin[piece.sequence + 1] - first) * p.group;
    const int kv_head = piece.unit / p.row_blocks, row_block = piece.unit % p.row_blocks;
#pragma unroll
    for (int t = 0; t < kMt; ++t) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int packed = row_block * kRows + row_of(t, half);
        const bool in = packed < rows;
        const int row = first + (in ? packed / p.group : 0), head = kv_head * p.group + packed % p.group;
        limit[t][half] = in ? p.batch.positions[row] : -1;
        const char* from = p.queries + (row * p.query_stride + int64_t{head} * kDim) * 2 + (lane % 4) * 4;
#pragma unroll
        for (int k = 0; k < kDim / 16; ++k) {
          q[t][k][half] = in ? *reinterpret_cast<const uint32_t*>(from + k * 32) : 0;
          q[t][k][half + 2] = in ? *reinterpret_cast<const uint32_t*>(from + k * 32 + 16) : 0;
        }
      }
      Sums::begin(t);
    }
  }

  __device__ __forceinline__ void leave_sums(int t);
  __device__ __forceinline__ void write_rows(const Piece& piece, int t);
  __device__ __forceinline__ void combine(const Piece& piece);
  __device__ __forceinline__ void run();
};

}  // namespace spillway::kernels::cuda

#include "kernels/cuda/attention_decode_end.cuh"
