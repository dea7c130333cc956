// Behind mla_decode.cuh, of few rows: the combination of a unit's pieces and the product with W_UV in one launch. Two
// blocks (a cluster) a head: each has half of its 128 values' weights under way, in registers, before it waits for
// attention; each combines half of the 512 columns and sends them to the other.
#pragma once

#include "kernels/cuda/gemm_launch.cuh"
#include "kernels/cuda/gemm_ptx.cuh"
#include "kernels/cuda/gemv_packed.cuh"
#include "kernels/cuda/mla_decode_compute.cuh"

namespace spillway::kernels::cuda {

constexpr int kValueThreads = 256, kValueRowsMax = 4;
constexpr int kValuePiecesMax = 160;  // of a unit: no more than blocks
constexpr int kValueOutputs = 8;      // of a warp

struct MlaValues {
  const __nv_bfloat16* weights;  // [heads, 128, 512]
  __nv_bfloat16* values;
  int64_t stride;
};

struct ValuesShared {
  int pieces[kValueRowsMax];
  int places[kValueRowsMax][kValuePiecesMax];             // of a row's pieces: rows of the partial results
  float weights[kValueRowsMax][kValuePiecesMax];          // the sum's inverse included
  float4 parts[kValueRowsMax][kValueThreads / 64][64];    // every fourth piece
  alignas(16) __nv_bfloat16 row[kValueRowsMax][kLatent];  // combined
};

__device__ __forceinline__ void store_pair(void* place, uint32_t rank, uint32_t low, uint32_t high) {
  asm volatile(
      "{\n.reg .b32 remote;\nmapa.shared::cluster.u32 remote, %0, %1;\n"
      "st.shared::cluster.v2.u32 [remote], {%2, %3};\n}" ::"r"(ptx::shared_address(place)),
      "r"(rank), "r"(low), "r"(high)
      : "memory");
}

// A warp: where the pieces of a head of a row lie. Follows from lengths alone, so it is found before attention ends.
__device__ __forceinline__ void find_pieces(const MlaParams& p, WorkCursor cursor, int token, int head,
                                            ValuesShared& s) {
  const int sequence = p.batch.row_sequence[token];
  const int packed = (token - p.batch.row_begin[sequence]) * p.heads + head, row_block = packed / 64;
  const Piece piece = cursor.first_piece(sequence, row_block / p.ranks);
  const int lane = static_cast<int>(threadIdx.x) % 32;
  for (int i = lane; i < piece.pieces; i += 32) {
    s.places[token][i] = (cursor.slot_of(piece, i) * p.ranks + row_block % p.ranks) * 64 + packed % 64;
  }
  if (lane == 0) s.pieces[token] = piece.pieces;
}

// A warp: the weights of a row's pieces.
__device__ __forceinline__ void weigh_pieces(const MlaParams& p, int token, ValuesShared& s) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  float2 found[kValuePiecesMax / 32];
  float most = -INFINITY, sum = 0;
#pragma unroll
  for (int j = 0; j < kValuePiecesMax / 32; ++j) {
    const int i = j * 32 + lane;
    found[j] = i < s.pieces[token] ? __ldcg(p.sums + s.places[token][i]) : make_float2(-INFINITY, 0.0f);
    most = fmaxf(most, found[j].x);
  }
  for (int step = 16; step > 0; step /= 2) most = fmaxf(most, __shfl_xor_sync(0xffffffffu, most, step));
#pragma unroll
  for (int j = 0; j < kValuePiecesMax / 32; ++j) {
    found[j].x = exp2_fast((found[j].x - most) * p.scale_log2e);
    sum += found[j].x * found[j].y;
  }
  for (int step = 16; step > 0; step /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, step);
#pragma unroll
  for (int j = 0; j < kValuePiecesMax / 32; ++j) s.weights[token][j * 32 + lane] = found[j].x / sum;
}

