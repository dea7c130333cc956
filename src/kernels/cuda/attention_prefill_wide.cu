// The wgmma path of attention_prefill, and mla_prefill, which is the same kernel over keys and values that are not
// paged.
#include <algorithm>

#include "kernels/cuda/attention_device.h"
#include "kernels/cuda/attention_maps.h"
#include "kernels/cuda/attention_prefill_wgmma.cuh"
#include "kernels/cuda/attention_prefill_wide.h"
#include "kernels/cuda/mla_prefill.h"

namespace spillway::kernels::cuda {
namespace {

using tensor::DType;

template <typename T, int kKeyDim>
cudaError_t launch(WidePrefillParams& p, const RowsMap& key_rows, const RowsMap& value_rows, bool overlap,
                   cudaStream_t stream) {
  CUtensorMap keys, values, queries;
  RowsMap query_rows{p.queries, key_rows.dtype};
  query_rows.columns = kKeyDim;
  query_rows.rows = int64_t{p.group} * p.kv_heads;
  query_rows.row_stride = kKeyDim * 2;
  query_rows.outer = p.batch.rows;
  query_rows.outer_stride = p.query_stride * 2;
  query_rows.box_rows = p.group;
  query_rows.box_outer = 128 / p.group;
  p.tile_rows = query_rows.box_outer * p.group;
  if (!make_rows_map(&keys, key_rows) || !make_rows_map(&values, value_rows) || !make_rows_map(&queries, query_rows)) {
    return cudaErrorInvalidValue;
  }
  p.tiles = static_cast<int>(row_tiles_max(p.batch, p.group, p.tile_rows));
  const auto kernel = wide_prefill_kernel<T, kKeyDim, 128>;
  const size_t shared = sizeof(WideShared<kKeyDim, 128>) + 1024;
  const int64_t blocks = std::min<int64_t>(processor_count(), int64_t{p.tiles} * p.kv_heads);
  return launch_kernel(kernel, dim3(static_cast<unsigned>(blocks)), dim3(384), shared, stream, overlap, p, keys, values,
                       queries);
}

}  // namespace

bool wide_prefill_takes(const PagedAttention& a) {
  return (a.pages.dtype == DType::kBF16 || a.pages.dtype == DType::kF16) && a.pages.dim == 128 &&
         a.pages.page_tokens % 64 == 0 && a.pages.page_stride_bytes % 16 == 0 && a.query_stride % 8 == 0 &&
         a.out_stride % 8 == 0 && a.heads / a.pages.kv_heads <= 128 && capability_major() == 9;
}

cudaError_t wide_prefill(const PagedAttention& a, cudaStream_t stream) {
  WidePrefillParams p;
  p.queries = static_cast<const char*>(a.queries);
  p.out = static_cast<char*>(a.out);
  p.query_stride = a.query_stride;
  p.out_stride = a.out_stride;
  p.group = a.heads / a.pages.kv_heads;
  p.kv_heads = a.pages.kv_heads;
  p.scale_log2e = a.scale * kLog2e;
  p.batch = a.batch;
  p.page_tokens = a.pages.page_tokens;
  p.context_begin = nullptr;
  RowsMap rows{a.pages.base, a.pages.dtype};
  rows.columns = a.pages.dim;
  rows.row_stride = a.pages.dim * 2;
  rows.rows = int64_t{2} * a.pages.kv_heads * a.pages.page_tokens;
  rows.outer = int64_t{1} << 30;  // page ids are trusted
  rows.outer_stride = a.pages.page_stride_bytes;
  if (a.pages.dtype == DType::kF16) return launch<__half, 128>(p, rows, rows, a.overlap, stream);
  return launch<__nv_bfloat16, 128>(p, rows, rows, a.overlap, stream);
}

cudaError_t mla_prefill(const RaggedAttention& a, cudaStream_t stream) {
  if (a.batch.rows == 0) return cudaSuccess;
  const bool narrow = a.dtype == DType::kBF16 || a.dtype == DType::kF16;
  const bool aligned =
      (a.query_stride | a.out_stride | a.key_stride | a.key_head_stride | a.value_stride | a.value_head_stride) % 8 ==
      0;
  if (capability_major() != 9 || !narrow || !aligned || a.k_dim != 192 || a.v_dim != 128) {
    return mla_prefill_simple(a, stream);
  }
  WidePrefillParams p;
  p.queries = static_cast<const char*>(a.queries);
  p.out = static_cast<char*>(a.out);
  p.query_stride = a.query_stride;
  p.out_stride = a.out_stride;
  p.group = 1;
  p.kv_heads = a.heads;
  p.scale_log2e = a.scale * kLog2e;
  p.batch = a.batch;
  p.page_tokens = 0;
  p.context_begin = a.context_begin;
  RowsMap keys{a.keys, a.dtype}, values{a.values, a.dtype};
  keys.columns = a.k_dim;
  keys.row_stride = a.key_stride * 2;
  keys.outer_stride = a.key_head_stride * 2;
  values.columns = a.v_dim;
  values.row_stride = a.value_stride * 2;
  values.outer_stride = a.value_head_stride * 2;
  keys.rows = values.rows = a.context_rows;
  keys.outer = values.outer = a.heads;
  if (a.dtype == DType::kF16) return launch<__half, 192>(p, keys, values, a.overlap, stream);
  return launch<__nv_bfloat16, 192>(p, keys, values, a.overlap, stream);
}

}  // namespace spillway::kernels::cuda
