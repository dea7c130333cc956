// attention_simple of attention_paged.h: a warp a (row, query head), tokens in rising order 32 at a time: a lane scores
// a token, then the warp sums the values' columns.
#include <algorithm>

#include "kernels/cuda/attention_paged.h"
#include "kernels/cuda/attention_simple.cuh"

namespace spillway::kernels::cuda {
namespace {

template <typename T>
__global__ void __launch_bounds__(kSimpleWarps * 32) attention_simple_kernel(const __grid_constant__ PagedAttention a) {
  extern __shared__ float simple_shared[];
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, dim = a.pages.dim;
  const int64_t item = int64_t{blockIdx.x} * kSimpleWarps + warp;
  if (item >= int64_t{a.batch.rows} * a.heads) return;
  const int row = static_cast<int>(item / a.heads), head = static_cast<int>(item % a.heads);
  const int sequence = a.batch.row_sequence[row], context = a.batch.positions[row] + 1;
  const int kv_head = head / (a.heads / a.pages.kv_heads);
  float* q = simple_shared + warp * dim;
  const T* from = static_cast<const T*>(a.queries) + row * a.query_stride + int64_t{head} * dim;
  for (int d = lane; d < dim; d += 32) q[d] = to_float(from[d]);
  __syncwarp();
  const int32_t* table = a.batch.page_table + int64_t{sequence} * a.batch.pages_max;
  const auto key_of = [&](int token) {
    const char* page =
        static_cast<const char*>(a.pages.base) + table[token / a.pages.page_tokens] * a.pages.page_stride_bytes;
    return reinterpret_cast<const T*>(page) +
           (int64_t{kv_head} * a.pages.page_tokens + token % a.pages.page_tokens) * dim;
  };
  SimpleSoftmax<T> state;
  const int64_t values = int64_t{a.pages.kv_heads} * a.pages.page_tokens * dim;
  for (int token = 0; token < context; token += 32) {
    const int count = min(32, context - token);
    float score = -INFINITY;
    if (lane < count) score = dot(q, key_of(token + lane), dim) * a.scale;
    state.add(score, count, dim, [&](int i) { return key_of(token + i) + values; });
  }
  state.write(static_cast<T*>(a.out) + row * a.out_stride + int64_t{head} * dim, dim);
}

template <typename T>
cudaError_t launch(const PagedAttention& args, cudaStream_t stream) {
  const int64_t items = int64_t{args.batch.rows} * args.heads;
  const size_t shared = size_t{kSimpleWarps} * args.pages.dim * 4;
  attention_simple_kernel<T>
      <<<static_cast<unsigned>((items + kSimpleWarps - 1) / kSimpleWarps), kSimpleWarps * 32, shared, stream>>>(args);
  return cudaGetLastError();
}

}  // namespace

cudaError_t attention_simple(const PagedAttention& args, cudaStream_t stream) {
  if (args.batch.rows == 0) return cudaSuccess;
  if (args.pages.dim > kSimpleDimMax) return cudaErrorInvalidValue;
  switch (args.pages.dtype) {
    case tensor::DType::kF32:
      return launch<float>(args, stream);
    case tensor::DType::kF16:
      return launch<__half>(args, stream);
    case tensor::DType::kBF16:
      return launch<__nv_bfloat16>(args, stream);
    default:
      return cudaErrorInvalidValue;
  }
}

}  // namespace spillway::kernels::cuda
