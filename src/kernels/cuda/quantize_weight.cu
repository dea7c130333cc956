// Weights to int8 and int4 at load, and back to bf16. One warp a group of 128 of one row.
#include <cuda_fp8.h>

#include <algorithm>

#include "kernels/cuda/gemm_launch.cuh"
#include "kernels/cuda/quantize_weight.h"

namespace spillway::kernels::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / 32;

__device__ __forceinline__ float from_f8(uint8_t byte) {
  __nv_fp8_e4m3 value;
  value.__x = byte;
  return static_cast<float>(value);
}

__device__ __forceinline__ float source_value(const QuantizeWeight& a, int row, int column) {
  if (column >= a.k) return 0;
  const int64_t i = static_cast<int64_t>(row) * a.k + column;
  switch (a.source_type) {
    case WeightSourceType::kF32:
      return static_cast<const float*>(a.source)[i];
    case WeightSourceType::kBf16:
      return __bfloat162float(static_cast<const __nv_bfloat16*>(a.source)[i]);
    case WeightSourceType::kF16:
      return __half2float(static_cast<const __half*>(a.source)[i]);
    case WeightSourceType::kF8Block:
      break;
  }
  const int64_t scale_at = static_cast<int64_t>(row / a.source_scale_rows) * ((a.k + 127) / 128) + column / 128;
  return from_f8(static_cast<const uint8_t*>(a.source)[i]) * a.source_scales[scale_at];
}

// The first k of the 8 that a word of int4 holds, and the k of its nibble i.
__device__ __forceinline__ int int4_word_k(int word) { return 32 * (word % 4) + 8 * (word / 4); }
__device__ __forceinline__ int int4_nibble_k(int i) { return i < 4 ? 2 * i : 2 * (i - 4) + 1; }

__global__ void __launch_bounds__(kThreads) quantize_weight_kernel(const QuantizeWeight a) {
  __shared__ float values[kWarps][128];
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, groups = (a.k + 127) / 128;
  const int64_t all = static_cast<int64_t>(a.n) * groups;
  const bool int4 = a.format == WeightFormat::kInt4;
  const float largest = int4 ? 7.0f : 127.0f;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * kWarps + warp; i < all;
       i += static_cast<int64_t>(gridDim.x) * kWarps) {
    const int row = static_cast<int>(i / groups), group = static_cast<int>(i % groups);
    float amax = 0;
    for (int j = lane; j < 128; j += 32) {
      values[warp][j] = source_value(a, row, group * 128 + j);
      amax = fmaxf(amax, fabsf(values[warp][j]));
    }
    for (int step = 16; step > 0; step /= 2) amax = fmaxf(amax, __shfl_xor_sync(~0u, amax, step));
    const __half stored = __float2half_rn(amax / largest);
    const float scale = __half2float(stored), inverse = scale > 0 ? 1.0f / scale : 0.0f;
    const auto rounded = [&](int j) {
      return static_cast<int>(rintf(fminf(fmaxf(values[warp][j] * inverse, -largest), largest)));
    };
    __syncwarp();
    uint32_t word = 0;
    if (int4) {
      for (int n = 0; n < 8 && lane < 16; ++n) {
        word |= static_cast<uint32_t>(rounded(int4_word_k(lane) + int4_nibble_k(n)) + 8) << (4 * n);
      }
    } else {
      for (int n = 0; n < 4; ++n) word |= static_cast<uint32_t>(rounded(lane * 4 + n) + 128) << (8 * n);
    }
    auto* to = static_cast<uint32_t*>(a.data) + i * (int4 ? 16 : 32);
    if (!int4 || lane < 16) to[lane] = word;
    if (lane == 0) static_cast<__half*>(a.scales)[group * a.scales_stride + row] = stored;
    __syncwarp();
  }
}

__device__ __forceinline__ float stored_value(const Weight& w, int row, int column) {
  const int groups = (w.k + 127) / 128, group = column / 128, in_group = column % 128;
  const int64_t group_at = static_cast<int64_t>(row) * groups + group;
  switch (w.format) {
    case WeightFormat::kBf16:
      return __bfloat162float(static_cast<const __nv_bfloat16*>(w.data)[static_cast<int64_t>(row) * w.k + column]);
    case WeightFormat::kF8Block:
      return from_f8(static_cast<const uint8_t*>(w.data)[static_cast<int64_t>(row) * w.k + column]) *
             static_cast<const float*>(w.scales)[static_cast<int64_t>(row / w.scale_rows) * groups + group];
    case WeightFormat::kInt8: {
      const float scale = __half2float(static_cast<const __half*>(w.scales)[static_cast<int64_t>(group) * w.n + row]);
      return static_cast<float>(static_cast<const uint8_t*>(w.data)[group_at * 128 + in_group] - 128) * scale;
    }
    case WeightFormat::kInt4: {
      const float scale = __half2float(static_cast<const __half*>(w.scales)[static_cast<int64_t>(group) * w.n + row]);
      const int j = in_group / 32, t = in_group % 32 / 8, i = in_group % 8;
      const uint32_t word = static_cast<const uint32_t*>(w.data)[group_at * 16 + 4 * t + j];
      const int nibble = i % 2 == 0 ? i / 2 : 4 + i / 2;
      return static_cast<float>(static_cast<int>(word >> (4 * nibble) & 15) - 8) * scale;
    }
  }
  return 0;
}

