// One warp a group of 128: 4 values a lane, amax by shuffles, 4 bytes stored a lane. With the norm, one block a row:
// the row stays in registers between the sum of squares and the groups. Bound by bytes: x read once, q written once.
#include <cuda_fp8.h>

#include <algorithm>

#include "kernels/cuda/gemm_launch.cuh"
#include "kernels/cuda/gemm_ptx.cuh"
#include "kernels/cuda/quantize_activations.h"

namespace spillway::kernels::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / 32;
constexpr int kGroupsOfWarp = 16;  // with the norm: k up to 8 * 16 * 128 = 16,384 in registers

__device__ __forceinline__ void load_4(const void* values, int64_t i, Scalar type, float (&v)[4]) {
  if (type == Scalar::kF32) {
    const float4 q = *reinterpret_cast<const float4*>(static_cast<const float*>(values) + i);
    v[0] = q.x, v[1] = q.y, v[2] = q.z, v[3] = q.w;
  } else {
    const uint2 q = *reinterpret_cast<const uint2*>(static_cast<const __nv_bfloat16*>(values) + i);
    v[0] = __uint_as_float(q.x << 16), v[1] = __uint_as_float(q.x & 0xFFFF0000u);
    v[2] = __uint_as_float(q.y << 16), v[3] = __uint_as_float(q.y & 0xFFFF0000u);
  }
}

// v / scale rounded to nearest, as __fdiv_rn does, in three instructions: Markstein's correction with the rounded
// reciprocal is exact for quotients of up to 448, and one too small for it becomes 0 in e4m3 in any case.
__device__ __forceinline__ float quotient(float v, float scale, float inverse) {
  const float q = v * inverse;
  return __fmaf_rn(__fmaf_rn(-q, scale, v), inverse, q);
}

__device__ __forceinline__ void store_group(const QuantizeActivations& a, int64_t row, int group, const float (&v)[4]) {
  const int lane = threadIdx.x % 32;
  float amax = fmaxf(fmaxf(fabsf(v[0]), fabsf(v[1])), fmaxf(fabsf(v[2]), fabsf(v[3])));
#pragma unroll
  for (int step = 16; step > 0; step /= 2) amax = fmaxf(amax, __shfl_xor_sync(~0u, amax, step));
  const float scale = __fdiv_rn(fmaxf(amax, 1e-4f), 448.0f);
  const float inverse = __frcp_rn(scale);
  uint32_t q = 0;
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const float2 pair = make_float2(quotient(v[2 * i], scale, inverse), quotient(v[2 * i + 1], scale, inverse));
    q |= static_cast<uint32_t>(__nv_cvt_float2_to_fp8x2(pair, __NV_SATFINITE, __NV_E4M3)) << (16 * i);
  }
  *reinterpret_cast<uint32_t*>(static_cast<char*>(a.out.q) + row * a.k + group * 128 + lane * 4) = q;
  if (lane == 0) a.out.scales[group * a.out.scales_stride + row] = scale;
}

__device__ __forceinline__ bool row_counts(const QuantizeActivations& a, int row) {
  return a.counts == nullptr || row % a.rows_max < a.counts[row / a.rows_max];
}

