// The prefill kernel of attention_paged.h and mla_prefill.h for sm_90a: two warpgroups of 64 packed rows each and one
// that loads, over tiles of 128 tokens.
//
// One warp has the copy engine bring keys and values (two stages, swizzled chunks of 64 columns); two others see to the
// next queries, a row tile ahead where shared memory holds two. A tile has whole tokens: a multiple of group rows. A
// computing warpgroup starts the scores of the next tile and the product of the last probabilities with their values
// together, and does its softmax while the other's products run: the two take turns by named barriers. Blocks are
// persistent, long tiles first.
#pragma once

#include "kernels/cuda/attention_ptx.cuh"
#include "kernels/cuda/attention_rows.cuh"
#include "kernels/cuda/attention_wgmma.cuh"
#include "kernels/cuda/gemm_tile_store.cuh"

namespace spillway::kernels::cuda {

struct WidePrefillParams {
  const char* queries;
  char* out;
  int64_t query_stride, out_stride;  // elements
  int group;                         // query heads of a kv head
  int kv_heads;
  int tile_rows;  // the largest multiple of group up to 128
  int tiles;      // of rows, upper bound
  float scale_log2e;
  Batch batch;
  int page_tokens;               // 0: keys and values are not paged
  const int32_t* context_begin;  // their rows, when not paged
};

template <int kKeyDim, int kValueDim>
struct WideShared {
  static constexpr int kKeyChunks = kKeyDim / 64, kValueChunks = kValueDim / 64, kChunk = 128 * 128;
  static constexpr int kAhead = kKeyDim <= 128 ? 2 : 1;  // row tiles whose queries fit
  alignas(1024) char queries[kAhead][kKeyChunks * kChunk];
  alignas(1024) char keys[2][kKeyChunks * kChunk];
  alignas(1024) char values[2][kValueChunks * kChunk];
  RowTile tile[kAhead];  // whose queries these are; no sequence: the end
  int kv_head[kAhead], tokens[kAhead], limits[kAhead][128];
  uint64_t keys_full[2], keys_empty[2], values_full[2], values_empty[2], tail, queries_full[kAhead],
      queries_empty[kAhead];
};

__device__ __forceinline__ void load_rows(void* to, const CUtensorMap* map, int x, int y, int z, uint64_t* barrier) {
  asm volatile(
      "cp.async.bulk.tensor.3d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4, %5}], [%2];" ::
          "r"(ptx::shared_address(to)),
      "l"(map), "r"(ptx::shared_address(barrier)), "r"(x), "r"(y), "r"(z)
      : "memory");
}

template <typename T, int kKeyDim, int kValueDim>
struct WidePrefill {
  using Shared = WideShared<kKeyDim, kValueDim>;
  static constexpr int kTokens = 128;

  const WidePrefillParams& p;
  Shared& shared;
  const int lane, warp;  // warp of the warpgroup
  RowTile tile;
  int kv_head, context, tokens;  // the sequence's tokens; those that the tile's rows attend to
  int count = 0;                 // tiles of tokens so far

  __device__ __forceinline__ WidePrefill(const WidePrefillParams& p_, Shared& shared_)
      : p(p_), shared(shared_), lane(threadIdx.x & 31), warp((threadIdx.x >> 5) & 3) {}

  // Rounds go to and fro over the blocks: long tiles come first, and the block with the longest of one round gets the
  // shortest of the next.
  __device__ __forceinline__ bool has(int round) const {
    return round * static_cast<int>(gridDim.x) < p.tiles * p.kv_heads;
  }
  __device__ __forceinline__ int item_of(int round) const {
    const int blocks = static_cast<int>(gridDim.x), block = static_cast<int>(blockIdx.x);
    return round * blocks + (round % 2 == 0 ? block : blocks - 1 - block);
  }
  // The same tiles in every warp; false when there is none with this number.
  __device__ __forceinline__ bool take(int item) {
    if (item >= p.tiles * p.kv_heads) return false;
    kv_head = item % p.kv_heads;
    tile = find_row_tile(p.batch, p.group, p.tile_rows, p.tiles - 1 - item / p.kv_heads);
    if (tile.sequence < 0) return false;
    context = p.page_tokens > 0 ? p.batch.contexts[tile.sequence]
                                : p.context_begin[tile.sequence + 1] - p.context_begin[tile.sequence];
    tokens = p.batch.positions[tile.row_begin + (min(tile.first + p.tile_rows, tile.rows) - 1) / p.group] + 1;
    return true;
  }
  __device__ __forceinline__ int stage() const { return count & 1; }
  __device__ __forceinline__ uint32_t parity() const { return (count >> 1) & 1; }

