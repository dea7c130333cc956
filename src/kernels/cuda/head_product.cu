// A warp computes 16 outputs of a head for up to 64 tokens with mma.m16n8k16: tokens are its rows, outputs its columns.
// Fragments come straight from memory, 16 bytes a lane: any order of k serves if both operands share it.
#include "kernels/cuda/gemm_launch.cuh"
#include "kernels/cuda/gemm_ptx.cuh"
#include "kernels/cuda/head_product.h"

namespace spillway::kernels::cuda {
namespace {

constexpr int kWarps = 4, kWarpOutputs = 16, kChunk = 32;

__device__ __forceinline__ void multiply(float (&c)[4], uint32_t a0, uint32_t a1, uint32_t a2, uint32_t a3, uint32_t b0,
                                         uint32_t b1) {
#if __CUDA_ARCH__ >= 800
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
#endif
}

// kTiles of 16 tokens.
template <int kTiles>
__global__ void __launch_bounds__(32 * kWarps) head_kernel(const HeadRowsProduct p) {
  const int lane = threadIdx.x % 32, g = lane / 4, q = lane % 4;
  const int head = blockIdx.x, first = (blockIdx.y * kWarps + threadIdx.x / 32) * kWarpOutputs;
  const int token0 = blockIdx.z * kTiles * 16;
  const bool mine = first < p.n;
  const auto* weights = static_cast<const __nv_bfloat16*>(p.w) + (int64_t{head} * p.n + (mine ? first : 0)) * p.k;
  const uint4* w[2] = {reinterpret_cast<const uint4*>(weights + int64_t{g} * p.k) + q,
                       reinterpret_cast<const uint4*>(weights + int64_t{g + 8} * p.k) + q};
  ptx::wait_for_previous();
  if (!mine) return;
  const auto* inputs = static_cast<const __nv_bfloat16*>(p.x);
  const uint4* x[2 * kTiles];
#pragma unroll
  for (int i = 0; i < 2 * kTiles; ++i) {
    const int token = min(token0 + i * 8 + g, p.rows - 1);  // rows beyond are computed and not stored
    x[i] = reinterpret_cast<const uint4*>(inputs + (int64_t{token} * p.heads + head) * p.x_head) + q;
  }
  float sums[kTiles][2][4] = {};
#pragma unroll 4
  for (int chunk = 0; chunk < p.k / kChunk; ++chunk) {
    const uint4 b[2] = {w[0][chunk * 4], w[1][chunk * 4]};
#pragma unroll
    for (int t = 0; t < kTiles; ++t) {
      const uint4 low = x[2 * t][chunk * 4], high = x[2 * t + 1][chunk * 4];
#pragma unroll
      for (int o = 0; o < 2; ++o) {
        multiply(sums[t][o], low.x, high.x, low.y, high.y, b[o].x, b[o].y);
        multiply(sums[t][o], low.z, high.z, low.w, high.w, b[o].z, b[o].w);
      }
    }
  }
  auto* outputs = static_cast<__nv_bfloat16*>(p.y);
#pragma unroll
  for (int t = 0; t < kTiles; ++t) {
#pragma unroll
    for (int o = 0; o < 2; ++o) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int token = token0 + t * 16 + half * 8 + g;
        if (token >= p.rows) continue;
        const int64_t at = (int64_t{token} * p.heads + head) * p.y_head + first + o * 8 + 2 * q;
        *reinterpret_cast<uint32_t*>(outputs + at) = pack_bf16(sums[t][o][2 * half], sums[t][o][2 * half + 1]);
      }
    }
  }
}

template <int kTiles>
cudaError_t launch(const HeadRowsProduct& p, cudaStream_t stream) {
  const auto blocks = [](int count, int each) { return static_cast<unsigned>((count + each - 1) / each); };
  const dim3 grid(static_cast<unsigned>(p.heads), blocks(p.n, kWarps * kWarpOutputs), blocks(p.rows, kTiles * 16));
  const auto kernel = head_kernel<kTiles>;
  const cudaError_t error = allow_shared(kernel, 0);
  if (error != cudaSuccess) return error;
  return launch_kernel(kernel, grid, 32 * kWarps, 0, stream, true, 1, p);
}

}  // namespace

bool head_product_takes(const HeadRowsProduct& p) {
  return compute_capability() >= 80 && p.k % kChunk == 0 && p.n % kWarpOutputs == 0 && p.x_head % 8 == 0 &&
         p.y_head % 8 == 0;
}

cudaError_t launch_head_product(const HeadRowsProduct& p, cudaStream_t stream) {
  if (p.rows < 1 || p.heads < 1 || !head_product_takes(p)) return cudaErrorInvalidValue;
  if (p.rows <= 16) return launch<1>(p, stream);
  if (p.rows <= 32) return launch<2>(p, stream);
  return launch<4>(p, stream);
}

}  // namespace spillway::kernels::cuda
