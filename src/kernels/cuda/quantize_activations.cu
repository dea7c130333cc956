// Half a warp a group of 128: 8 values a lane, amax by shuffles, 8 bytes stored a lane. With the norm, one block a row:
// the row stays in registers between the sum of squares and the groups. Bound by bytes: x read once, q written once.
#include <cuda_fp8.h>

#include <algorithm>

#include "kernels/cuda/gemm_launch.cuh"
#include "kernels/cuda/gemm_ptx.cuh"
#include "kernels/cuda/quantize_activations.h"

namespace spillway::kernels::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kNormMax = 16384;  // k with the norm: a row in the registers of a block

// v / scale rounded to nearest, as __fdiv_rn does, in three instructions: Markstein's correction with the rounded
// reciprocal is exact for quotients of up to 448, and one too small for it becomes 0 in e4m3 in any case.
__device__ __forceinline__ float quotient(float v, float scale, float inverse) {
  const float q = v * inverse;
  return __fmaf_rn(__fmaf_rn(-q, scale, v), inverse, q);
}

// Sixteen lanes a group, eight values each.
struct Group {
  uint2 q;
  float scale;

  __device__ __forceinline__ explicit Group(const float (&v)[8]) {
    const uint32_t lanes = 0xFFFFu << (threadIdx.x & 16);
    float amax = 0;
#pragma unroll
    for (int j = 0; j < 8; ++j) amax = fmaxf(amax, fabsf(v[j]));
#pragma unroll
    for (int other = 8; other > 0; other /= 2) amax = fmaxf(amax, __shfl_xor_sync(lanes, amax, other));
    scale = __fdiv_rn(fmaxf(amax, 1e-4f), 448.0f);
    const float inverse = __frcp_rn(scale);
    uint32_t words[2] = {};
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const float2 pair = make_float2(quotient(v[2 * j], scale, inverse), quotient(v[2 * j + 1], scale, inverse));
      words[j / 2] |= static_cast<uint32_t>(__nv_cvt_float2_to_fp8x2(pair, __NV_SATFINITE, __NV_E4M3))
                      << (16 * (j % 2));
    }
    q = make_uint2(words[0], words[1]);
  }
  // at: of this lane's first value in the row.
  __device__ __forceinline__ void store(const QuantizeActivations& a, int64_t row, int at) const {
    *reinterpret_cast<uint2*>(static_cast<char*>(a.out.q) + row * a.k + at) = q;
    if (threadIdx.x % 16 == 0) a.out.scales[at / 128 * a.out.scales_stride + row] = scale;
  }
};

__device__ __forceinline__ bool row_counts(const QuantizeActivations& a, int row) {
  return a.counts == nullptr || row % a.rows_max < a.counts[row / a.rows_max];
}

// Eight values as they lie in memory: several are under way before the first is looked at.
template <Scalar kType>
struct Eight {
  uint4 words[kType == Scalar::kF32 ? 2 : 1];

  __device__ __forceinline__ void fetch(const void* values, int64_t i) {
    const auto* from = reinterpret_cast<const uint4*>(static_cast<const char*>(values) + i * (sizeof(words) / 8));
#pragma unroll
    for (size_t w = 0; w < sizeof(words) / 16; ++w) words[w] = from[w];
  }
  __device__ __forceinline__ void open(float (&v)[8]) const { load_8(words, 0, kType, v); }
};

// The loads are as wide as they can be.
template <Scalar kType, bool kSwiGlu>
__global__ void __launch_bounds__(kThreads) quantize_kernel(const QuantizeActivations a) {
  if (a.starts_next) ptx::launch_dependents();
  ptx::wait_for_previous();
  ptx::launch_dependents();
  const int groups = a.k / 128, lane = threadIdx.x % 16, step = static_cast<int>(gridDim.x) * (kThreads / 16);
  const int step_items = step / groups, step_groups = step % groups;
  const int first = static_cast<int>(blockIdx.x) * (kThreads / 16) + static_cast<int>(threadIdx.x) / 16;
  const bool copied = a.rows != nullptr && a.repeat > 0;  // what goes to many rows is quantised once
  const int items = copied ? a.m / a.repeat : a.m;
  int item = first / groups, group = first % groups;
  for (; item < items; item += step_items, group += step_groups) {
    if (group >= groups) {
      group -= groups;
      if (++item >= items) break;
    }
    if (!row_counts(a, item)) continue;
    const int row = a.rows != nullptr && !copied ? a.rows[item] : item;
    const int64_t at = row * a.x_stride + group * 128 + lane * 8;
    Eight<kType> gates, ups;
    gates.fetch(a.x, at);
    if constexpr (kSwiGlu) ups.fetch(a.x, at + a.k);
    float v[8];
    gates.open(v);
    if constexpr (kSwiGlu) {
      float up[8];
      ups.open(up);
#pragma unroll
      for (int j = 0; j < 8; ++j) v[j] = __fdividef(v[j], 1.0f + __expf(-v[j])) * up[j];
    }
    const Group quantized(v);
    if (!copied) {
      quantized.store(a, row, group * 128 + lane * 8);
      continue;
    }
    for (int slot = 0; slot < a.repeat; slot += 16) {  // the ids of sixteen rows at once
      const int slots = min(16, a.repeat - slot), mine = lane < slots ? a.rows[row * a.repeat + slot + lane] : 0;
      for (int s = 0; s < slots; ++s) {
        quantized.store(a, __shfl_sync(0xFFFFu << (threadIdx.x & 16), mine, s, 16), group * 128 + lane * 8);
      }
    }
  }
}

