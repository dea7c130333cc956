// Attention over packed sequences in bf16 or f16 on warpgroup products (sm_90a), heads of 64 elements. Blocks stay:
// each takes one tile of 192 queries of one head after another. A warp brings queries, keys and values by tensor
// copies, 64 rows at a time, into a ring; three warpgroups keep 64 queries each in registers and have the scores of the
// next keys under way while they make weights of the last ones, so that softmax and products overlap in each and among
// the three.
#pragma once

#include "kernels/cuda/attention_wgmma.cuh"
#include "kernels/cuda/encoder_attention.cuh"
#include "kernels/cuda/gemm_tile_store.cuh"

namespace spillway::kernels::cuda::sequence {

constexpr int kWideDim = 64;
constexpr int kWideGroups = 3;  // warpgroups that compute
constexpr int kWideThreads = 128 * (1 + kWideGroups);
constexpr int kWideSlots = 16;                        // of the ring: keys, their values, the next keys, ...
constexpr uint32_t kWideRows = kKeys * kWideDim * 2;  // bytes of 64 rows
static_assert(kAttentionTile == kWideGroups * 64, "a warpgroup has 64 rows");

struct WideShared {
  char queries[kWideGroups][kWideRows];
  char ring[kWideSlots][kWideRows];
  uint64_t queries_full, queries_empty;
  uint64_t full[kWideSlots], empty[kWideSlots];
  uint64_t tail;
};
constexpr size_t kWideShared = 1024 + sizeof(WideShared);

template <class T>
struct WideAttention {
  const Arguments& a;
  WideShared& shared;
  int row = 0, rows_end = 0, begin = 0, end = 0, head = 0;  // of the item: queries, keys
  int next_tile, next_head, tile_step, head_step;
  int4 next = {};      // that tile, asked for early
  uint32_t taken = 0;  // slots so far
  uint32_t done = 0;   // items so far

  // Items are heads of tiles; every warp goes over the same ones.
  __device__ __forceinline__ WideAttention(const Arguments& args, WideShared& memory) : a(args), shared(memory) {
    const auto place = int(blockIdx.x), blocks = int(gridDim.x);
    next_tile = place / a.heads, next_head = place % a.heads;
    tile_step = blocks / a.heads, head_step = blocks % a.heads;
    ask();
  }
  __device__ __forceinline__ void ask() {
    if (next_tile < a.tile_count) next = __ldg(reinterpret_cast<const int4*>(a.tiles) + next_tile);
  }

  // The next item that has rows; false at the end.
  __device__ __forceinline__ bool take() {
    while (next_tile < a.tile_count) {
      const AttentionTile tile = {next.x, next.y, next.z, 0};
      head = next_head;
      next_tile += tile_step, next_head += head_step;
      if (next_head >= a.heads) next_head -= a.heads, ++next_tile;
      ask();
      if (tile.row >= tile.end) continue;
      row = tile.row;
      rows_end = min(row + kAttentionTile, tile.end);
      begin = a.window > 0 ? max(tile.begin, row - a.window) : tile.begin;
      end = a.window > 0 ? min(tile.end, rows_end + a.window) : tile.end;
      return true;
    }
    return false;
  }

  __device__ __forceinline__ void wait_full(uint32_t number) {
    ptx::barrier_wait(&shared.full[number % kWideSlots], number / kWideSlots & 1);
  }
  __device__ __forceinline__ uint32_t slot(uint32_t number) const {
    return ptx::shared_address(shared.ring[number % kWideSlots]);
  }
  __device__ __forceinline__ void release(uint32_t number) {
    if (threadIdx.x % 32 == 0) ptx::barrier_arrive(&shared.empty[number % kWideSlots]);
  }

