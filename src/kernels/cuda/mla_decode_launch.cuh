// Launching the kernels of mla_decode.cuh.
#pragma once

#include <algorithm>
#include <cstddef>

#include "kernels/cuda/attention_device.h"
#include "kernels/cuda/attention_maps.h"
#include "kernels/cuda/mla_decode_compute.cuh"
#include "kernels/cuda/mla_decode_values.cuh"

namespace spillway::kernels::cuda {

constexpr int kMlaSequencesMax = 1024;  // their prefix sums fit beside the tiles

// Partial results that a launch may leave, each of `ranks` row blocks.
inline int64_t mla_slots(int units, int sequences, int context_max, int split_tokens) {
  if (split_tokens == 0) return int64_t{2} * processor_count();
  return int64_t{units} * sequences * ceil_div(context_max, split_tokens);
}

inline bool make_mla_maps(const LatentAttention& a, int box_rows, CUtensorMap* queries, CUtensorMap* pages) {
  constexpr int kColumns = kLatent + 64;
  RowsMap q{a.queries, a.pages.dtype};
  q.columns = q.row_stride = kColumns;
  q.row_stride *= 2;
  q.rows = a.heads;
  q.outer = a.batch.rows;
  q.outer_stride = a.query_stride * 2;
  q.box_rows = std::min(a.heads, 64);
  q.box_outer = 64 / q.box_rows;
  RowsMap p{a.pages.base, a.pages.dtype};
  p.columns = kColumns;
  p.row_stride = kColumns * 2;
  p.rows = a.pages.page_tokens;
  p.box_rows = box_rows;
  p.outer = int64_t{1} << 30;  // page ids are trusted
  p.outer_stride = a.pages.page_stride_bytes;
  return make_rows_map(queries, q) && make_rows_map(pages, p);
}

// kPair: of two blocks or more of 64 rows.
template <typename T, bool kPair>
cudaError_t launch_mla(const LatentAttention& a, cudaStream_t stream) {
  MlaParams p;
  p.out = static_cast<char*>(a.out);
  p.out_stride = a.out_stride;
  p.heads = a.heads;
  const int row_blocks = ceil_div(a.heads * a.batch.rows_max, 64);
  p.ranks = kPair ? 2 : 1;
  p.scale_log2e = a.scale * kLog2e;
  p.page_tokens = a.pages.page_tokens;
  p.batch = a.batch;
  p.shape = {ceil_div(row_blocks, p.ranks), std::max(a.split_tokens / kTileTokens, 1), a.split_tokens == 0, 1, 2, 6};
  const int64_t most =
      int64_t{a.batch.sequences} * p.shape.units * ceil_div(a.batch.context_max, kTileTokens * p.shape.grain_tiles);
  p.shape.blocks = static_cast<int>(std::min<int64_t>(processor_count() / p.ranks, most));
  const int64_t slots = mla_slots(p.shape.units, a.batch.sequences, a.batch.context_max, a.split_tokens);
  p.partials = static_cast<float*>(a.workspace);
  p.sums = reinterpret_cast<float2*>(p.partials + slots * p.ranks * 64 * kLatent);
  p.whole = reinterpret_cast<int*>(p.sums + slots * p.ranks * 64);
  CUtensorMap queries, pages;
  if (!make_mla_maps(a, kPair ? 32 : 64, &queries, &pages)) return cudaErrorInvalidValue;
  const size_t prefix = size_t(a.batch.sequences + 1) * 4, shared = 1024 + offsetof(MlaShared, prefix) + prefix;
  const auto kernel = mla_decode_kernel<T, kPair>;
  cudaError_t error = allow_shared(kernel, int(shared));
  if (error != cudaSuccess) return error;
  cudaLaunchAttribute attributes[2];
  attributes[0].id = cudaLaunchAttributeClusterDimension;
  attributes[0].val.clusterDim = {static_cast<unsigned>(kPair ? 2 : 1), 1, 1};
  attributes[1].id = cudaLaunchAttributeProgrammaticStreamSerialization;
  attributes[1].val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t config = {};
  config.gridDim = dim3(static_cast<unsigned>(p.shape.blocks * p.ranks));
  config.blockDim = dim3(384);
  config.dynamicSmemBytes = shared;
  config.stream = stream;
  config.attrs = attributes;
  config.numAttrs = a.overlap ? 2 : 1;
  error = cudaLaunchKernelEx(&config, kernel, p, queries, pages);
  if (error != cudaSuccess) return error;
  if constexpr (std::is_same_v<T, __nv_bfloat16>) {
    if (a.value_up != nullptr) {
      const MlaValues values{static_cast<const T*>(a.value_up), static_cast<T*>(a.values), a.values_stride};
      const cudaError_t allowed = allow_shared(mla_values_kernel, int(160 + prefix));
      if (allowed != cudaSuccess) return allowed;
      return launch_kernel(mla_values_kernel, dim3(unsigned(2 * a.heads)), kValueThreads, 160 + prefix, stream, true, 2,
                           p, values);
    }
  }
  const int64_t eighths = int64_t{8} * row_blocks * a.batch.sequences;
  const int parts = eighths <= processor_count() ? 4 : 1;
  const auto combiners = static_cast<unsigned>(std::min<int64_t>(int64_t{4} * processor_count(), eighths * parts));
  return launch_kernel(parts == 4 ? mla_combine_kernel<T, 4> : mla_combine_kernel<T, 1>, dim3(combiners), dim3(256),
                       160 + prefix, stream, true, p, row_blocks);
}

}  // namespace spillway::kernels::cuda