  // 128 rows of 64-column chunks from token on, in halves of 64, which a page holds whole.
  __device__ __forceinline__ void load_tile(char* to, const CUtensorMap* map, int chunks, bool values, int token,
                                            uint64_t* barrier) {
    for (int half = 0; half < 2; ++half) {
      const int at = token + half * 64;
      int y, z;
      if (p.page_tokens > 0) {
        const int index = min(at, context - 1) / p.page_tokens;
        z = p.batch.page_table[static_cast<int64_t>(tile.sequence) * p.batch.pages_max + index];
        y = ((values ? p.kv_heads : 0) + kv_head) * p.page_tokens + at % p.page_tokens;
      } else {
        y = p.context_begin[tile.sequence] + at;
        z = kv_head;
      }
      for (int c = 0; c < chunks; ++c) load_rows(to + c * Shared::kChunk + half * 8192, map, c * 64, y, z, barrier);
    }
  }

  // One warp. A tile of values that reaches past the context is cleared there before anybody sees it: probabilities of
  // zero do not remove NaN.
  __device__ __forceinline__ void load(const CUtensorMap* keys, const CUtensorMap* values) {
    uint32_t tails = 0;
    for (int round = 0; has(round); ++round) {
      if (!take(item_of(round))) continue;
      for (int token = 0; token < tokens; token += kTokens, ++count) {
        const int s = stage();
        const bool partial = token + kTokens > context;
        if (lane == 0) {
          ptx::barrier_wait(&shared.keys_empty[s], parity() ^ 1);
          ptx::barrier_expect(&shared.keys_full[s], sizeof(shared.keys[0]));
          load_tile(shared.keys[s], keys, Shared::kKeyChunks, false, token, &shared.keys_full[s]);
          ptx::barrier_wait(&shared.values_empty[s], parity() ^ 1);
          uint64_t* full = partial ? &shared.tail : &shared.values_full[s];
          ptx::barrier_expect(full, sizeof(shared.values[0]));
          load_tile(shared.values[s], values, Shared::kValueChunks, true, token, full);
        }
        if (!partial) continue;
        __syncwarp();
        ptx::barrier_wait(&shared.tail, tails++ & 1);
        const int valid = context - token, segments = (kTokens - valid) * 8;
        for (int at = lane; at < segments * Shared::kValueChunks; at += 32) {
          char* chunk = shared.values[s] + at / segments * Shared::kChunk;
          *reinterpret_cast<uint4*>(chunk + valid * 128 + at % segments * 16) = make_uint4(0, 0, 0, 0);
        }
        publish_shared();
        __syncwarp();
        if (lane == 0) ptx::barrier_arrive(&shared.values_full[s]);
      }
    }
  }

  // Two warps: the queries of one row tile after another, then the end.
  __device__ __forceinline__ void load_queries(const CUtensorMap* queries) {
    const int thread = static_cast<int>(threadIdx.x) & 63;
    uint32_t done = 0;
    for (int round = 0; has(round); ++round) {
      if (!take(item_of(round))) continue;
      const uint32_t at = done % Shared::kAhead;
      ptx::barrier_wait(&shared.queries_empty[at], (done / Shared::kAhead & 1) ^ 1);
      ++done;
      for (int row = thread; row < 128; row += 64) {
        const int packed = tile.first + row;
        const bool in = row < p.tile_rows && packed < tile.rows;
        shared.limits[at][row] = in ? p.batch.positions[tile.row_begin + packed / p.group] : -1;
      }
      if (thread != 0) {
        ptx::barrier_arrive(&shared.queries_full[at]);
        continue;
      }
      shared.tile[at] = tile;
      shared.kv_head[at] = kv_head;
      shared.tokens[at] = tokens;
      ptx::barrier_expect(&shared.queries_full[at], static_cast<uint32_t>(Shared::kKeyChunks * p.tile_rows * 128));
      for (int c = 0; c < Shared::kKeyChunks; ++c) {
        load_rows(shared.queries[at] + c * Shared::kChunk, queries, c * 64, kv_head * p.group,
                  tile.row_begin + tile.first / p.group, &shared.queries_full[at]);
      }
    }
    const uint32_t at = done % Shared::kAhead;
    ptx::barrier_wait(&shared.queries_empty[at], (done / Shared::kAhead & 1) ^ 1);
    if (thread == 0) shared.tile[at].sequence = -1;
    ptx::barrier_arrive(&shared.queries_full[at]);
  }

