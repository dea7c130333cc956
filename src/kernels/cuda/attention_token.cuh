// The kernel of attention_token.h. A cluster of eight blocks has a kv head of a sequence, or a part of its context
// where that is long: every warp streams chunks of 16 tokens, the blocks' sums meet in each other's shared memory, each
// block ends an eighth of the columns. What a step waits for is one read of the projection and one cluster barrier;
// earlier tokens are on their way before.
#pragma once

#include "kernels/cuda/attention_chunk.cuh"
#include "kernels/cuda/attention_fresh.cuh"
#include "kernels/cuda/attention_token.h"
#include "kernels/cuda/attention_work.cuh"
#include "kernels/cuda/gemm_ptx.cuh"

namespace spillway::kernels::cuda {

struct TokenParams {
  TokenAttention a;
  int group;
  float scale_log2e;
  int64_t values_bytes;  // from a page's first key to its first value
  int parts_max;         // clusters of a unit
  float* partials;       // [unit][part][16][dim], then [unit][part][16][2]: maximum and sum
  float* partial_sums;
  int* counters;  // [unit]
};

template <typename T, int kDim>
struct TokenBlock : ChunkSums<T, kDim, 1> {
  using Sums = ChunkSums<T, kDim, 1>;
  using Sums::kHalfBytes, Sums::kSegments, Sums::kStageBytes;
  using Sums::l, Sums::limit, Sums::m, Sums::o, Sums::q, Sums::row_of;

  static constexpr int kCluster = 8, kWarps = 4, kStages = 3, kRows = 16;
  static constexpr int kThreads = kWarps * 32;
  static constexpr int kWorkers = kCluster * kWarps;
  static constexpr int kPartChunks = 8 * kWorkers;                  // a context of more has a second cluster, and so on
  static constexpr int kColumns = kDim / kCluster;                  // that a block ends
  static constexpr int kItems = (kRows + 2 + kWarps - 1) / kWarps;  // heads of a unit (queries, key, value) a warp
  static constexpr int kQueryStride = kDim + 8, kSumStride = kDim + 8;  // elements, without bank conflicts
  static_assert(kRows * kSumStride * 4 <= kStages * kStageBytes, "a warp's sums lie in its ring");

  struct Shared {
    alignas(128) char ring[kWarps][kStages * kStageBytes];
    alignas(16) T queries[kRows * kQueryStride];
    alignas(16) T fresh[2][kDim];               // this step's key and value
    float received[kCluster][kRows][kColumns];  // from each block: this block's columns
    float2 received_sums[kCluster][kRows];      // and its rows' maximum and sum
    float2 warp_sums[kWarps][kRows];
    int flag;
  };

  const TokenParams& p;
  Shared& s;
  const int lane, warp, rank;
  int sequence, kv_head, unit, part, parts, last_token;
  int load_chunk, chunk_end, load_stage = 0;

  __device__ __forceinline__ TokenBlock(const TokenParams& p_, Shared& s_)
      : p(p_), s(s_), lane(threadIdx.x & 31), warp(threadIdx.x >> 5), rank(static_cast<int>(blockIdx.x) % kCluster) {
    const int cluster = static_cast<int>(blockIdx.x) / kCluster;
    part = cluster % p.parts_max;
    unit = cluster / p.parts_max;
    kv_head = unit % p.a.pages.kv_heads;
    sequence = unit / p.a.pages.kv_heads;
    last_token = p.a.batch.contexts[sequence] - 1;
    const int chunks = last_token / 16 + 1;
    parts = min(p.parts_max, ceil_div(chunks, kPartChunks));
    load_chunk = static_cast<int>(int64_t{chunks} * part / parts) + warp * kCluster + rank;
    chunk_end = static_cast<int>(int64_t{chunks} * (part + 1) / parts);
  }

  __device__ __forceinline__ uint32_t stage_at(int stage) const {
    return shared_address(s.ring[warp]) + stage * kStageBytes;
  }
  // Of this unit's keys in the page that holds a token, at that token.
  __device__ __forceinline__ char* page_of(int token) const {
    const KvPages& pages = p.a.pages;
    const int index = token / pages.page_tokens;
    const int page = p.a.batch.page_table[int64_t{sequence} * p.a.batch.pages_max + index];
    return static_cast<char*>(pages.base) + page * pages.page_stride_bytes +
           (int64_t{kv_head} * pages.page_tokens + token - index * pages.page_tokens) * (kDim * 2);
  }

