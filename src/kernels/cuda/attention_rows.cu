// The rows around attention: norm and rope of heads, and the writing of pages. A warp a head: reads and writes it once.
#include "kernels/cuda/layers.h"
#include "kernels/cuda/product_calls.h"
#include "kernels/cuda/rows.cuh"

namespace spillway::kernels::cuda {
namespace {

constexpr int kWarps = 4;

__device__ float warp_sum(float value) {
  for (int offset = 16; offset > 0; offset /= 2) value += __shfl_xor_sync(0xffffffffu, value, offset);
  return value;
}

template <class T>
struct alignas(2 * sizeof(T)) Two {
  T a, b;
};

// Rotates `dim` elements (a multiple of 4) at `head`, after the bias and the norm where there are any; the warp's lanes
// take two neighbouring pairs each.
template <class T>
__device__ void rotate(T* head, int dim, const float* angles, const float* bias, const float* norm, float scale,
                       T* copy) {
  const int half = dim / 2;
  for (int i = threadIdx.x % 32 * 2; i < half; i += 64) {
    const Two<T> low = *reinterpret_cast<const Two<T>*>(head + i);
    const Two<T> high = *reinterpret_cast<const Two<T>*>(head + half + i);
    const float2 cos = *reinterpret_cast<const float2*>(angles + i);
    const float2 sin = *reinterpret_cast<const float2*>(angles + half + i);
    float x[2] = {to_float(low.a), to_float(low.b)}, y[2] = {to_float(high.a), to_float(high.b)};
#pragma unroll
    for (int e = 0; e < 2; ++e) {
      if (bias != nullptr) x[e] += bias[i + e], y[e] += bias[half + i + e];
      if (norm != nullptr) x[e] *= scale * norm[i + e], y[e] *= scale * norm[half + i + e];
    }
    const Two<T> first = {from_float<T>(x[0] * cos.x - y[0] * sin.x), from_float<T>(x[1] * cos.y - y[1] * sin.y)};
    const Two<T> second = {from_float<T>(y[0] * cos.x + x[0] * sin.x), from_float<T>(y[1] * cos.y + x[1] * sin.y)};
    *reinterpret_cast<Two<T>*>(head + i) = first;
    *reinterpret_cast<Two<T>*>(head + half + i) = second;
    if (copy != nullptr) {
      *reinterpret_cast<Two<T>*>(copy + i) = first;
      *reinterpret_cast<Two<T>*>(copy + half + i) = second;
    }
  }
}

template <class T>
__global__ void store_rows(T* qkv, int64_t row_stride, const float* qkv_bias, int heads, const float* query_norm,
                           const float* key_norm, float eps, const float* cos_sin, KvPages pages, Batch batch) {
  take_turn();
  ptx::launch_dependents();  // attention, which reads older pages meanwhile
  const int row = blockIdx.x, head = blockIdx.y * kWarps + threadIdx.x / 32, lane = threadIdx.x % 32;
  const int kv_heads = pages.kv_heads, dim = pages.dim;
  if (head >= heads + 2 * kv_heads) return;
  T* values = qkv + row * row_stride + int64_t{head} * dim;
  const float* bias = qkv_bias != nullptr ? qkv_bias + int64_t{head} * dim : nullptr;
  const int position = batch.positions[row];
  const int page = batch.page_table[int64_t{batch.row_sequence[row]} * batch.pages_max + position / pages.page_tokens];
  T* base = reinterpret_cast<T*>(static_cast<char*>(pages.base) + page * pages.page_stride_bytes);
  const int slot = position % pages.page_tokens;
  if (head >= heads + kv_heads) {
    T* to = base + int64_t{kv_heads} * pages.page_tokens * dim +
            (int64_t{head - heads - kv_heads} * pages.page_tokens + slot) * dim;
    for (int i = 2 * lane; i < dim; i += 64) {
      Two<T> v = *reinterpret_cast<const Two<T>*>(values + i);
      if (bias != nullptr) v = {from_float<T>(to_float(v.a) + bias[i]), from_float<T>(to_float(v.b) + bias[i + 1])};
      *reinterpret_cast<Two<T>*>(to + i) = v;
    }
    return;
  }
  const bool is_key = head >= heads;
  const float* norm = is_key ? key_norm : query_norm;
  float scale = 1;
  if (norm != nullptr) {
    float sum = 0;
    for (int i = lane; i < dim; i += 32) {
      const float value = to_float(values[i]) + (bias != nullptr ? bias[i] : 0.0f);
      sum += value * value;
    }
    scale = 1.0f / sqrtf(warp_sum(sum) / dim + eps);
  }
  T* copy = is_key ? base + (int64_t{head - heads} * pages.page_tokens + slot) * dim : nullptr;
  rotate(values, dim, cos_sin + int64_t{position} * dim, bias, norm, scale, copy);
}

// store_rows of many rows with heads of up to 128: a block a row, whose warps load several heads at once, where a warp
// a head waits for one chain of loads after the other. The sum of a norm has
// another order.
constexpr int kTogether = 3;
constexpr int kPromptRows = 256;  // so many pay

template <class T>
struct HeadPart {  // a lane's two neighbouring pairs
  float low[2], high[2];

