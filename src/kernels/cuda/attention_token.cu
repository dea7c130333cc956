// token_attention of attention_token.h: which variant, how many clusters.
#include <algorithm>

#include "kernels/cuda/attention_decode_launch.cuh"
#include "kernels/cuda/attention_token.cuh"

namespace spillway::kernels::cuda {
namespace {

using tensor::DType;

constexpr int kCluster = 8, kRows = 16;
constexpr int kSequencesSmall = 256;  // whose groups of more than 16 heads fit into 99 KiB in two stages

int units_of(const TokenAttention& a) { return a.batch.sequences * a.pages.kv_heads; }
int group_of(const TokenAttention& a) { return a.heads / a.pages.kv_heads; }

// Few: a cluster for each unit; more share out the blocks as any decode step does.
bool few_units(const TokenAttention& a) {
  return compute_capability() == 90 && group_of(a) <= kRows && units_of(a) * kCluster <= processor_count();
}

// Clusters that a unit may have, so that all blocks run at once.
int parts_max(const TokenAttention& a) { return std::max(processor_count() / (units_of(a) * kCluster), 1); }

template <typename T, int kDim>
cudaError_t launch(const TokenAttention& a, cudaStream_t stream) {
  using Block = TokenBlock<T, kDim>;
  static_assert(Block::kCluster == kCluster && Block::kRows == kRows);
  TokenParams p;
  p.a = a;
  p.group = a.heads / a.pages.kv_heads;
  p.scale_log2e = a.scale * kLog2e;
  p.values_bytes = a.pages.values_offset() * 2;
  p.parts_max = parts_max(a);
  const int clusters = units_of(a) * p.parts_max;
  char* at = static_cast<char*>(a.workspace);
  p.counters = reinterpret_cast<int*>(at);
  at += counter_bytes(a.batch.sequences, a.pages.kv_heads);
  p.partial_sums = reinterpret_cast<float*>(at);
  p.partials = reinterpret_cast<float*>(at + round_up_256(size_t(clusters) * kRows * 8));
  const auto kernel = token_attention_kernel<T, kDim>;
  const cudaError_t error = allow_shared(kernel, int(sizeof(typename Block::Shared)));
  if (error != cudaSuccess) return error;
  return launch_kernel(kernel, dim3(unsigned(clusters * kCluster)), Block::kThreads, sizeof(typename Block::Shared),
                       stream, true, kCluster, p);
}

template <typename T, int kDim>
cudaError_t launch_many(const TokenAttention& a, cudaStream_t stream) {
  PagedAttention paged;
  paged.queries = a.qkv, paged.query_stride = a.qkv_stride;
  paged.out = a.out, paged.out_stride = a.out_stride;
  paged.heads = a.heads, paged.scale = a.scale;
  paged.pages = a.pages, paged.batch = a.batch;
  paged.workspace = a.workspace, paged.overlap = true;
  paged.starts_next = a.starts_next;
  const FreshToken fresh{a.bias, a.query_norm, a.key_norm, a.norm_eps, a.cos_sin};
  constexpr int kStages = kDim == 64 ? 6 : 3;  // as attention_decode
  if (group_of(a) <= 16) return launch_fresh_decode<T, kDim, 1, 4, kStages>(paged, fresh, stream);
  return launch_fresh_decode<T, kDim, 2, 4, kStages>(paged, fresh, stream);
}

template <typename T, int kDim>
cudaError_t by_units(const TokenAttention& a, cudaStream_t stream) {
  return few_units(a) ? launch<T, kDim>(a, stream) : launch_many<T, kDim>(a, stream);
}
template <typename T>
cudaError_t by_dim(const TokenAttention& a, cudaStream_t stream) {
  return a.pages.dim == 64 ? by_units<T, 64>(a, stream) : by_units<T, 128>(a, stream);
}

}  // namespace

bool token_attention_takes(const TokenAttention& a) {
  const bool half = a.pages.dtype == DType::kBF16 || a.pages.dtype == DType::kF16;
  return compute_capability() >= 80 && half && (a.pages.dim == 64 || a.pages.dim == 128) &&
         a.pages.page_tokens % 16 == 0 && group_of(a) <= 2 * kRows && a.batch.rows_max == 1 &&
         a.batch.rows == a.batch.sequences &&
         (group_of(a) <= kRows || a.batch.sequences <= kSequencesSmall || shared_bytes_max() >= 160 << 10);
}

size_t token_attention_workspace_bytes(const TokenAttention& a) {
  if (!few_units(a)) {
    return attention_workspace_bytes(a.heads, a.pages.kv_heads, a.pages.dim, a.batch.sequences, 1, a.batch.context_max,
                                     0);
  }
  const size_t rows = size_t(units_of(a) * parts_max(a)) * kRows;
  return counter_bytes(a.batch.sequences, a.pages.kv_heads) + round_up_256(rows * 8) + rows * size_t(a.pages.dim) * 4;
}

cudaError_t launch_token_attention(const TokenAttention& a, cudaStream_t stream) {
  if (!token_attention_takes(a)) return cudaErrorInvalidValue;
  if (a.batch.sequences == 0) return cudaSuccess;
  return a.pages.dtype == DType::kBF16 ? by_dim<__nv_bfloat16>(a, stream) : by_dim<__half>(a, stream);
}

}  // namespace spillway::kernels::cuda