  // Earlier tokens only; zeros in the places of others.
  __device__ __forceinline__ void load_next() {
    if (load_chunk < chunk_end) {
      const int token = load_chunk * 16;
      const char* from = page_of(token);
      const uint32_t to = stage_at(load_stage);
#pragma unroll
      for (int i = 0; i < kSegments / 2; ++i) {
        const int at = i * 32 + lane, row = at / kSegments;
        const uint32_t place = to + Sums::place_of(row, at % kSegments);
        const bool in = token + row < last_token;
        const char* source = from + (in ? at * 16 : 0);
        copy_async16(place, source, in);
        copy_async16(place + kHalfBytes, source + p.values_bytes, in);
      }
      load_chunk += kWorkers;
    }
    copy_async_commit();
    load_stage = load_stage + 1 == kStages ? 0 : load_stage + 1;
  }

  // Heads of the projection to shared memory: biased, normed, rotated; the key and the value also to their page.
  __device__ __forceinline__ void take_heads(bool owns_token);
  __device__ __forceinline__ void put_token(int stage, int row);
  __device__ __forceinline__ void send_sums();
  __device__ __forceinline__ void end_columns();
  __device__ __forceinline__ void combine_parts();
  __device__ __forceinline__ void run();
};

template <typename T, int kDim>
__device__ __forceinline__ void TokenBlock<T, kDim>::take_heads(bool owns_token) {
  constexpr int kHalf = kDim / 2;
  const TokenAttention& a = p.a;
  const int i = 2 * lane, items = p.group + (owns_token ? 2 : 0);
  const bool in = i < kHalf;
  const auto head_of = [&](int item) {
    return item < p.group ? kv_head * p.group + item : a.heads + (item - p.group) * a.pages.kv_heads + kv_head;
  };
  // What does not depend on the kernel before.
  const float* angles = a.cos_sin + int64_t{last_token} * kDim;
  float2 cos = {}, sin = {}, bias[kItems][2] = {};
  if (in) {
    cos = *reinterpret_cast<const float2*>(angles + i);
    sin = *reinterpret_cast<const float2*>(angles + kHalf + i);
  }
#pragma unroll
  for (int n = 0; n < kItems; ++n) {
    const int item = warp + n * kWarps;
    if (item >= items || !in || a.bias == nullptr) continue;
    const float* from = a.bias + int64_t{head_of(item)} * kDim + i;
    bias[n][0] = *reinterpret_cast<const float2*>(from);
    bias[n][1] = *reinterpret_cast<const float2*>(from + kHalf);
  }
  wait_for_previous_kernel();
  const auto place = [&](int) { return i; };
  HeadPairs<T, kDim, 1> heads[kItems] = {};
#pragma unroll
  for (int n = 0; n < kItems; ++n) {
    const int item = warp + n * kWarps;
    if (item >= items || !in) continue;
    heads[n].fetch(static_cast<const T*>(a.qkv) + sequence * a.qkv_stride + int64_t{head_of(item)} * kDim, place);
  }
#pragma unroll
  for (int n = 0; n < kItems; ++n) {
    const int item = warp + n * kWarps;
    if (item >= items) continue;
    auto& head = heads[n];
    head.unpack();
    head.add(0, bias[n][0], bias[n][1]);
    const bool is_value = item == p.group + 1;
    const float* norm = item < p.group ? a.query_norm : a.key_norm;
    if (norm != nullptr && !is_value) {
      float sum = head.squares();
      for (int step = 16; step > 0; step /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, step);
      if (in) head.normalise(norm, sum, a.norm_eps, place);
    }
    if (!in) continue;
    if (!is_value) head.rotate(0, cos, sin);
    const uint32_t first = pack2<T>(head.low[0].x, head.low[0].y), second = pack2<T>(head.high[0].x, head.high[0].y);
    T* to = item < p.group ? s.queries + item * kQueryStride : s.fresh[item - p.group];
    *reinterpret_cast<uint32_t*>(to + i) = first;
    *reinterpret_cast<uint32_t*>(to + kHalf + i) = second;
    if (item >= p.group) {
      char* page = page_of(last_token) + (is_value ? p.values_bytes : 0);
      *reinterpret_cast<uint32_t*>(page + i * 2) = first;
      *reinterpret_cast<uint32_t*>(page + (kHalf + i) * 2) = second;
    }
  }
}

// This step's token into its row of a stage.
template <typename T, int kDim>
__device__ __forceinline__ void TokenBlock<T, kDim>::put_token(int stage, int row) {
  const int segment = lane % kSegments, half = lane / kSegments;
  if (half < 2) {
    const uint4 v = *reinterpret_cast<const uint4*>(s.fresh[half] + segment * 8);
    char* to = s.ring[warp] + stage * kStageBytes + half * kHalfBytes + Sums::place_of(row, segment);
    *reinterpret_cast<uint4*>(to) = v;
  }
  __syncwarp();
}

// A value to the same place of another block of the cluster.
__device__ __forceinline__ void store_remote(const void* place, int rank, float value) {
  asm volatile(
      "{\n.reg .b32 remote;\nmapa.shared::cluster.u32 remote, %0, %1;\n"
      "st.shared::cluster.f32 [remote], %2;\n}" ::"r"(shared_address(place)),
      "r"(rank), "f"(value)
      : "memory");
}

// The warps' sums of a row as one, and each column to the block that ends it.
template <typename T, int kDim>
__device__ __forceinline__ void TokenBlock<T, kDim>::send_sums() {
  float* const mine = reinterpret_cast<float*>(s.ring[warp]);
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    float sum = l[0][half];
    sum += __shfl_xor_sync(0xffffffffu, sum, 1);
    sum += __shfl_xor_sync(0xffffffffu, sum, 2);
    const int row = row_of(0, half);
    if (row >= p.group) continue;
    if (lane % 4 == 0) s.warp_sums[warp][row] = make_float2(m[0][half], sum);
#pragma unroll
    for (int n = 0; n < kDim / 8; ++n) {
      *reinterpret_cast<float2*>(mine + row * kSumStride + n * 8 + lane % 4 * 2) =
          make_float2(o[0][n][half * 2], o[0][n][half * 2 + 1]);
    }
  }
  __syncthreads();
  asm volatile("barrier.cluster.wait.aligned;" ::: "memory");  // the others run: their shared memory is theirs
  for (int at = static_cast<int>(threadIdx.x); at < p.group * kDim; at += kThreads) {
    const int row = at / kDim, column = at % kDim;
    float most = -INFINITY, sum = 0, value = 0;
#pragma unroll
    for (int w = 0; w < kWarps; ++w) most = fmaxf(most, s.warp_sums[w][row].x);
    const float base = most == -INFINITY ? 0.0f : most * p.scale_log2e;
#pragma unroll
    for (int w = 0; w < kWarps; ++w) {
      const float2 of = s.warp_sums[w][row];
      const float weight = exp2_fast(of.x * p.scale_log2e - base);
      sum += weight * of.y;
      value += weight * reinterpret_cast<const float*>(s.ring[w])[row * kSumStride + column];
    }
    const int owner = column / kColumns;
    store_remote(&s.received[rank][row][column % kColumns], owner, value);
    if (column % kColumns == 0) {
      store_remote(&s.received_sums[rank][row].x, owner, most);
      store_remote(&s.received_sums[rank][row].y, owner, sum);
    }
  }
}