  // One warp. Values past the sequence's end are cleared before anybody sees them: they are another's, and weights of
  // zero do not remove NaN.
  __device__ __forceinline__ void load(const CUtensorMap* queries, const CUtensorMap* keys, const CUtensorMap* values) {
    const int lane = int(threadIdx.x % 32);
    uint32_t tails = 0;
    while (take()) {
      if (lane == 0) {
        const int groups = (rows_end - row + 63) / 64;
        ptx::barrier_wait(&shared.queries_empty, done & 1 ^ 1);
        ptx::barrier_expect(&shared.queries_full, uint32_t(groups) * kWideRows);
        for (int g = 0; g < groups; ++g) {
          ptx::tensor_load_3d(shared.queries[g], queries, head * kWideDim, row + g * 64, 0, &shared.queries_full);
        }
      }
      ++done;
      for (int key = begin; key < end; key += kKeys, taken += 2) {
        const uint32_t at = taken % kWideSlots, parity = taken / kWideSlots & 1 ^ 1;
        const bool partial = key + kKeys > end;
        if (lane == 0) {
          ptx::barrier_wait(&shared.empty[at], parity);
          ptx::barrier_expect(&shared.full[at], kWideRows);
          ptx::tensor_load_3d(shared.ring[at], keys, head * kWideDim, key, 0, &shared.full[at]);
          ptx::barrier_wait(&shared.empty[at + 1], parity);
          uint64_t* full = partial ? &shared.tail : &shared.full[at + 1];
          ptx::barrier_expect(full, kWideRows);
          ptx::tensor_load_3d(shared.ring[at + 1], values, head * kWideDim, key, 0, full);
        }
        if (!partial) continue;
        __syncwarp();
        ptx::barrier_wait(&shared.tail, tails++ & 1);
        for (int i = (end - key) * 8 + lane; i < kKeys * 8; i += 32)
          *reinterpret_cast<uint4*>(shared.ring[at + 1] + i * 16) = make_uint4(0, 0, 0, 0);
        publish_shared();
        __syncwarp();
        if (lane == 0) ptx::barrier_arrive(&shared.full[at + 1]);
      }
    }
  }

  uint32_t q[kWideDim / 16][4];  // operands of products as mma.m16n8k16 has them: queries,
  uint32_t p[kKeys / 16][4];     // weights
  float s[32], o[32];
  float largest[2], total[2], keep[2];  // largest: times scale_log2

  __device__ __forceinline__ void take_queries(int group) {
    const int lane = int(threadIdx.x % 32), warp = int(threadIdx.x / 32 % 4);
    ptx::barrier_wait(&shared.queries_full, done & 1);
    ++done;
    const uint32_t from = ptx::shared_address(shared.queries[group]);
#pragma unroll
    for (int c = 0; c < kWideDim / 16; ++c)
      load_matrices(q[c], from + place<kWideDim>(warp * 16 + (lane & 15), c * 2 + (lane >> 4)));
    __syncwarp();
    if (lane == 0) ptx::barrier_arrive(&shared.queries_empty);
  }

  // A descriptor with another lower half: sums of 64 bits would cost a carry each.
  static __device__ __forceinline__ uint64_t further(uint64_t descriptor, uint32_t low) {
    return (descriptor & 0xFFFFFFFF00000000) | low;
  }
  __device__ __forceinline__ void start_scores() {
    const auto keys = uint32_t(inner_descriptor(slot(taken)));
    hold(s);
    products_begin();
#pragma unroll
    for (int k = 0; k < kWideDim / 16; ++k)
      product_n64_rows<T>(s, q[k], further(inner_descriptor(0), keys + 2 * k), k > 0);
    products_commit();
  }
  __device__ __forceinline__ void start_outputs(uint32_t number, bool add) {
    const auto values = uint32_t(outer_descriptor(slot(number), kWideRows));
    hold(o);
    products_begin();
#pragma unroll
    for (int k = 0; k < kKeys / 16; ++k)
      product_n64_values<T>(o, p[k], further(outer_descriptor(0, kWideRows), values + 128 * k), add || k > 0 ? 1 : 0);
    products_commit();
  }

