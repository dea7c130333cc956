// The small kernels of mla_prefill.h: latents to pages and back, rotation of queries. Bound by the bytes they move.
#include "kernels/cuda/attention_ptx.cuh"
#include "kernels/cuda/mla_prefill.h"

namespace spillway::kernels::cuda {
namespace {

using tensor::DType;

// The pair (2i, 2i + 1) rotated at a position.
template <typename T>
__device__ __forceinline__ void rotate(const T* from, T* to, int i, const float* cos_sin, int dim) {
  const float x = to_float(from[2 * i]), y = to_float(from[2 * i + 1]), c = cos_sin[i], s = cos_sin[dim / 2 + i];
  to[2 * i] = from_float<T>(x * c - y * s);
  to[2 * i + 1] = from_float<T>(x * s + y * c);
}

template <typename T>
__device__ __forceinline__ T* latent_at(const LatentPages& pages, const Batch& batch, int sequence, int position) {
  const int page = batch.page_table[int64_t{sequence} * batch.pages_max + position / pages.page_tokens];
  return reinterpret_cast<T*>(static_cast<char*>(pages.base) + page * pages.page_stride_bytes) +
         int64_t{position % pages.page_tokens} * (pages.lora_dim + pages.rope_dim);
}

// A block a row.
template <typename T>
__global__ void __launch_bounds__(128) write_kernel(const __grid_constant__ LatentWrite a) {
  wait_for_previous_kernel();
  const int row = static_cast<int>(blockIdx.x), position = a.batch.positions[row];
  T* to = latent_at<T>(a.pages, a.batch, a.batch.row_sequence[row], position);
  const T* latent = static_cast<const T*>(a.latents) + row * a.latent_stride;
  const T* rope = static_cast<const T*>(a.rope_keys) + row * a.rope_stride;
  for (int i = static_cast<int>(threadIdx.x); i < a.pages.lora_dim; i += 128) to[i] = latent[i];
  to += a.pages.lora_dim;
  const int dim = a.pages.rope_dim;
  for (int i = static_cast<int>(threadIdx.x); i < dim / 2; i += 128) {
    if (a.cos_sin != nullptr) {
      rotate(rope, to, i, a.cos_sin + int64_t{position} * dim, dim);
    } else {
      to[2 * i] = rope[2 * i];
      to[2 * i + 1] = rope[2 * i + 1];
    }
  }
}

template <typename T>
__global__ void __launch_bounds__(256) rope_kernel(const __grid_constant__ RopeQueries a) {
  wait_for_previous_kernel();
  const int row = static_cast<int>(blockIdx.x), half = a.rope_dim / 2;
  const float* cos_sin = a.cos_sin + int64_t{a.batch.positions[row]} * a.rope_dim;
  T* data = static_cast<T*>(a.data) + row * a.stride;
  for (int i = static_cast<int>(threadIdx.x); i < a.heads * half; i += 256) {
    T* head = data + i / half * a.head_stride;
    rotate(head, head, i % half, cos_sin, a.rope_dim);
  }
}

// Blocks (tokens of a sequence, 8 each; sequence): a warp a token.
template <typename T>
__global__ void __launch_bounds__(256) read_kernel(const __grid_constant__ LatentRead a) {
  wait_for_previous_kernel();
  const int sequence = static_cast<int>(blockIdx.y), lane = threadIdx.x & 31;
  const int begin = a.context_begin[sequence], tokens = a.context_begin[sequence + 1] - begin;
  for (int i = static_cast<int>(blockIdx.x) * 8 + static_cast<int>(threadIdx.x >> 5); i < tokens; i += 8 * gridDim.x) {
    if (begin + i >= a.context_rows) return;
    const T* from = latent_at<T>(a.pages, a.batch, sequence, i);
    T* latent = static_cast<T*>(a.latents) + (begin + i) * a.latent_stride;
    T* rope = static_cast<T*>(a.rope_keys) + (begin + i) * a.rope_stride;
    for (int d = lane; d < a.pages.lora_dim; d += 32) latent[d] = from[d];
    for (int d = lane; d < a.pages.rope_dim; d += 32) rope[d] = from[a.pages.lora_dim + d];
  }
}

// Calls launch with a value of the element type.
template <typename Launch>
cudaError_t by_type(DType dtype, Launch launch) {
  switch (dtype) {
    case DType::kBF16:
      launch(__nv_bfloat16{});
      break;
    case DType::kF16:
      launch(__half{});
      break;
    case DType::kF32:
      launch(float{});
      break;
    default:
      return cudaErrorInvalidValue;
  }
  return cudaGetLastError();
}

}  // namespace

cudaError_t mla_write(const LatentWrite& args, cudaStream_t stream) {
  if (args.batch.rows == 0) return cudaSuccess;
  return by_type(args.pages.dtype, [&](auto type) {
    write_kernel<decltype(type)><<<static_cast<unsigned>(args.batch.rows), 128, 0, stream>>>(args);
  });
}

cudaError_t mla_rope(const RopeQueries& args, cudaStream_t stream) {
  if (args.batch.rows == 0) return cudaSuccess;
  if (args.cos_sin == nullptr) return cudaErrorInvalidValue;
  return by_type(args.dtype, [&](auto type) {
    rope_kernel<decltype(type)><<<static_cast<unsigned>(args.batch.rows), 256, 0, stream>>>(args);
  });
}

cudaError_t mla_read(const LatentRead& args, cudaStream_t stream) {
  if (args.batch.sequences == 0) return cudaSuccess;
  const dim3 grid(static_cast<unsigned>((args.batch.context_max + 63) / 64),
                  static_cast<unsigned>(args.batch.sequences));
  return by_type(args.pages.dtype, [&](auto type) { read_kernel<decltype(type)><<<grid, 256, 0, stream>>>(args); });
}

}  // namespace spillway::kernels::cuda