__global__ void __launch_bounds__(kThreads) dequantize_kernel(const Weight w, __nv_bfloat16* out) {
  const int pairs = (w.k + 1) / 2;
  const int64_t all = static_cast<int64_t>(w.n) * pairs;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x; i < all;
       i += static_cast<int64_t>(gridDim.x) * kThreads) {
    const int row = static_cast<int>(i / pairs), column = static_cast<int>(i % pairs) * 2;
    const int64_t at = static_cast<int64_t>(row) * w.k + column;
    out[at] = __float2bfloat16(stored_value(w, row, column));
    if (column + 1 < w.k) out[at + 1] = __float2bfloat16(stored_value(w, row, column + 1));
  }
}

// A block of threads a block of the weight, whose values stay in registers between the two passes.
__global__ void __launch_bounds__(kThreads) quantize_blocks_kernel(const QuantizeBlocks a) {
  __shared__ float partial[kWarps];
  const int column = blockIdx.x * 128 + threadIdx.x % 64 * 2, first = blockIdx.y * 128 + threadIdx.x / 64;
  constexpr int kRows = 128 / (kThreads / 64);
  float2 v[kRows];
  float amax = 0;
#pragma unroll
  for (int i = 0; i < kRows; ++i) {
    const int row = first + i * (kThreads / 64);
    v[i] = make_float2(0, 0);
    if (row < a.n) {
      const auto* from = static_cast<const __nv_bfloat16*>(a.source) + static_cast<int64_t>(row) * a.k + column;
      const uint32_t pair = *reinterpret_cast<const uint32_t*>(from);
      v[i] = make_float2(__uint_as_float(pair << 16), __uint_as_float(pair & 0xFFFF0000u));
    }
    amax = fmaxf(amax, fmaxf(fabsf(v[i].x), fabsf(v[i].y)));
  }
  for (int step = 16; step > 0; step /= 2) amax = fmaxf(amax, __shfl_xor_sync(~0u, amax, step));
  if (threadIdx.x % 32 == 0) partial[threadIdx.x / 32] = amax;
  __syncthreads();
  for (int w = 0; w < kWarps; ++w) amax = fmaxf(amax, partial[w]);
  const float scale = amax > 0 ? amax / 448.0f : 1.0f;
#pragma unroll
  for (int i = 0; i < kRows; ++i) {
    const int row = first + i * (kThreads / 64);
    if (row >= a.n) continue;
    const __nv_fp8x2_e4m3 pair(make_float2(v[i].x / scale, v[i].y / scale));
    auto* to = static_cast<uint8_t*>(a.data) + static_cast<int64_t>(row) * a.k + column;
    *reinterpret_cast<uint16_t*>(to) = pair.__x;
  }
  if (threadIdx.x == 0) a.scales[static_cast<int64_t>(blockIdx.y) * (a.k / 128) + blockIdx.x] = scale;
}

unsigned grid_for(int64_t work) {
  return static_cast<unsigned>(std::min<int64_t>(std::max<int64_t>(work, 1), 16 * processor_count()));
}

}  // namespace

cudaError_t launch_quantize_weight(const QuantizeWeight& args, cudaStream_t stream) {
  QuantizeWeight a = args;
  if (a.n < 1 || a.k < 1 || (a.format != WeightFormat::kInt8 && a.format != WeightFormat::kInt4)) {
    return cudaErrorInvalidValue;
  }
  if (a.scales_stride == 0) a.scales_stride = a.n;
  const int64_t groups = static_cast<int64_t>(a.n) * groups_of_128(a.k);
  return launch_kernel(quantize_weight_kernel, grid_for((groups + kWarps - 1) / kWarps), kThreads, 0, stream, false, 1,
                       a);
}

cudaError_t launch_quantize_blocks(const QuantizeBlocks& a, cudaStream_t stream) {
  if (a.n < 1 || a.k < 128 || a.k % 128 != 0) return cudaErrorInvalidValue;
  const dim3 grid(static_cast<unsigned>(a.k / 128), static_cast<unsigned>((a.n + 127) / 128));
  return launch_kernel(quantize_blocks_kernel, grid, kThreads, 0, stream, false, 1, a);
}

cudaError_t launch_dequantize_weight(const Weight& weight, void* out, cudaStream_t stream) {
  if (weight.n < 1 || weight.k < 1) return cudaErrorInvalidValue;
  const int64_t pairs = static_cast<int64_t>(weight.n) * ((weight.k + 1) / 2);
  return launch_kernel(dequantize_kernel, grid_for((pairs + kThreads - 1) / kThreads), kThreads, 0, stream, false, 1,
                       weight, static_cast<__nv_bfloat16*>(out));
}

}  // namespace spillway::kernels::cuda