  __device__ __forceinline__ void mask_scores(int first_row, int key) {
    const int lane = int(threadIdx.x % 32);
#pragma unroll
    for (int i = 0; i < 32; ++i) {
      const int column = key + i / 4 * 8 + lane % 4 * 2 + i % 2, query = first_row + lane / 4 + i / 2 % 2 * 8;
      if (column >= end || (a.window > 0 && abs(query - column) > a.window)) s[i] = -INFINITY;
    }
  }

  // Scores to weights 2^(s - largest). The largest of before serves on while no score is over it by more than 2^8,
  // which f16 holds: true is given, with what came before to be multiplied by keep, where one is.
  __device__ __forceinline__ bool soften_scores() {
    // In parts, that few wait for one another.
    float parts[8] = {s[0], s[1], s[2], s[3], s[4], s[5], s[6], s[7]};
#pragma unroll
    for (int i = 8; i < 32; ++i) parts[i % 8] = fmaxf(parts[i % 8], s[i]);
    float most[2];
#pragma unroll
    for (int half = 0; half < 2; ++half)
      most[half] = fmaxf(fmaxf(parts[2 * half], parts[2 * half + 1]), fmaxf(parts[2 * half + 4], parts[2 * half + 5]));
    const bool grows = most[0] * a.scale_log2 > largest[0] + 8 || most[1] * a.scale_log2 > largest[1] + 8;
    const bool changed = __any_sync(0xffffffffu, grows);
    if (changed) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        most[half] = fmaxf(most[half], __shfl_xor_sync(0xffffffffu, most[half], 1));
        most[half] = fmaxf(most[half], __shfl_xor_sync(0xffffffffu, most[half], 2));
        const float now = fmaxf(largest[half], most[half] * a.scale_log2);
        keep[half] = now == -INFINITY ? 1.0f : power_of_two(largest[half] - now);
        largest[half] = now;
        total[half] *= keep[half];
      }
    }
    const float offset[2] = {largest[0] == -INFINITY ? 0.0f : largest[0], largest[1] == -INFINITY ? 0.0f : largest[1]};
    float sums[4] = {};
#pragma unroll
    for (int i = 0; i < 32; ++i) {
      s[i] = power_of_two(s[i] * a.scale_log2 - offset[i / 2 % 2]);
      sums[i % 4] += s[i];
    }
    total[0] += sums[0] + sums[1];
    total[1] += sums[2] + sums[3];
    return changed;
  }
  __device__ __forceinline__ void pack_weights() {
#pragma unroll
    for (int i = 0; i < 16; ++i) p[i / 4][i % 4] = pack_pair<T>(s[2 * i], s[2 * i + 1]);
  }

  // Four threads of a row exchange so that each writes 16 bytes.
  __device__ __forceinline__ void store(int first_row, float y_scale) {
    const int lane = int(threadIdx.x % 32);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float sum = total[half];
      sum += __shfl_xor_sync(0xffffffffu, sum, 1);
      sum += __shfl_xor_sync(0xffffffffu, sum, 2);
      const float inverse = y_scale / sum;
      const int to = first_row + lane / 4 + half * 8;
      const int64_t at = (int64_t(to) * a.heads + head) * kWideDim + lane % 4 * (a.y_scale == nullptr ? 8 : 16);
      uint32_t words[4];
      if (a.y_scale == nullptr) {
#pragma unroll
        for (int n = 0; n < 8; n += 4) {
#pragma unroll
          for (int j = 0; j < 4; ++j)
            words[j] = pack_pair<T>(o[(n + j) * 4 + half * 2] * inverse, o[(n + j) * 4 + half * 2 + 1] * inverse);
          transpose_4(words);
          if (to < rows_end) {
            *reinterpret_cast<uint4*>(static_cast<T*>(a.y) + at + n * 8) =
                make_uint4(words[0], words[1], words[2], words[3]);
          }
        }
        continue;
      }
      const auto pair = [&](int n) {
        return uint32_t(__nv_cvt_float2_to_fp8x2({o[n * 4 + half * 2] * inverse, o[n * 4 + half * 2 + 1] * inverse},
                                                 __NV_SATFINITE, __NV_E4M3));
      };
#pragma unroll
      for (int j = 0; j < 4; ++j) words[j] = pair(2 * j) | pair(2 * j + 1) << 16;
      transpose_4(words);
      if (to < rows_end) {
        *reinterpret_cast<uint4*>(static_cast<uint8_t*>(a.y) + at) =
            make_uint4(__byte_perm(words[0], words[1], 0x5410), __byte_perm(words[2], words[3], 0x5410),
                       __byte_perm(words[0], words[1], 0x7632), __byte_perm(words[2], words[3], 0x7632));
      }
    }
  }

  // The wait for values stands between the powers and the wait for the last products, which else moves before them.
  __device__ __forceinline__ void compute_item(int first_row, float y_scale) {
    largest[0] = largest[1] = -INFINITY;
    total[0] = total[1] = 0;
    bool first = true;
    wait_full(taken);
    start_scores();
    products_wait<0>();
    hold(s);
    release(taken);
    if (begin + kKeys > end || a.window > 0) mask_scores(first_row, begin);
    soften_scores();
    wait_full(taken + 1);
    pack_weights();
    for (int key = begin + kKeys; key < end; key += kKeys) {
      taken += 2;
      wait_full(taken);
      start_scores();
      start_outputs(taken - 1, !first);
      first = false;
      products_wait<1>();
      hold(s);
      release(taken);
      if (key + kKeys > end || a.window > 0) mask_scores(first_row, key);
      const bool changed = soften_scores();
      hold(s);
      hold(total);
      wait_full(taken + 1);
      products_wait<0>();
      hold(o);
      release(taken - 1);
      if (changed) {
#pragma unroll
        for (int i = 0; i < 32; ++i) o[i] *= keep[i / 2 % 2];
      }
      pack_weights();
    }
    start_outputs(taken + 1, !first);
    products_wait<0>();
    hold(o);
    release(taken + 1);
    taken += 2;
    store(first_row, y_scale);
  }

  // A warpgroup without rows hands the item's slots on.
  __device__ __forceinline__ void pass_item() {
    for (int key = begin; key < end; key += kKeys) {
      for (int i = 0; i < 2; ++i, ++taken) {
        wait_full(taken);
        release(taken);
      }
    }
  }

  __device__ __forceinline__ void compute(int group) {
    const float y_scale = a.y_scale == nullptr ? 1.0f : *a.y_scale;
    while (take()) {
      take_queries(group);
      if (row + group * 64 < rows_end)
        compute_item(row + group * 64 + int(threadIdx.x / 32 % 4) * 16, y_scale);
      else
        pass_item();
    }
  }
};