// A block a row, all of which is under way at once; the norm's weights are read before the previous kernel has ended.
template <int kPieces>
__global__ void __launch_bounds__(1024) norm_quantize_kernel(const QuantizeActivations a) {
  __shared__ float sums[32];
  const int row = blockIdx.x, thread = static_cast<int>(threadIdx.x), threads = static_cast<int>(blockDim.x);
  const auto place = [&](int i) { return (i * threads + thread) * 8; };
  float weight[kPieces][8] = {}, v[kPieces][8] = {};
#pragma unroll
  for (int i = 0; i < kPieces; ++i) {
    if (place(i) < a.k) load_8(a.norm_weight, place(i), a.norm_type, weight[i]);
  }
  if (a.starts_next) ptx::launch_dependents();
  ptx::wait_for_previous();
  ptx::launch_dependents();
  if (!row_counts(a, row)) return;
#pragma unroll
  for (int i = 0; i < kPieces; ++i) {
    if (place(i) < a.k) load_8(a.x, row * a.x_stride + place(i), a.x_type, v[i]);
  }
  float sum = 0;
#pragma unroll
  for (int i = 0; i < kPieces; ++i) {
#pragma unroll
    for (int j = 0; j < 8; ++j) sum += v[i][j] * v[i][j];
  }
#pragma unroll
  for (int step = 16; step > 0; step /= 2) sum += __shfl_xor_sync(~0u, sum, step);
  if (thread % 32 == 0) sums[thread / 32] = sum;
  __syncthreads();
  sum = thread % 32 < threads / 32 ? sums[thread % 32] : 0.0f;
#pragma unroll
  for (int step = 16; step > 0; step /= 2) sum += __shfl_xor_sync(~0u, sum, step);
  const float factor = rsqrtf(sum / static_cast<float>(a.k) + a.norm_eps);
#pragma unroll
  for (int i = 0; i < kPieces; ++i) {
    if (place(i) >= a.k) break;
#pragma unroll
    for (int j = 0; j < 8; ++j) v[i][j] = __bfloat162float(__float2bfloat16(v[i][j] * factor * weight[i][j]));
    Group(v[i]).store(a, row, place(i));
  }
}

template <int kPieces>
cudaError_t launch_norm(const QuantizeActivations& a, cudaStream_t stream) {
  const int threads = (a.k / 8 + 32 * kPieces - 1) / (32 * kPieces) * 32;
  return launch_kernel(norm_quantize_kernel<kPieces>, dim3(static_cast<unsigned>(a.m)), threads, 0, stream, true, 1, a);
}

}  // namespace

cudaError_t launch_quantize_activations(const QuantizeActivations& a, cudaStream_t stream) {
  if (a.m < 1 || a.k < 128 || a.k % 128 != 0 || a.x_type == Scalar::kF16) return cudaErrorInvalidValue;
  if ((a.rows == nullptr && a.out.scales_stride < a.m) || (a.counts != nullptr && a.rows_max < 1))
    return cudaErrorInvalidValue;
  if (a.source == QuantizeSource::kRmsNorm) {
    if (a.norm_weight == nullptr || a.rows != nullptr || a.k > kNormMax) return cudaErrorInvalidValue;
    return a.k <= kNormMax / 2 ? launch_norm<1>(a, stream) : launch_norm<2>(a, stream);
  }
  const bool copied = a.rows != nullptr && a.repeat > 0;
  if (copied && a.m % a.repeat != 0) return cudaErrorInvalidValue;
  const int64_t groups = static_cast<int64_t>(copied ? a.m / a.repeat : a.m) * (a.k / 128);
  const auto blocks =
      static_cast<unsigned>(std::min<int64_t>((groups + kThreads / 16 - 1) / (kThreads / 16), 8 * processor_count()));
  const bool gates = a.source == QuantizeSource::kSwiGlu;
  const auto kernel = a.x_type == Scalar::kF32
                          ? (gates ? quantize_kernel<Scalar::kF32, true> : quantize_kernel<Scalar::kF32, false>)
                          : (gates ? quantize_kernel<Scalar::kBf16, true> : quantize_kernel<Scalar::kBf16, false>);
  return launch_kernel(kernel, dim3(blocks), kThreads, 0, stream, true, 1, a);
}

}  // namespace spillway::kernels::cuda