// This block's half of the combined columns of a row of several pieces, every fourth piece: four values a thread.
__device__ __forceinline__ float4 add_pieces(const MlaParams& p, int token, int half, const ValuesShared& s) {
  const float* from = p.partials + half * kLatent / 2 + static_cast<int>(threadIdx.x) % 64 * 4;
  float4 sum = {};
#pragma unroll 8
  for (int i = static_cast<int>(threadIdx.x) / 64; i < s.pieces[token]; i += kValueThreads / 64) {
    const float4 v = __ldcg(reinterpret_cast<const float4*>(from + int64_t{s.places[token][i]} * kLatent));
    const float weight = s.weights[token][i];
    sum.x += weight * v.x, sum.y += weight * v.y, sum.z += weight * v.z, sum.w += weight * v.w;
  }
  return sum;
}

// Both blocks get this one's half of every row.
__device__ __forceinline__ void share_rows(const MlaParams& p, bool whole, int head, int half, ValuesShared& s) {
  const int quad = static_cast<int>(threadIdx.x) % 64;
  for (int t = static_cast<int>(threadIdx.x) / 64; t < p.batch.rows; t += kValueThreads / 64) {
    const int column = half * kLatent / 2 + quad * 4;
    uint2 words;
    if (whole || s.pieces[t] == 1) {
      const char* out = p.out + (t * p.out_stride + int64_t{head} * kLatent + column) * 2;
      words = __ldcg(reinterpret_cast<const uint2*>(out));
    } else {
      float4 sum = {};
#pragma unroll
      for (int q = 0; q < kValueThreads / 64; ++q) {
        const float4 v = s.parts[t][q][quad];
        sum.x += v.x, sum.y += v.y, sum.z += v.z, sum.w += v.w;
      }
      words = make_uint2(pack_bf16(sum.x, sum.y), pack_bf16(sum.z, sum.w));
    }
    for (uint32_t rank = 0; rank < 2; ++rank) store_pair(&s.row[t][column], rank, words.x, words.y);
  }
}

__global__ void __launch_bounds__(kValueThreads, 2)
    mla_values_kernel(const __grid_constant__ MlaParams p, const MlaValues v) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  extern __shared__ int plan_shared[];
  __shared__ ValuesShared s;
  const int head = static_cast<int>(blockIdx.x) / 2, half = static_cast<int>(blockIdx.x) % 2;
  const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
  const int output = half * kLatentValueDim / 2 + warp * kValueOutputs;
  uint4 w[2 * kValueOutputs];
#pragma unroll
  for (int i = 0; i < kValueOutputs; ++i) {
    const auto* from =
        reinterpret_cast<const uint4*>(v.weights + (int64_t{head} * kLatentValueDim + output + i) * kLatent) + lane;
    w[2 * i] = __ldg(from);
    w[2 * i + 1] = __ldg(from + 32);
  }
  plan_work(p.batch, p.shape, plan_shared + 40, plan_shared);
  WorkCursor plan;
  plan.start(plan_shared + 40, p.shape, p.batch.sequences, 0, false);
  if (warp < p.batch.rows) find_pieces(p, plan, warp, head, s);
  __syncthreads();
  ptx::cluster_sync();  // the other block has begun
  wait_for_previous_kernel();
  let_next_kernel_start();
  const bool whole = __ldcg(p.whole) != 0;
  if (!whole) {
    if (warp < p.batch.rows) weigh_pieces(p, warp, s);
    __syncthreads();
#pragma unroll 1
    for (int t = 0; t < p.batch.rows; ++t) {
      s.parts[t][threadIdx.x / 64][threadIdx.x % 64] = add_pieces(p, t, half, s);
    }
    __syncthreads();
  }
  share_rows(p, whole, head, half, s);
  ptx::cluster_sync();
#pragma unroll 1
  for (int t = 0; t < p.batch.rows; ++t) {
    const auto* x = reinterpret_cast<const uint4*>(s.row[t]) + lane;
    const uint4 low = x[0], high = x[32];
    keep_packed(w);
    float sums[kValueOutputs];
#pragma unroll
    for (int i = 0; i < kValueOutputs; ++i) sums[i] = dot_8(w[2 * i + 1], high, dot_8(w[2 * i], low, 0.0f));
    const float sum = sum_over_lanes<32>(sums);
    if (lane % 4 == 0) {
      v.values[t * v.stride + int64_t{head} * kLatentValueDim + output + lane / 4] = __float2bfloat16(sum);
    }
  }
#endif
}

}  // namespace spillway::kernels::cuda
