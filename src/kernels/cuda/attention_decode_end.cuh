// The end of a piece in attention_decode.cuh: warps, then pieces, are combined; and the kernel's main loop.
#pragma once

#include "kernels/cuda/attention_decode.cuh"

namespace spillway::kernels::cuda {

#define SW_DECODE template <typename T, int kDim, int kMt, int kWarps, int kStages, bool kFresh>
#define SW_DECODE_BLOCK DecodeBlock<T, kDim, kMt, kWarps, kStages, kFresh>

// Each warp leaves what it has of 16 rows in the stage that it will fill next: maxima and sums, then values, 32 bytes
// of a row by turns.
SW_DECODE __device__ __forceinline__ void SW_DECODE_BLOCK::leave_sums(int t) {
  char* const to = shared + (warp * kStages + load_stage) * kStageBytes;
  __syncwarp();  // every lane has read the stage; the products say so too, but not to racecheck
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int row = lane / 4 + half * 8;
    float sum = l[t][half];
    sum += __shfl_xor_sync(0xffffffffu, sum, 1);
    sum += __shfl_xor_sync(0xffffffffu, sum, 2);
    if (t * 16 + half * 8 >= p.rows_used) continue;
    if (lane % 4 == 0) sums[warp * 16 + row] = make_float2(m[t][half], sum);
#pragma unroll
    for (int n = 0; n < kDim / 8; ++n) {
      *reinterpret_cast<float2*>(to + row * kSumBytes + ((n ^ (row & 7)) * 32) + lane % 4 * 8) =
          make_float2(o[t][n][half * 2], o[t][n][half * 2 + 1]);
    }
  }
  if (lane == 0) stage_of[warp] = load_stage;
}

// All threads, four neighbouring elements each: the warps' sums in order, to the output or to the piece's slot.
SW_DECODE __device__ __forceinline__ void SW_DECODE_BLOCK::write_rows(const Piece& piece, int t) {
  constexpr int kQuads = kDim / 4;
  const int first = p.batch.row_begin[piece.sequence];
  const int kv_head = piece.unit / p.row_blocks, before = piece.unit % p.row_blocks * kRows + t * 16;
  const int rows = min((p.batch.row_begin[piece.sequence + 1] - first) * p.group - before, 16);
  for (int i = static_cast<int>(threadIdx.x); i < rows * kQuads; i += kThreads) {
    const int row = i / kQuads, quad = i % kQuads;
    const int place = row * kSumBytes + ((quad / 2 ^ (row & 7)) * 32) + quad % 2 * 16;
    float2 of[kWarps];
    float most = -INFINITY, sum = 0.0f;
#pragma unroll
    for (int w = 0; w < kWarps; ++w) of[w] = sums[w * 16 + row], most = fmaxf(most, of[w].x);
    const float at = most == -INFINITY ? 0.0f : most * p.scale_log2e;
    float4 v = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
#pragma unroll
    for (int w = 0; w < kWarps; ++w) {
      const float factor = exp2_fast(of[w].x * p.scale_log2e - at);
      const char* from = shared + (w * kStages + stage_of[w]) * kStageBytes;
      const float4 part = *reinterpret_cast<const float4*>(from + place);
      sum += factor * of[w].y;
      v.x += factor * part.x, v.y += factor * part.y, v.z += factor * part.z, v.w += factor * part.w;
    }
    if (piece.pieces == 1) {
      const float inverse = 1.0f / sum;
      const int packed = before + row, head = kv_head * p.group + packed % p.group;
      char* to = p.out + ((first + packed / p.group) * p.out_stride + int64_t{head} * kDim + quad * 4) * 2;
      *reinterpret_cast<uint2*>(to) =
          make_uint2(pack2<T>(v.x * inverse, v.y * inverse), pack2<T>(v.z * inverse, v.w * inverse));
    } else {
      const int64_t slot = static_cast<int64_t>(piece.slot) * p.rows_used + t * 16 + row;
      *reinterpret_cast<float4*>(p.partials + slot * kDim + quad * 4) = v;
      if (quad == 0) reinterpret_cast<float2*>(p.partial_sums)[slot] = make_float2(most, sum);
    }
  }
}