template <typename T, int kDim>
__device__ __forceinline__ void TokenBlock<T, kDim>::end_columns() {
  for (int at = static_cast<int>(threadIdx.x); at < p.group * kColumns; at += kThreads) {
    const int row = at / kColumns, column = at % kColumns;
    float most = -INFINITY, sum = 0, value = 0;
#pragma unroll
    for (int b = 0; b < kCluster; ++b) most = fmaxf(most, s.received_sums[b][row].x);
#pragma unroll
    for (int b = 0; b < kCluster; ++b) {
      const float2 of = s.received_sums[b][row];
      const float weight = exp2_fast((of.x - most) * p.scale_log2e);
      sum += weight * of.y;
      value += weight * s.received[b][row][column];
    }
    const int element = rank * kColumns + column;
    if (parts == 1) {
      T* to = static_cast<T*>(p.a.out) + sequence * p.a.out_stride + int64_t{kv_head * p.group + row} * kDim;
      to[element] = from_float<T>(value / sum);
    } else {
      const int64_t slot = (int64_t{unit} * p.parts_max + part) * kRows + row;
      p.partials[slot * kDim + element] = value;
      if (element == 0) reinterpret_cast<float2*>(p.partial_sums)[slot] = make_float2(most, sum);
    }
  }
}

// The block that ends last: the parts in rising order.
template <typename T, int kDim>
__device__ __forceinline__ void TokenBlock<T, kDim>::combine_parts() {
  for (int at = static_cast<int>(threadIdx.x); at < p.group * kDim; at += kThreads) {
    const int row = at / kDim, column = at % kDim;
    const int64_t first = int64_t{unit} * p.parts_max * kRows + row;
    const float2* sums_of = reinterpret_cast<const float2*>(p.partial_sums);
    float most = -INFINITY, sum = 0, value = 0;
    for (int i = 0; i < parts; ++i) most = fmaxf(most, __ldcg(sums_of + first + i * kRows).x);
    for (int i = 0; i < parts; ++i) {
      const float2 of = __ldcg(sums_of + first + i * kRows);
      const float weight = exp2_fast((of.x - most) * p.scale_log2e);
      sum += weight * of.y;
      value += weight * __ldcg(p.partials + (first + i * kRows) * kDim + column);
    }
    T* to = static_cast<T*>(p.a.out) + sequence * p.a.out_stride + int64_t{kv_head * p.group + row} * kDim;
    to[column] = from_float<T>(value / sum);
  }
}

