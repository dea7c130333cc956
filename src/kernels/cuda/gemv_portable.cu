// Products of few rows for GPUs before sm_90: one warp an output (two with SwiGLU), 16 bytes of weight a thread,
// float32 sums in a fixed order. Correctness first; the weight's bytes are still read once from device memory.
#include <algorithm>

#include "kernels/cuda/gemm_launch.cuh"
#include "kernels/cuda/gemv_portable.h"
#include "kernels/cuda/gemv_widen.cuh"

namespace spillway::kernels::cuda {
namespace {

constexpr int kWarps = 4;
constexpr int kTokens = 8;  // summed at once

// One 16-byte chunk of a row as floats: value[e] is of element k + order(e).
template <WeightFormat kFormat>
__device__ __forceinline__ void widen_chunk(uint4 q, float (&value)[Format<kFormat>::kElements16]) {
  using F = Format<kFormat>;
#pragma unroll
  for (int u = 0; u < F::kElements16 / 8; ++u) {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const Pair pair = F::fragment(q, u, i);
      const uint32_t words[2] = {pair.first, pair.second};
#pragma unroll
      for (int w = 0; w < 2; ++w) {
        const float low = __uint_as_float(words[w] << 16), high = __uint_as_float(words[w] & 0xFFFF0000u);
        // Byte formats pair (k, k + 2); the others (k, k + 1).
        const int at = 8 * u + 4 * i;
        value[F::kGroupParts == 2 ? at + w : at + 2 * w] = low;
        value[F::kGroupParts == 2 ? at + w + 2 : at + 2 * w + 1] = high;
      }
    }
  }
}

template <WeightFormat kFormat>
__device__ __forceinline__ float chunk_scale(const Weight& w, int row, int k) {
  const int groups = (w.k + 127) / 128, group = k / 128;
  if constexpr (kFormat == WeightFormat::kBf16) return 1.0f;
  if constexpr (kFormat == WeightFormat::kF8Block) {
    return static_cast<const float*>(w.scales)[static_cast<int64_t>(row / w.scale_rows) * groups + group];
  }
  return __half2float(static_cast<const __half*>(w.scales)[static_cast<int64_t>(group) * w.n + row]);
}

// sums[j] = row of W times token first + j, in every lane; squares likewise of the token.
template <WeightFormat kFormat>
__device__ void row_products(const SmallBatchProduct& p, int row, int first, float (&sums)[kTokens],
                             float (&squares)[kTokens]) {
  using F = Format<kFormat>;
  const int lane = threadIdx.x % 32, t = lane % 4;
  const int64_t row_bytes = weight_row_bytes(kFormat, p.weight.k);
  const auto* weights = static_cast<const char*>(p.weight.data) + row * row_bytes;
  for (int64_t at = lane * 16; at < row_bytes; at += 512) {
    const uint4 q = *reinterpret_cast<const uint4*>(weights + at);
    const int part = static_cast<int>(at / 64) * 4 * F::kElements16;  // first element of four threads' 64 bytes
    float value[F::kElements16];
    widen_chunk<kFormat>(q, value);
    const float scale = chunk_scale<kFormat>(p.weight, row, min(part + F::unit_k(t, 0), p.weight.k - 1));
#pragma unroll
    for (int u = 0; u < F::kElements16 / 8; ++u) {
      const int k = part + F::unit_k(t, u);
      if (k >= p.weight.k) continue;
      float norm[8] = {1, 1, 1, 1, 1, 1, 1, 1};
      if (p.norm_weight != nullptr) load_8(p.norm_weight, k, p.norm_type, norm);
#pragma unroll
      for (int j = 0; j < kTokens; ++j) {
        if (first + j >= p.m) break;
        float x[8], sum = 0;
        load_8(p.x, (first + j) * p.x_stride + k, p.x_type, x);
#pragma unroll
        for (int e = 0; e < 8; ++e) {
          squares[j] += x[e] * x[e];
          sum += __bfloat162float(__float2bfloat16(x[e] * norm[e])) * value[8 * u + e];
        }
        sums[j] += sum * scale;
      }
    }
  }
#pragma unroll
  for (int j = 0; j < kTokens; ++j) {
#pragma unroll
    for (int step = 16; step > 0; step /= 2) {
      sums[j] += __shfl_xor_sync(~0u, sums[j], step);
      squares[j] += __shfl_xor_sync(~0u, squares[j], step);
    }
    if (p.norm_weight != nullptr) sums[j] *= rsqrtf(squares[j] / static_cast<float>(p.weight.k) + p.norm_eps);
    if (p.bias != nullptr) sums[j] += p.bias[row];
  }
}

template <WeightFormat kFormat>
__global__ void __launch_bounds__(kWarps * 32) portable_kernel(const SmallBatchProduct p) {
  const bool gated = p.epilogue == Epilogue::kSwiGlu;
  const int columns = gated ? p.weight.n / 2 : p.weight.n;
  const int column = static_cast<int>(blockIdx.x) * kWarps + threadIdx.x / 32;
  if (column >= columns) return;
  for (int first = 0; first < p.m; first += kTokens) {
    float sums[kTokens] = {}, squares[kTokens] = {};
    row_products<kFormat>(p, column, first, sums, squares);
    if (gated) {
      float up[kTokens] = {}, again[kTokens] = {};
      row_products<kFormat>(p, column + columns, first, up, again);
#pragma unroll
      for (int j = 0; j < kTokens; ++j) sums[j] = silu(sums[j]) * up[j];
    }
#pragma unroll
    for (int j = 0; j < kTokens; ++j) {
      if (threadIdx.x % 32 == j && first + j < p.m) {
        store_one(p.y, p.y_type, (first + j) * p.y_stride + column, sums[j], p.epilogue == Epilogue::kAdd);
      }
    }
  }
}

template <WeightFormat kFormat>
cudaError_t launch(const SmallBatchProduct& p, cudaStream_t stream) {
  const int columns = p.epilogue == Epilogue::kSwiGlu ? p.weight.n / 2 : p.weight.n;
  return launch_kernel(portable_kernel<kFormat>, dim3(static_cast<unsigned>((columns + kWarps - 1) / kWarps)),
                       kWarps * 32, 0, stream, false, 1, p);
}

}  // namespace

cudaError_t launch_small_batch_portable(const SmallBatchProduct& p, cudaStream_t stream) {
  if (!small_batch_valid(p)) return cudaErrorInvalidValue;
  switch (p.weight.format) {
    case WeightFormat::kBf16:
      return launch<WeightFormat::kBf16>(p, stream);
    case WeightFormat::kF8Block:
      return launch<WeightFormat::kF8Block>(p, stream);
    case WeightFormat::kInt8:
      return launch<WeightFormat::kInt8>(p, stream);
    case WeightFormat::kInt4:
      return launch<WeightFormat::kInt4>(p, stream);
  }
  return cudaErrorInvalidValue;
}

}  // namespace spillway::kernels::cuda