  __device__ __forceinline__ void load(const T* head, int i, int half) {
    const Two<T> a = *reinterpret_cast<const Two<T>*>(head + i), b = *reinterpret_cast<const Two<T>*>(head + half + i);
    low[0] = to_float(a.a), low[1] = to_float(a.b), high[0] = to_float(b.a), high[1] = to_float(b.b);
  }
  __device__ __forceinline__ void add(const float* bias, int i, int half) {
    const float2 a = *reinterpret_cast<const float2*>(bias + i), b = *reinterpret_cast<const float2*>(bias + half + i);
    low[0] += a.x, low[1] += a.y, high[0] += b.x, high[1] += b.y;
  }
  __device__ __forceinline__ void multiply(const float* norm, float scale, int i, int half) {
#pragma unroll
    for (int e = 0; e < 2; ++e) low[e] *= scale * norm[i + e], high[e] *= scale * norm[half + i + e];
  }
  __device__ __forceinline__ void rotate(float2 cos, float2 sin) {
    const float c[2] = {cos.x, cos.y}, s[2] = {sin.x, sin.y};
#pragma unroll
    for (int e = 0; e < 2; ++e) {
      const float x = low[e], y = high[e];
      low[e] = x * c[e] - y * s[e];
      high[e] = y * c[e] + x * s[e];
    }
  }
  __device__ __forceinline__ void store(T* head, int i, int half) const {
    *reinterpret_cast<Two<T>*>(head + i) = {from_float<T>(low[0]), from_float<T>(low[1])};
    *reinterpret_cast<Two<T>*>(head + half + i) = {from_float<T>(high[0]), from_float<T>(high[1])};
  }
};

template <class T>
__global__ void __launch_bounds__(32 * kWarps)
    store_prompt_rows(T* qkv, int64_t row_stride, const float* qkv_bias, int heads, const float* query_norm,
                      const float* key_norm, float eps, const float* cos_sin, KvPages pages, Batch batch) {
  take_turn();
  const int row = blockIdx.x, warp = threadIdx.x / 32, dim = pages.dim, half = dim / 2;
  const int i = static_cast<int>(threadIdx.x) % 32 * 2, kv_heads = pages.kv_heads, all = heads + 2 * kv_heads;
  const bool in = i < half;
  const int position = batch.positions[row];
  const int page = batch.page_table[int64_t{batch.row_sequence[row]} * batch.pages_max + position / pages.page_tokens];
  T* to = reinterpret_cast<T*>(static_cast<char*>(pages.base) + page * pages.page_stride_bytes) +
          int64_t{position % pages.page_tokens} * dim;
  T* values = qkv + row * row_stride;
  float2 cos = {}, sin = {};
  if (in) {
    cos = *reinterpret_cast<const float2*>(cos_sin + int64_t{position} * dim + i);
    sin = *reinterpret_cast<const float2*>(cos_sin + int64_t{position} * dim + half + i);
  }
  for (int first = warp; first < all; first += kWarps * kTogether) {
    HeadPart<T> part[kTogether] = {};
#pragma unroll
    for (int j = 0; j < kTogether; ++j) {
      const int head = first + j * kWarps;
      if (in && head < all) part[j].load(values + int64_t{head} * dim, i, half);
    }
#pragma unroll
    for (int j = 0; j < kTogether; ++j) {
      const int head = first + j * kWarps;
      if (head >= all) break;  // the whole warp
      if (in && qkv_bias != nullptr) part[j].add(qkv_bias + int64_t{head} * dim, i, half);
      const float* norm = head < heads ? query_norm : head < heads + kv_heads ? key_norm : nullptr;
      if (norm != nullptr) {
        float sum = 0;
#pragma unroll
        for (int e = 0; e < 2; ++e) sum += part[j].low[e] * part[j].low[e] + part[j].high[e] * part[j].high[e];
        const float scale = 1.0f / sqrtf(warp_sum(sum) / dim + eps);
        if (in) part[j].multiply(norm, scale, i, half);
      }
      if (!in) continue;
      if (head < heads + kv_heads) {
        part[j].rotate(cos, sin);
        part[j].store(values + int64_t{head} * dim, i, half);
      }
      if (head >= heads) part[j].store(to + int64_t{head - heads} * pages.page_tokens * dim, i, half);
    }
  }
}

struct LatentRows {
  const void* down;  // [T, q_lora + kv_lora + rope]
  void* low;         // [T, q_lora]
  const float *query_norm, *kv_norm, *cos_sin;
  int q_lora;
  float eps;
  bool halves;
  bool starts_next;  // a product that has every multiprocessor to itself: its weight arrives meanwhile
};

// A block a row: 1,536 + 512 + 64 elements of R1. Read once, all of it at once: the time is one chain of a load, a sum
// and a store.
constexpr int kLatentThreads = 512, kLatentEach = 4;

template <class T>
__global__ void __launch_bounds__(kLatentThreads) store_latent_rows(LatentRows args, LatentPages pages, Batch batch) {
  __shared__ float partial[2][kLatentThreads / 32];
  const int row = blockIdx.x, thread = threadIdx.x, lora = pages.lora_dim, rope = pages.rope_dim;
  if (args.starts_next) ptx::launch_dependents();
  // Lengths, pages and norms do not depend on the kernel in front.
  const int position = batch.positions[row];
  const int page = batch.page_table[int64_t{batch.row_sequence[row]} * batch.pages_max + position / pages.page_tokens];
  const float* angles = args.cos_sin + int64_t{position} * rope;
  const bool kept = args.q_lora <= kLatentEach * kLatentThreads && lora <= kLatentEach * kLatentThreads;
  float query_norm[kLatentEach] = {}, value_norm[kLatentEach] = {};
#pragma unroll
  for (int i = 0; i < kLatentEach; ++i) {
    const int at = i * kLatentThreads + thread;
    if (kept && at < args.q_lora) query_norm[i] = args.query_norm[at];
    if (kept && at < lora) value_norm[i] = args.kv_norm[at];
  }
  const float cos = thread < rope / 2 ? angles[thread] : 0, sin = thread < rope / 2 ? angles[rope / 2 + thread] : 0;
  take_turn();
  T* to = reinterpret_cast<T*>(static_cast<char*>(pages.base) + page * pages.page_stride_bytes) +
          int64_t{position % pages.page_tokens} * (lora + rope);
  const T* from = static_cast<const T*>(args.down) + int64_t{row} * (args.q_lora + lora + rope);
  const T *latent = from + args.q_lora, *key = latent + lora;
  T* low = static_cast<T*>(args.low) + int64_t{row} * args.q_lora;
  float query[kLatentEach], value[kLatentEach], query_sum = 0, value_sum = 0;
  if (kept) {
#pragma unroll
    for (int i = 0; i < kLatentEach; ++i) {
      const int at = i * kLatentThreads + thread;
      query[i] = at < args.q_lora ? to_float(from[at]) : 0;
      value[i] = at < lora ? to_float(latent[at]) : 0;
      query_sum += query[i] * query[i];
      value_sum += value[i] * value[i];
    }
  } else {
    for (int i = thread; i < args.q_lora; i += kLatentThreads) query_sum += to_float(from[i]) * to_float(from[i]);
    for (int i = thread; i < lora; i += kLatentThreads) value_sum += to_float(latent[i]) * to_float(latent[i]);
  }
  query_sum = warp_sum(query_sum), value_sum = warp_sum(value_sum);
  if (thread % 32 == 0) partial[0][thread / 32] = query_sum, partial[1][thread / 32] = value_sum;
  if (thread < rope / 2) rotate_pair(key, to + lora, thread, rope / 2, args.halves, cos, sin);
  for (int i = thread + kLatentThreads; i < rope / 2; i += kLatentThreads)
    rotate_pair(key, to + lora, i, rope / 2, args.halves, angles);
  __syncthreads();
  query_sum = value_sum = 0;
  for (int w = 0; w < kLatentThreads / 32; ++w) query_sum += partial[0][w], value_sum += partial[1][w];
  const float query_scale = args.q_lora > 0 ? 1.0f / sqrtf(query_sum / args.q_lora + args.eps) : 0;
  const float value_scale = 1.0f / sqrtf(value_sum / lora + args.eps);
  if (kept) {
#pragma unroll
    for (int i = 0; i < kLatentEach; ++i) {
      const int at = i * kLatentThreads + thread;
      if (at < args.q_lora) low[at] = from_float<T>(query[i] * query_scale * query_norm[i]);
      if (at < lora) to[at] = from_float<T>(value[i] * value_scale * value_norm[i]);
    }
    return;
  }
  for (int i = thread; i < args.q_lora; i += kLatentThreads)
    low[i] = from_float<T>(to_float(from[i]) * query_scale * args.query_norm[i]);
  for (int i = thread; i < lora; i += kLatentThreads)
    to[i] = from_float<T>(to_float(latent[i]) * value_scale * args.kv_norm[i]);
}

// A warp kHeads heads of a row, all of which are under way at once.
template <class T, int kHeads>
__global__ void __launch_bounds__(32 * kWarps) join_rows(JoinRope args) {
  take_turn();
  ptx::launch_dependents();  // attention, whose blocks have a multiprocessor each, plans its work meanwhile
  const int64_t head = (int64_t{blockIdx.x} * kWarps + threadIdx.x / 32) * kHeads;
  if (head >= args.rows * args.heads) return;
  const int half = args.rope / 2, to_head = args.lora + args.rope;
  const bool halves = args.pairs == RopePairs::kHalves;
  const T* from = static_cast<const T*>(args.queries) + head * args.query_dim + args.nope;
  T* to = static_cast<T*>(args.joined) + head * to_head + args.lora;
  const float* angles = args.cos_sin + int64_t{args.positions[head / args.heads]} * args.rope;
  for (int i = threadIdx.x % 32; i < half; i += 32) {
    const int first = halves ? i : 2 * i, second = halves ? i + half : 2 * i + 1;
    const float cos = angles[i], sin = angles[half + i];
    float a[kHeads], b[kHeads];
#pragma unroll
    for (int h = 0; h < kHeads; ++h) {
      a[h] = to_float(from[h * args.query_dim + first]), b[h] = to_float(from[h * args.query_dim + second]);
    }
#pragma unroll
    for (int h = 0; h < kHeads; ++h) {
      to[h * to_head + first] = from_float<T>(a[h] * cos - b[h] * sin);
      to[h * to_head + second] = from_float<T>(b[h] * cos + a[h] * sin);
    }
  }
}

constexpr int kJoinHeads = 4, kJoinMany = 8192;  // so many heads fill the chip four times over

unsigned head_blocks(int heads) { return unsigned((heads + kWarps - 1) / kWarps); }

}  // namespace

void store_keys_values(const GroupedAttentionArgs& args, const Batch& batch, tensor::Stream& stream) {
  const KvPages pages{args.pages.base,        args.pages.page_stride_bytes, args.pages.dtype,
                      args.pages.page_tokens, args.pages.kv_heads,          args.pages.k_dim};
  const float* query_norm = args.query_norm.empty() ? nullptr : args.query_norm.as<float>();
  const float* key_norm = args.key_norm.empty() ? nullptr : args.key_norm.as<float>();
  const float* bias = args.qkv_bias.empty() ? nullptr : args.qkv_bias.as<float>();
  by_type(args.qkv.dtype, [&](auto type) {
    using T = decltype(type);
    if (batch.rows >= kPromptRows && pages.dim <= 128 && !stream.batch_invariant()) {
      return launch_row_kernel("store_prompt_rows", store_prompt_rows<T>, unsigned(batch.rows), 32 * kWarps, 0, stream,
                               args.qkv.raw<T>(), args.qkv.shape[1], bias, args.heads, query_norm, key_norm,
                               args.norm_epsilon, args.cos_sin.as<float>(), pages, batch);
    }
    const dim3 grid(unsigned(batch.rows), head_blocks(args.heads + 2 * pages.kv_heads));
    launch_row_kernel("store_rows", store_rows<T>, grid, 32 * kWarps, 0, stream, args.qkv.raw<T>(), args.qkv.shape[1],
                      bias, args.heads, query_norm, key_norm, args.norm_epsilon, args.cos_sin.as<float>(), pages,
                      batch);
  });
}

void store_latents(const LatentStoreArgs& args, const LatentPages& pages, const Batch& batch, tensor::Stream& stream) {
  const LatentShape& shape = args.shape;
  const LatentRows rows{args.down.data,
                        args.low.data,
                        args.query_norm.empty() ? nullptr : args.query_norm.as<float>(),
                        args.kv_norm.as<float>(),
                        args.cos_sin.as<float>(),
                        shape.q_lora,
                        args.norm_epsilon,
                        shape.pairs == RopePairs::kHalves,
                        args.next != nullptr && takes_few_rows_fp8(*args.next, batch.rows, stream)};
  by_type(pages.dtype, [&](auto type) {
    launch_row_kernel("store_latent_rows", store_latent_rows<decltype(type)>, unsigned(batch.rows), kLatentThreads, 0,
                      stream, rows, pages, batch);
  });
}

void join_rope(const JoinRope& args, tensor::Stream& stream) {
  if (args.rows == 0) return;
  const bool many = args.rows * args.heads >= kJoinMany && args.heads % kJoinHeads == 0;
  const int64_t of_block = many ? kWarps * kJoinHeads : kWarps;
  by_type(args.dtype, [&](auto type) {
    using T = decltype(type);
    launch_row_kernel("join_rows", many ? join_rows<T, kJoinHeads> : join_rows<T, 1>,
                      unsigned((args.rows * args.heads + of_block - 1) / of_block), 32 * kWarps, 0, stream, args);
  });
}

}  // namespace spillway::kernels::cuda