template <typename T, int kDim>
__device__ __forceinline__ void TokenBlock<T, kDim>::run() {
  if (part >= parts) return;  // the whole cluster
  asm volatile("barrier.cluster.arrive.release.aligned;" ::: "memory");
  let_next_kernel_start();
#pragma unroll
  for (int i = 0; i < kStages - 1; ++i) load_next();
  for (int at = p.group * kQueryStride + static_cast<int>(threadIdx.x); at < kRows * kQueryStride; at += kThreads) {
    s.queries[at] = from_float<T>(0.0f);
  }
  const int chunks = last_token / 16 + 1, begin = static_cast<int>(int64_t{chunks} * part / parts);
  take_heads(part == parts - 1 && (chunks - 1 - begin) % kCluster == rank);
  __syncthreads();
  Sums::begin(0);
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int row = row_of(0, half);
    limit[0][half] = row < p.group ? last_token : -1;
    const T* from = s.queries + row * kQueryStride + lane % 4 * 2;
#pragma unroll
    for (int k = 0; k < kDim / 16; ++k) {
      q[0][k][half] = *reinterpret_cast<const uint32_t*>(from + k * 16);
      q[0][k][half + 2] = *reinterpret_cast<const uint32_t*>(from + k * 16 + 8);
    }
  }
  int stage = 0;
  for (int c = begin + warp * kCluster + rank; c < chunk_end; c += kWorkers) {
    copy_async_wait<kStages - 2>();
    __syncwarp();
    if (c == chunks - 1) put_token(stage, last_token % 16);
    load_next();
    Sums::chunk(stage_at(stage), c * 16, p.scale_log2e);
    stage = stage + 1 == kStages ? 0 : stage + 1;
  }
  copy_async_wait<0>();
  __syncwarp();
  send_sums();
  ptx::cluster_sync();
  end_columns();
  if (parts == 1) return;
  if (finish_piece(p.counters + unit, parts * kCluster, &s.flag)) combine_parts();
}

template <typename T, int kDim>
__global__ void __launch_bounds__(TokenBlock<T, kDim>::kThreads)
    token_attention_kernel(const __grid_constant__ TokenParams p) {
#if __CUDA_ARCH__ >= 900
  extern __shared__ __align__(128) char token_shared[];
  TokenBlock<T, kDim> block(p, *reinterpret_cast<typename TokenBlock<T, kDim>::Shared*>(token_shared));
  block.run();
#endif
}

}  // namespace spillway::kernels::cuda
