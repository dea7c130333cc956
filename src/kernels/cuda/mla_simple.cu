// mla_simple of mla_decode.h and mla_prefill_simple of mla_prefill.h: a warp a (row, head), as attention_simple.cu.
#include "kernels/cuda/attention_simple.cuh"
#include "kernels/cuda/mla_decode.h"
#include "kernels/cuda/mla_prefill.h"

namespace spillway::kernels::cuda {
namespace {

template <typename T>
__global__ void __launch_bounds__(kSimpleWarps * 32) mla_simple_kernel(const __grid_constant__ LatentAttention a) {
  extern __shared__ float mla_simple_shared[];
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, dim = a.pages.lora_dim + a.pages.rope_dim;
  const int64_t item = int64_t{blockIdx.x} * kSimpleWarps + warp;
  if (item >= int64_t{a.batch.rows} * a.heads) return;
  const int row = static_cast<int>(item / a.heads), head = static_cast<int>(item % a.heads);
  const int sequence = a.batch.row_sequence[row], context = a.batch.positions[row] + 1;
  float* q = mla_simple_shared + warp * dim;
  const T* from = static_cast<const T*>(a.queries) + row * a.query_stride + int64_t{head} * dim;
  for (int d = lane; d < dim; d += 32) q[d] = to_float(from[d]);
  __syncwarp();
  const int32_t* table = a.batch.page_table + int64_t{sequence} * a.batch.pages_max;
  const auto latent_of = [&](int token) {
    const char* page =
        static_cast<const char*>(a.pages.base) + table[token / a.pages.page_tokens] * a.pages.page_stride_bytes;
    return reinterpret_cast<const T*>(page) + int64_t{token % a.pages.page_tokens} * dim;
  };
  SimpleSoftmax<T> state;
  for (int token = 0; token < context; token += 32) {
    const int count = min(32, context - token);
    float score = -INFINITY;
    if (lane < count) score = dot(q, latent_of(token + lane), dim) * a.scale;
    state.add(score, count, a.pages.lora_dim, [&](int i) { return latent_of(token + i); });
  }
  state.write(static_cast<T*>(a.out) + row * a.out_stride + int64_t{head} * a.pages.lora_dim, a.pages.lora_dim);
}

template <typename T>
__global__ void __launch_bounds__(kSimpleWarps * 32) ragged_simple_kernel(const __grid_constant__ RaggedAttention a) {
  extern __shared__ float mla_simple_shared[];
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
  const int64_t item = int64_t{blockIdx.x} * kSimpleWarps + warp;
  if (item >= int64_t{a.batch.rows} * a.heads) return;
  const int row = static_cast<int>(item / a.heads), head = static_cast<int>(item % a.heads);
  const int64_t first = a.context_begin[a.batch.row_sequence[row]];
  const int context = a.batch.positions[row] + 1;
  float* q = mla_simple_shared + warp * a.k_dim;
  const T* from = static_cast<const T*>(a.queries) + row * a.query_stride + int64_t{head} * a.k_dim;
  for (int d = lane; d < a.k_dim; d += 32) q[d] = to_float(from[d]);
  __syncwarp();
  const T* keys = static_cast<const T*>(a.keys) + first * a.key_stride + head * a.key_head_stride;
  const T* values = static_cast<const T*>(a.values) + first * a.value_stride + head * a.value_head_stride;
  SimpleSoftmax<T> state;
  for (int token = 0; token < context; token += 32) {
    const int count = min(32, context - token);
    float score = -INFINITY;
    if (lane < count) score = dot(q, keys + (token + lane) * a.key_stride, a.k_dim) * a.scale;
    state.add(score, count, a.v_dim, [&](int i) { return values + (token + i) * a.value_stride; });
  }
  state.write(static_cast<T*>(a.out) + row * a.out_stride + int64_t{head} * a.v_dim, a.v_dim);
}

template <typename T>
cudaError_t launch(const RaggedAttention& args, cudaStream_t stream) {
  const int64_t items = int64_t{args.batch.rows} * args.heads;
  const size_t shared = size_t{kSimpleWarps} * args.k_dim * 4;
  ragged_simple_kernel<T>
      <<<static_cast<unsigned>((items + kSimpleWarps - 1) / kSimpleWarps), kSimpleWarps * 32, shared, stream>>>(args);
  return cudaGetLastError();
}

template <typename T>
cudaError_t launch(const LatentAttention& args, cudaStream_t stream) {
  const int64_t items = int64_t{args.batch.rows} * args.heads;
  const size_t shared = size_t{kSimpleWarps} * (args.pages.lora_dim + args.pages.rope_dim) * 4;
  mla_simple_kernel<T>
      <<<static_cast<unsigned>((items + kSimpleWarps - 1) / kSimpleWarps), kSimpleWarps * 32, shared, stream>>>(args);
  return cudaGetLastError();
}

template <typename Args>
cudaError_t by_type(tensor::DType dtype, const Args& args, cudaStream_t stream) {
  switch (dtype) {
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

}  // namespace

cudaError_t mla_simple(const LatentAttention& args, cudaStream_t stream) {
  if (args.batch.rows == 0) return cudaSuccess;
  if (args.pages.lora_dim > kSimpleDimMax) return cudaErrorInvalidValue;
  return by_type(args.pages.dtype, args, stream);
}

cudaError_t mla_prefill_simple(const RaggedAttention& args, cudaStream_t stream) {
  if (args.batch.rows == 0) return cudaSuccess;
  if (args.v_dim > kSimpleDimMax) return cudaErrorInvalidValue;
  return by_type(args.dtype, args, stream);
}

}  // namespace spillway::kernels::cuda