  float s[64], o[64];
  uint32_t a[8][4];  // probabilities
  float m[2], l[2];
  int limit[2], first_limit;
  int side;        // which of the two computing warpgroups
  uint32_t ahead;  // where this row tile's queries are

  __device__ __forceinline__ int row_of(int half) const { return side * 64 + warp * 16 + half * 8 + lane / 4; }

  // Waits for the queries of row tile `number` and what belongs to them; false at the end.
  __device__ __forceinline__ bool next_tile(uint32_t number) {
    ahead = number % Shared::kAhead;
    ptx::barrier_wait(&shared.queries_full[ahead], number / Shared::kAhead & 1);
    tile = shared.tile[ahead];
    kv_head = shared.kv_head[ahead];
    tokens = shared.tokens[ahead];
    first_limit = shared.limits[ahead][0];
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      limit[half] = shared.limits[ahead][row_of(half)];
      m[half] = -INFINITY;
      l[half] = 0.0f;
    }
    __syncwarp();
    return tile.sequence >= 0;
  }

  __device__ __forceinline__ void start_scores(int stage) {
    const uint64_t q =
        inner_descriptor(ptx::shared_address(shared.queries[ahead]) + static_cast<uint32_t>(side) * 8192);
    const uint64_t k = inner_descriptor(ptx::shared_address(shared.keys[stage]));
    hold(s);
    products_begin();
#pragma unroll
    for (int i = 0; i < kKeyDim / 16; ++i) {
      const int at = i / 4 * (Shared::kChunk / 16) + i % 4 * 2;
      product_n128<T>(s, q + at, k + at, i > 0);
    }
    products_commit();
  }
  __device__ __forceinline__ void start_outputs(int stage, bool add) {
    const uint64_t v = outer_descriptor(ptx::shared_address(shared.values[stage]), Shared::kChunk);
    hold(o);
    products_begin();
#pragma unroll
    for (int k = 0; k < 8; ++k) product_n128_values<T>(o, a[k], v + k * 128, add || k > 0);
    products_commit();
  }