template <class T>
__global__ void __launch_bounds__(kWideThreads, 1)
    attend_wide(Arguments a, const __grid_constant__ CUtensorMap queries, const __grid_constant__ CUtensorMap keys,
                const __grid_constant__ CUtensorMap values) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  extern __shared__ char memory[];
  WideShared& shared = *reinterpret_cast<WideShared*>(memory + (1024 - (ptx::shared_address(memory) & 1023) & 1023));
  if (threadIdx.x == 0) {
    for (int i = 0; i < kWideSlots; ++i) {
      ptx::barrier_init(&shared.full[i], 1);
      ptx::barrier_init(&shared.empty[i], 4 * kWideGroups);
    }
    ptx::barrier_init(&shared.queries_full, 1);
    ptx::barrier_init(&shared.queries_empty, 4 * kWideGroups);
    ptx::barrier_init(&shared.tail, 1);
    ptx::barrier_init_fence();
    publish_shared();
  }
  __syncthreads();
  take_turn();
  WideAttention<T> block(a, shared);
  if (threadIdx.x < 128) {
    ptx::fewer_registers<32>();
    if (threadIdx.x < 32) block.load(&queries, &keys, &values);
  } else {
    ptx::more_registers<160>();
    block.compute(int(threadIdx.x / 128) - 1);
  }
#endif
}

}  // namespace spillway::kernels::cuda::sequence