// Sixteen lanes a group, eight values each: the loads are as wide as they can be.
__global__ void __launch_bounds__(kThreads) quantize_kernel(const QuantizeActivations a) {
  ptx::wait_for_previous();
  ptx::launch_dependents();
  const auto groups = static_cast<uint32_t>(a.k / 128), all = static_cast<uint32_t>(a.m) * groups;
  const int lane = threadIdx.x % 16;
  const uint32_t lanes = 0xFFFFu << (threadIdx.x & 16), step = gridDim.x * (kThreads / 16);
  for (uint32_t i = blockIdx.x * (kThreads / 16) + threadIdx.x / 16; i < all; i += step) {
    const int item = static_cast<int>(i / groups), group = static_cast<int>(i % groups);
    if (!row_counts(a, item)) continue;
    const int row = a.rows != nullptr ? a.rows[item] : item;
    const int64_t from = a.rows != nullptr && a.repeat > 0 ? item / a.repeat : row;
    const int64_t at = from * a.x_stride + group * 128 + lane * 8;
    float v[8];
    load_8(a.x, at, a.x_type, v);
    if (a.source == QuantizeSource::kSwiGlu) {
      float up[8];
      load_8(a.x, at + a.k, a.x_type, up);
#pragma unroll
      for (int j = 0; j < 8; ++j) v[j] = __fdividef(v[j], 1.0f + __expf(-v[j])) * up[j];
    }
    float amax = 0;
#pragma unroll
    for (int j = 0; j < 8; ++j) amax = fmaxf(amax, fabsf(v[j]));
#pragma unroll
    for (int other = 8; other > 0; other /= 2) amax = fmaxf(amax, __shfl_xor_sync(lanes, amax, other));
    const float scale = __fdiv_rn(fmaxf(amax, 1e-4f), 448.0f);
    const float inverse = __frcp_rn(scale);
    uint32_t q[2] = {};
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const float2 pair = make_float2(quotient(v[2 * j], scale, inverse), quotient(v[2 * j + 1], scale, inverse));
      q[j / 2] |= static_cast<uint32_t>(__nv_cvt_float2_to_fp8x2(pair, __NV_SATFINITE, __NV_E4M3)) << (16 * (j % 2));
    }
    *reinterpret_cast<uint2*>(static_cast<char*>(a.out.q) + static_cast<int64_t>(row) * a.k + group * 128 + lane * 8) =
        make_uint2(q[0], q[1]);
    if (lane == 0) a.out.scales[group * a.out.scales_stride + row] = scale;
  }
}

__global__ void __launch_bounds__(kThreads) norm_quantize_kernel(const QuantizeActivations a) {
  __shared__ float sums[kWarps];
  ptx::wait_for_previous();
  ptx::launch_dependents();
  const int row = blockIdx.x;
  if (!row_counts(a, row)) return;
  const int groups = a.k / 128, lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  float v[kGroupsOfWarp][4];
  float sum = 0;
#pragma unroll
  for (int i = 0; i < kGroupsOfWarp; ++i) {
    const int group = warp + i * kWarps;
    if (group >= groups) break;
    load_4(a.x, row * a.x_stride + group * 128 + lane * 4, a.x_type, v[i]);
#pragma unroll
    for (int j = 0; j < 4; ++j) sum += v[i][j] * v[i][j];
  }
#pragma unroll
  for (int step = 16; step > 0; step /= 2) sum += __shfl_xor_sync(~0u, sum, step);
  if (lane == 0) sums[warp] = sum;
  __syncthreads();
  float total = 0;
#pragma unroll
  for (int i = 0; i < kWarps; ++i) total += sums[i];
  const float factor = rsqrtf(total / static_cast<float>(a.k) + a.norm_eps);
#pragma unroll
  for (int i = 0; i < kGroupsOfWarp; ++i) {
    const int group = warp + i * kWarps;
    if (group >= groups) break;
    float weight[4];
    load_4(a.norm_weight, group * 128 + lane * 4, a.norm_type, weight);
#pragma unroll
    for (int j = 0; j < 4; ++j) v[i][j] = __bfloat162float(__float2bfloat16(v[i][j] * factor * weight[j]));
    store_group(a, row, group, v[i]);
  }
}

}  // namespace

cudaError_t launch_quantize_activations(const QuantizeActivations& a, cudaStream_t stream) {
  if (a.m < 1 || a.k < 128 || a.k % 128 != 0 || a.x_type == Scalar::kF16) return cudaErrorInvalidValue;
  if ((a.rows == nullptr && a.out.scales_stride < a.m) || (a.counts != nullptr && a.rows_max < 1))
    return cudaErrorInvalidValue;
  if (a.source == QuantizeSource::kRmsNorm) {
    if (a.norm_weight == nullptr || a.rows != nullptr || a.k > kWarps * kGroupsOfWarp * 128)
      return cudaErrorInvalidValue;
    return launch_kernel(norm_quantize_kernel, dim3(static_cast<unsigned>(a.m)), kThreads, 0, stream, true, 1, a);
  }
  const int64_t groups = static_cast<int64_t>(a.m) * (a.k / 128);
  const auto blocks =
      static_cast<unsigned>(std::min<int64_t>((groups + 2 * kWarps - 1) / (2 * kWarps), 8 * processor_count()));
  return launch_kernel(quantize_kernel, dim3(blocks), kThreads, 0, stream, true, 1, a);
}

}  // namespace spillway::kernels::cuda