  // Scores to probabilities in place; returns what earlier outputs are to be multiplied with.
  __device__ __forceinline__ void softmax(int token, float (&factor)[2]) {
    if (token + kTokens - 1 > first_limit) {
#pragma unroll
      for (int i = 0; i < 64; ++i) {
        if (token + i / 4 * 8 + (lane % 4) * 2 + i % 2 > limit[i / 2 % 2]) s[i] = -INFINITY;
      }
    }
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float most = m[half];
#pragma unroll
      for (int i = 0; i < 32; ++i) most = fmaxf(most, s[i / 2 * 4 + half * 2 + i % 2]);
      most = fmaxf(most, __shfl_xor_sync(0xffffffffu, most, 1));
      most = fmaxf(most, __shfl_xor_sync(0xffffffffu, most, 2));
      const float at = most == -INFINITY ? 0.0f : most * p.scale_log2e;
      factor[half] = exp2_fast(m[half] * p.scale_log2e - at);
      m[half] = most;
      float sum = 0.0f;
#pragma unroll
      for (int i = 0; i < 32; ++i) {
        float& x = s[i / 2 * 4 + half * 2 + i % 2];
        x = exp2_fast(x * p.scale_log2e - at);
        sum += x;
      }
      l[half] = l[half] * factor[half] + sum;
    }
  }
  __device__ __forceinline__ void pack() {
#pragma unroll
    for (int k = 0; k < 8; ++k) {
#pragma unroll
      for (int i = 0; i < 4; ++i) a[k][i] = pack2<T>(s[k * 8 + i * 2], s[k * 8 + i * 2 + 1]);
    }
  }

  __device__ __forceinline__ void release(uint64_t* barrier) {
    if (lane == 0) ptx::barrier_arrive(barrier);
  }
  __device__ __forceinline__ void my_turn() { ptx::named_barrier(2 + side, 256); }
  __device__ __forceinline__ void your_turn() { asm volatile("bar.arrive %0, 256;" ::"r"(3 - side) : "memory"); }

  // Four threads of a row exchange so that each writes 16 bytes.
  __device__ __forceinline__ void write() {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float sum = l[half];
      sum += __shfl_xor_sync(0xffffffffu, sum, 1);
      sum += __shfl_xor_sync(0xffffffffu, sum, 2);
      const int packed = tile.first + row_of(half);
      const bool in = row_of(half) < p.tile_rows && packed < tile.rows;
      const float inverse = 1.0f / sum;
      const int64_t token = tile.row_begin + packed / p.group, head = kv_head * p.group + packed % p.group;
      char* to = p.out + (token * p.out_stride + head * kValueDim) * 2 + (lane % 4) * 16;
#pragma unroll
      for (int n = 0; n < kValueDim / 8; n += 4) {
        uint32_t words[4];
#pragma unroll
        for (int j = 0; j < 4; ++j) {
          words[j] = pack2<T>(o[(n + j) * 4 + half * 2] * inverse, o[(n + j) * 4 + half * 2 + 1] * inverse);
        }
        transpose_4(words);
        if (in) *reinterpret_cast<uint4*>(to + n * 16) = make_uint4(words[0], words[1], words[2], words[3]);
      }
    }
  }

  __device__ __forceinline__ void compute_tile() {
    float factor[2];
    ptx::barrier_wait(&shared.keys_full[stage()], parity());
    my_turn();
    start_scores(stage());
    your_turn();
    products_wait<0>();
    hold(s);
    release(&shared.keys_empty[stage()]);
    if (tokens <= kTokens) ptx::barrier_arrive(&shared.queries_empty[ahead]);
    softmax(0, factor);
    pack();
    for (int token = kTokens; token < tokens; token += kTokens) {
      const int last = stage();
      const uint32_t last_parity = parity();
      ++count;
      ptx::barrier_wait(&shared.keys_full[stage()], parity());
      my_turn();
      start_scores(stage());
      ptx::barrier_wait(&shared.values_full[last], last_parity);
      start_outputs(last, token > kTokens);
      your_turn();
      products_wait<1>();
      hold(s);
      release(&shared.keys_empty[stage()]);
      if (token + kTokens >= tokens) ptx::barrier_arrive(&shared.queries_empty[ahead]);
      softmax(token, factor);
      products_wait<0>();
      hold(o);
      release(&shared.values_empty[last]);
#pragma unroll
      for (int i = 0; i < 64; ++i) o[i] *= factor[i / 2 % 2];
      pack();
    }
    ptx::barrier_wait(&shared.values_full[stage()], parity());
    start_outputs(stage(), tokens > kTokens);
    products_wait<0>();
    hold(o);
    release(&shared.values_empty[stage()]);
    ++count;
    write();
  }

  __device__ __forceinline__ void compute(int side_) {
    side = side_;
    if (side == 1) your_turn();
    for (uint32_t number = 0; next_tile(number); ++number) compute_tile();
  }
};

template <typename T, int kKeyDim, int kValueDim>
__global__ void __launch_bounds__(384, 1)
    wide_prefill_kernel(const __grid_constant__ WidePrefillParams p, const __grid_constant__ CUtensorMap keys,
                        const __grid_constant__ CUtensorMap values, const __grid_constant__ CUtensorMap queries) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  extern __shared__ char wide_raw[];
  using Shared = WideShared<kKeyDim, kValueDim>;
  Shared& shared = *reinterpret_cast<Shared*>(wide_raw + ((1024 - (ptx::shared_address(wide_raw) & 1023)) & 1023));
  if (threadIdx.x == 0) {
    for (int s = 0; s < 2; ++s) {
      ptx::barrier_init(&shared.keys_full[s], 1);
      ptx::barrier_init(&shared.values_full[s], 1);
      ptx::barrier_init(&shared.keys_empty[s], 8);
      ptx::barrier_init(&shared.values_empty[s], 8);
    }
    ptx::barrier_init(&shared.tail, 1);
    for (int i = 0; i < Shared::kAhead; ++i) {
      ptx::barrier_init(&shared.queries_full[i], 64);
      ptx::barrier_init(&shared.queries_empty[i], 256);  // all who have read limits
    }
    ptx::barrier_init_fence();
    publish_shared();
  }
  __syncthreads();
  wait_for_previous_kernel();
  let_next_kernel_start();
  WidePrefill<T, kKeyDim, kValueDim> block(p, shared);
  if (threadIdx.x < 128) {
    ptx::fewer_registers<40>();
    if (threadIdx.x < 32) block.load(&keys, &values);
    if (threadIdx.x >= 64) block.load_queries(&queries);
  } else {
    ptx::more_registers<232>();
    block.compute(static_cast<int>(threadIdx.x >> 7) - 1);
  }
#endif
}

}  // namespace spillway::kernels::cuda
