// The rows around attention: norm and rope of heads, and the writing of pages. A warp a head: reads and writes it once.
#include "kernels/cuda/layers.h"
#include "kernels/cuda/rows.cuh"

namespace spillway::kernels::cuda {
namespace {

constexpr int kWarps = 4;

__device__ float warp_sum(float value) {
  for (int offset = 16; offset > 0; offset /= 2) value += __shfl_xor_sync(0xffffffffu, value, offset);
  return value;
}

// Rotates `dim` elements at `head`, scaled by norm first where there is one; the warp's lanes take pairs.
template <class T>
__device__ void rotate(T* head, int dim, bool halves, const float* angles, const float* norm, float scale, T* copy) {
  const int half = dim / 2;
  for (int i = threadIdx.x % 32; i < half; i += 32) {
    const int first = halves ? i : 2 * i, second = halves ? i + half : 2 * i + 1;
    float a = to_float(head[first]), b = to_float(head[second]);
    if (norm != nullptr) {
      a *= scale * norm[first];
      b *= scale * norm[second];
    }
    const float cos = angles[i], sin = angles[half + i];
    head[first] = from_float<T>(a * cos - b * sin);
    head[second] = from_float<T>(b * cos + a * sin);
    if (copy != nullptr) {
      copy[first] = head[first];
      copy[second] = head[second];
    }
  }
}

template <class T>
__global__ void store_rows(T* qkv, int64_t row_stride, int heads, const float* query_norm, const float* key_norm,
                           float eps, const float* cos_sin, KvPages pages, Batch batch) {
  take_turn();
  const int row = blockIdx.x, head = blockIdx.y * kWarps + threadIdx.x / 32, lane = threadIdx.x % 32;
  const int kv_heads = pages.kv_heads, dim = pages.dim;
  if (head >= heads + 2 * kv_heads) return;
  T* values = qkv + row * row_stride + int64_t{head} * dim;
  const int position = batch.positions[row];
  const int page = batch.page_table[int64_t{batch.row_sequence[row]} * batch.pages_max + position / pages.page_tokens];
  T* base = reinterpret_cast<T*>(static_cast<char*>(pages.base) + page * pages.page_stride_bytes);
  const int slot = position % pages.page_tokens;
  if (head >= heads + kv_heads) {
    T* to = base + int64_t{kv_heads} * pages.page_tokens * dim + (int64_t{head - heads - kv_heads} * pages.page_tokens + slot) * dim;
    for (int i = lane; i < dim; i += 32) to[i] = values[i];
    return;
  }
  const bool is_key = head >= heads;
  const float* norm = is_key ? key_norm : query_norm;
  float scale = 1;
  if (norm != nullptr) {
    float sum = 0;
    for (int i = lane; i < dim; i += 32) sum += to_float(values[i]) * to_float(values[i]);
    scale = 1.0f / sqrtf(warp_sum(sum) / dim + eps);
  }
  T* copy = is_key ? base + (int64_t{head - heads} * pages.page_tokens + slot) * dim : nullptr;
  rotate(values, dim, true, cos_sin + int64_t{position} * dim, norm, scale, copy);
}

template <class T>
__global__ void rotate_kernel(RotateRows args) {
  take_turn();
  const int64_t row = blockIdx.x;
  const int head = blockIdx.y * kWarps + threadIdx.x / 32;
  if (head >= args.heads) return;
  T* x = static_cast<T*>(args.x) + row * args.row_stride + head * args.head_stride;
  rotate<T>(x, args.dim, args.pairs == RopePairs::kHalves, args.cos_sin + int64_t{args.positions[row]} * args.dim,
            nullptr, 1, nullptr);
}

template <class T>
__global__ void store_latent_rows(const T* rows, int64_t stride, LatentPages pages, Batch batch) {
  take_turn();
  const int row = blockIdx.x, width = pages.lora_dim + pages.rope_dim, position = batch.positions[row];
  const int page = batch.page_table[int64_t{batch.row_sequence[row]} * batch.pages_max + position / pages.page_tokens];
  T* to = reinterpret_cast<T*>(static_cast<char*>(pages.base) + page * pages.page_stride_bytes) +
          int64_t{position % pages.page_tokens} * width;
  for (int i = threadIdx.x; i < width; i += blockDim.x) to[i] = rows[row * stride + i];
}

template <class T>
__global__ void join_rows(const T* queries, int64_t query_dim, int64_t nope, T* joined, int64_t lora, int64_t rope) {
  take_turn();
  const int64_t head = blockIdx.x;  // of all rows
  for (int64_t i = threadIdx.x; i < rope; i += blockDim.x) {
    joined[head * (lora + rope) + lora + i] = queries[head * query_dim + nope + i];
  }
}

unsigned head_blocks(int heads) { return unsigned((heads + kWarps - 1) / kWarps); }

}  // namespace

void store_keys_values(const GroupedAttentionArgs& args, const Batch& batch, tensor::Stream& stream) {
  const KvPages pages{args.pages.base,        args.pages.page_stride_bytes, args.pages.dtype,
                      args.pages.page_tokens, args.pages.kv_heads,          args.pages.k_dim};
  const float* query_norm = args.query_norm.empty() ? nullptr : args.query_norm.as<float>();
  const float* key_norm = args.key_norm.empty() ? nullptr : args.key_norm.as<float>();
  by_type(args.qkv.dtype, [&](auto type) {
    using T = decltype(type);
    const dim3 grid(unsigned(batch.rows), head_blocks(args.heads + 2 * pages.kv_heads));
    launch_row_kernel("store_rows", store_rows<T>, grid, 32 * kWarps, 0, stream, args.qkv.raw<T>(), args.qkv.shape[1],
                      args.heads, query_norm, key_norm, args.norm_epsilon, args.cos_sin.as<float>(), pages, batch);
  });
}

void rotate_rows(const RotateRows& args, tensor::Stream& stream) {
  if (args.rows == 0) return;
  by_type(args.dtype, [&](auto type) {
    launch_row_kernel("rotate_kernel", rotate_kernel<decltype(type)>, dim3(unsigned(args.rows), head_blocks(args.heads)),
                      32 * kWarps, 0, stream, args);
  });
}

void store_latents(const void* rows, int64_t stride, const LatentPages& pages, const Batch& batch,
                   tensor::Stream& stream) {
  by_type(pages.dtype, [&](auto type) {
    using T = decltype(type);
    launch_row_kernel("store_latent_rows", store_latent_rows<T>, unsigned(batch.rows), 128, 0, stream,
                      static_cast<const T*>(rows), stride, pages, batch);
  });
}

void join_rope(const void* queries, int64_t query_dim, int64_t nope, void* joined, int64_t lora, int64_t rope, int heads,
               int64_t rows, tensor::DType dtype, tensor::Stream& stream) {
  by_type(dtype, [&](auto type) {
    using T = decltype(type);
    launch_row_kernel("join_rows", join_rows<T>, unsigned(rows * heads), 64, 0, stream, static_cast<const T*>(queries),
                      query_dim, nope, static_cast<T*>(joined), lora, rope);
  });
}

}  // namespace spillway::kernels::cuda
