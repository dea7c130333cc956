// Launching one variant of the decode kernel; used by attention_decode.cu and by the bench, which compares variants.
#pragma once

#include <algorithm>

#include "kernels/cuda/attention_decode.cuh"
#include "kernels/cuda/attention_device.h"

namespace spillway::kernels::cuda {

// Largest number of blocks that a balanced launch uses, for the workspace.
inline int decode_blocks_max() { return processor_count() * 4; }

inline size_t round_up_256(size_t bytes) { return (bytes + 255) / 256 * 256; }

// Of the counters at the workspace's beginning: the same for every batch, or one launch would find the partial results
// of another where it counts.
inline size_t counter_bytes(int64_t sequences, int64_t units) {
  return std::max(size_t{1} << 20, round_up_256(size_t(sequences * units) * 4));
}

// Partial results that a launch may leave.
inline int64_t decode_slots(int64_t units, int sequences, int context_max, int split_tokens) {
  if (split_tokens == 0) return int64_t{2} * decode_blocks_max();
  return units * sequences * ceil_div(context_max, split_tokens);
}

// As many blocks as are resident at once, at most blocks_wanted.
inline cudaError_t resident_blocks(const void* kernel, int threads, size_t shared, int64_t blocks_wanted, int* blocks) {
  int resident = 0;
  cudaError_t error = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, int(shared));
  if (error == cudaSuccess) {
    error = cudaOccupancyMaxActiveBlocksPerMultiprocessor(&resident, kernel, threads, shared);
  }
  if (error != cudaSuccess) return error;
  if (resident < 1) return cudaErrorInvalidConfiguration;
  *blocks = static_cast<int>(std::min<int64_t>(blocks_wanted, int64_t{processor_count()} * std::min(resident, 4)));
  return cudaSuccess;
}

// Chips with less shared memory (99 KiB: sm_86 and 89) have two stages, or attention_simple where those do not fit.
template <typename T, int kDim, int kMt, int kWarps, int kStages, bool kFresh>
cudaError_t launch_decode_block(const PagedAttention& a, const FreshToken& fresh, cudaStream_t stream) {
  using Block = DecodeBlock<T, kDim, kMt, kWarps, kStages, kFresh>;
  DecodeParams p;
  p.fresh = fresh;
  p.starts_next = a.starts_next;
  p.queries = static_cast<const char*>(a.queries);
  p.out = static_cast<char*>(a.out);
  p.query_stride = a.query_stride;
  p.out_stride = a.out_stride;
  p.group = a.heads / a.pages.kv_heads;
  const int rows = a.batch.rows_max * p.group;
  p.row_blocks = ceil_div(rows, Block::kRows);
  p.rows_used = std::min(rows, Block::kRows);
  const size_t shared = Block::shared_bytes(a.batch.sequences);
  if (shared > size_t(shared_bytes_max())) {
    if constexpr (kStages > 2) return launch_decode_block<T, kDim, kMt, kWarps, 2, kFresh>(a, fresh, stream);
    return kFresh ? cudaErrorInvalidValue : attention_simple(a, stream);
  }
  p.scale_log2e = a.scale * kLog2e;
  p.pages = a.pages;
  p.values_bytes = a.pages.values_offset() * 2;
  p.batch = a.batch;
  p.shape = {a.pages.kv_heads * p.row_blocks, std::max(a.split_tokens / kTileTokens, 1), a.split_tokens == 0, 1, 1};
  const int64_t slots = decode_slots(p.shape.units, a.batch.sequences, a.batch.context_max, a.split_tokens);
  char* at = static_cast<char*>(a.workspace);
  p.counters = reinterpret_cast<int*>(at);
  at += counter_bytes(a.batch.sequences, p.shape.units);
  p.partial_sums = reinterpret_cast<float*>(at);
  at += round_up_256(size_t(slots) * p.rows_used * 8);
  p.partials = reinterpret_cast<float*>(at);
  const int64_t grains =
      int64_t{a.batch.sequences} * p.shape.units * ceil_div(a.batch.context_max, kTileTokens * p.shape.grain_tiles);
  const auto kernel = attention_decode_kernel<T, kDim, kMt, kWarps, kStages, kFresh>;
  const cudaError_t error =
      resident_blocks(reinterpret_cast<const void*>(kernel), Block::kThreads, shared, grains, &p.shape.blocks);
  if (error != cudaSuccess) return error;
  return launch_kernel(kernel, dim3(static_cast<unsigned>(p.shape.blocks)), dim3(Block::kThreads), shared, stream,
                       a.overlap, p);
}

template <typename T, int kDim, int kMt, int kWarps, int kStages>
cudaError_t launch_decode(const PagedAttention& a, cudaStream_t stream) {
  return launch_decode_block<T, kDim, kMt, kWarps, kStages, false>(a, {}, stream);
}

// a.queries: the fused projection of one new token a sequence.
template <typename T, int kDim, int kMt, int kWarps, int kStages>
cudaError_t launch_fresh_decode(const PagedAttention& a, const FreshToken& fresh, cudaStream_t stream) {
  return launch_decode_block<T, kDim, kMt, kWarps, kStages, true>(a, fresh, stream);
}

}  // namespace spillway::kernels::cuda