// All warps, a row each: the pieces of a unit in rising order.
SW_DECODE __device__ __forceinline__ void SW_DECODE_BLOCK::combine(const Piece& piece) {
  constexpr int kPairs = (kDim + 63) / 64;  // of neighbouring elements a lane
  const int first = p.batch.row_begin[piece.sequence];
  const int rows = (p.batch.row_begin[piece.sequence + 1] - first) * p.group;
  const int kv_head = piece.unit / p.row_blocks, row_block = piece.unit % p.row_blocks;
  const float2* sums_of = reinterpret_cast<const float2*>(p.partial_sums);
  for (int row = warp; row < p.rows_used; row += kWarps) {
    const int packed = row_block * kRows + row;
    if (packed >= rows) break;
    float most = -INFINITY;
    for (int i = lane; i < piece.pieces; i += 32) {
      most = fmaxf(most, __ldcg(&sums_of[int64_t{cursor.slot_of(piece, i)} * p.rows_used + row]).x);
    }
    for (int step = 16; step > 0; step /= 2) most = fmaxf(most, __shfl_xor_sync(0xffffffffu, most, step));
    float sum = 0.0f;
    float2 acc[kPairs] = {};
#pragma unroll 4
    for (int i = 0; i < piece.pieces; ++i) {
      const int64_t at = int64_t{cursor.slot_of(piece, i)} * p.rows_used + row;
      const float2 part = __ldcg(&sums_of[at]);
      const float weight = exp2_fast((part.x - most) * p.scale_log2e);
      sum += weight * part.y;
#pragma unroll
      for (int j = 0; j < kPairs; ++j) {
        if (kDim % 64 != 0 && j * 32 + lane >= kDim / 2) continue;
        const float2 v = __ldcg(reinterpret_cast<const float2*>(p.partials + at * kDim) + j * 32 + lane);
        acc[j].x += weight * v.x;
        acc[j].y += weight * v.y;
      }
    }
    const float inverse = 1.0f / sum;
    char* to =
        p.out + ((first + packed / p.group) * p.out_stride + int64_t{kv_head * p.group + packed % p.group} * kDim) * 2;
#pragma unroll
    for (int j = 0; j < kPairs; ++j) {
      if (kDim % 64 != 0 && j * 32 + lane >= kDim / 2) continue;
      reinterpret_cast<uint32_t*>(to)[j * 32 + lane] = pack2<T>(acc[j].x * inverse, acc[j].y * inverse);
    }
  }
}

// One row block: the group's heads.
SW_DECODE __device__ __forceinline__ void SW_DECODE_BLOCK::begin_fresh_unit(const Piece& piece) {
  const int kv_head = piece.unit, kv_heads = p.pages.kv_heads, heads = kv_heads * p.group;
  const int last = p.batch.contexts[piece.sequence] - 1;
  const auto* row = reinterpret_cast<const T*>(p.queries) + piece.sequence * p.query_stride;
  const auto bias = [&](int head) { return p.fresh.bias != nullptr ? p.fresh.bias + int64_t{head} * kDim : nullptr; };
  const float* angles = p.fresh.cos_sin + int64_t{last} * kDim;
  const int chunk = last - piece.tile_begin * kTileTokens >= 0 ? (last - piece.tile_begin * kTileTokens) / 16 : -1;
  fresh_chunk = last < piece.tile_end * kTileTokens && chunk >= 0 && chunk % kWarps == warp ? chunk : -1;
  const auto head_of = [&](int t, int half) { return kv_head * p.group + min(row_of(t, half), p.group - 1); };
  FreshQuery<T, kDim> first;  // of the first eight rows: often all
  first.fetch(row + int64_t{head_of(0, 0)} * kDim, bias(head_of(0, 0)), angles);
  if (fresh_chunk >= 0) {
    const int key = heads + kv_head, value = key + kv_heads;
    fresh.take(row + int64_t{key} * kDim, row + int64_t{value} * kDim, bias(key), bias(value), p.fresh, angles);
    char* const page = key_of(piece.sequence, kv_head, last);
    fresh.put([&](int which, int segment) { return page + which * p.values_bytes + segment * 16; });
  }
#pragma unroll
  for (int t = 0; t < kMt; ++t) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      limit[t][half] = row_of(t, half) < p.group ? last : -1;
      if (t + half == 0) {
        first.open(q[t], half, p.fresh);
      } else if (t * 16 + half * 8 < p.group) {
        FreshQuery<T, kDim> query;
        query.fetch(row + int64_t{head_of(t, half)} * kDim, bias(head_of(t, half)), angles);
        query.open(q[t], half, p.fresh);
      } else {
#pragma unroll
        for (int k = 0; k < kDim / 16; ++k) q[t][k][half] = q[t][k][half + 2] = 0;
      }
    }
    Sums::begin(t);
  }
}

SW_DECODE __device__ __forceinline__ void SW_DECODE_BLOCK::put_fresh(int stage, int token) {
  const uint32_t to = ring + stage * kStageBytes;
  fresh.put([&](int which, int segment) {
    return static_cast<char*>(__cvta_shared_to_generic(to + which * kHalfBytes + Sums::place_of(token % 16, segment)));
  });
  __syncwarp();
}

SW_DECODE __device__ __forceinline__ void SW_DECODE_BLOCK::run() {
  int* const prefix = scratch + 40;
  // Lengths and pages of earlier steps do not depend on the previous kernel; this step's own rows and queries do.
  prefetch_page_table(p.batch);
  const bool whole = plan_work(p.batch, p.shape, prefix, scratch);
  cursor.start(prefix, p.shape, p.batch.sequences, static_cast<int>(blockIdx.x), whole);
  WorkCursor done = cursor;  // the piece being computed; `cursor` runs ahead
  load_chunk = load_chunks = 0;
  seek();
  bool waited = false;
#pragma unroll
  for (int i = 0; i < kStages - 1; ++i) {
    if (!kFresh && !waited && load_more && loads_new_row()) {
      wait_for_previous_kernel();
      waited = true;
    }
    load_next();
  }
  if (!waited) wait_for_previous_kernel();
  // Otherwise the next kernel starts at the end of this one: a product whose blocks find some multiprocessors taken
  // lands twice on another (rows.cuh).
  if (p.starts_next) let_next_kernel_start();
  int stage = 0;
  Piece piece;
  while (done.take(piece)) {
    if constexpr (kFresh) {
      begin_fresh_unit(piece);
    } else {
      begin_unit(piece);
    }
    const int chunks = chunks_of(piece);
    for (int c = warp; c < chunks; c += kWarps) {
      copy_async_wait<kStages - 2>();
      __syncwarp();
      load_next();
      if (kFresh && c == fresh_chunk) put_fresh(stage, p.batch.contexts[piece.sequence] - 1);
      Sums::chunk(ring + stage * kStageBytes, piece.tile_begin * kTileTokens + c * 16, p.scale_log2e);
      stage = stage + 1 == kStages ? 0 : stage + 1;
    }
#pragma unroll
    for (int t = 0; t < kMt; ++t) {
      leave_sums(t);
      __syncthreads();
      write_rows(piece, t);
      __syncthreads();
    }
    if (piece.pieces > 1) {
      const int unit = piece.sequence * p.shape.units + piece.unit;
      if (finish_piece(p.counters + unit, piece.pieces, scratch + 36)) combine(piece);
      __syncthreads();
    }
  }
  copy_async_wait<0>();
}

#undef SW_DECODE
#undef SW_DECODE_BLOCK

template <typename T, int kDim, int kMt, int kWarps, int kStages, bool kFresh>
__global__ void __launch_bounds__(kWarps * 32) attention_decode_kernel(const __grid_constant__ DecodeParams p) {
#if __CUDA_ARCH__ >= 800
  extern __shared__ __align__(128) char decode_shared[];
  DecodeBlock<T, kDim, kMt, kWarps, kStages, kFresh> block(p, decode_shared);
  block.run();
#endif
}

}  // namespace spillway::kernels::cuda
