// Bound by the weight's bytes: two blocks a multiprocessor, four stages of 128 of K each in flight. A warp loads, a
// warpgroup multiplies as gemm_fp8.cu does; then the blocks' sums lie in their shared memory and each block of the
// cluster adds up its share of the rows over all of them, in order.
#include <algorithm>

#include "kernels/cuda/gemm_fp8_split.h"
#include "kernels/cuda/gemm_launch.cuh"
#include "kernels/cuda/gemm_maps.h"
#include "kernels/cuda/gemm_tile_store.cuh"
#include "kernels/cuda/gemm_wgmma.cuh"

namespace spillway::kernels::cuda {
namespace {

constexpr int kRows = 64;
constexpr int kColumns = 128;
constexpr int kStageK = 128;
constexpr int kStages = 4;
constexpr int kConsumers = 128;
constexpr int kThreads = kConsumers + 32;
constexpr int kABytes = kRows * kStageK;
constexpr int kBBytes = kColumns * kStageK;
constexpr int kScaleBytes = kRows * 4;
constexpr int kStageBytes = kABytes + kBBytes + kScaleBytes;
constexpr int kSumStride = kColumns + 4;
constexpr int kSharedBytes = kStages * kStageBytes + 1024 + 2 * kStages * 8;
static_assert(kRows * kSumStride * 4 <= kStages * (kABytes + kBBytes));

struct Arguments {
  CUtensorMap a, b, scales;
  const float* weight_scales;
  TileOutput output;
  int m, k_blocks, row_tiles;
};

struct Stages {
  char* a;
  char* b;
  char* scales;
  uint64_t* full;
  uint64_t* empty;
};

// A block's tile and its share of K.
struct Part {
  int row, column, first_k, count;
};

__device__ __forceinline__ void load_x(const Arguments& args, const Stages& s, const Part& part, int i) {
  const int stage = i % kStages, k = part.first_k + i;
  ptx::tensor_load(s.a + stage * kABytes, &args.a, k * kStageK, part.row, &s.full[stage]);
  ptx::tensor_load(s.scales + stage * kScaleBytes, &args.scales, part.row, k, &s.full[stage]);
}

__device__ __forceinline__ void load_weight(const Arguments& args, const Stages& s, const Part& part, int i) {
  const int stage = i % kStages;
  ptx::barrier_expect(&s.full[stage], kStageBytes);
  ptx::tensor_load(s.b + stage * kBBytes, &args.b, (part.first_k + i) * kStageK, part.column, &s.full[stage]);
}

// One thread. The weight does not wait for the previous kernel.
__device__ void produce(const Arguments& args, const Stages& s, const Part& part) {
  const int ahead = min(kStages, part.count);
  for (int i = 0; i < ahead; ++i) load_weight(args, s, part, i);
  ptx::wait_for_previous();
  for (int i = 0; i < ahead; ++i) load_x(args, s, part, i);
  for (int i = ahead; i < part.count; ++i) {
    ptx::barrier_wait(&s.empty[i % kStages], (i / kStages - 1) & 1);
    load_weight(args, s, part, i);
    load_x(args, s, part, i);
  }
}

__device__ __forceinline__ void consume(const Arguments& args, const Stages& s, const Part& part, float (&sums)[64]) {
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const float* weight_scales = args.weight_scales + int64_t{part.column / 128} * args.k_blocks + part.first_k;
  float next_scale = part.count > 0 ? __ldg(weight_scales) : 0.0f;
  for (int i = 0; i < part.count; ++i) {
    const int stage = i % kStages;
    const float weight_scale = next_scale;
    if (i + 1 < part.count) next_scale = __ldg(weight_scales + i + 1);
    ptx::barrier_wait(&s.full[stage], i / kStages & 1);
    const uint64_t a = ptx::tile_descriptor(s.a + stage * kABytes), b = ptx::tile_descriptor(s.b + stage * kBBytes);
    const auto* scales = reinterpret_cast<const float*>(s.scales + stage * kScaleBytes);
    float products[64];
    ptx::hold(products);
    ptx::products_begin();
#pragma unroll
    for (int j = 0; j < 4; ++j) ptx::product_e4m3(products, a + 2 * j, b + 2 * j, j);
    ptx::products_commit();
    const float low = scales[warp * 16 + lane / 4] * weight_scale;
    const float high = scales[warp * 16 + lane / 4 + 8] * weight_scale;
    ptx::products_wait<0>();
    ptx::hold(products);
    __syncwarp();
    if (lane == 0) ptx::barrier_arrive(&s.empty[stage]);
#pragma unroll
    for (int j = 0; j < 64; ++j) sums[j] += (j / 2 % 2 == 0 ? low : high) * products[j];
  }
}

template <int kSplit>
__global__ void __launch_bounds__(kThreads, 2) split_kernel(const __grid_constant__ Arguments args) {
#if __CUDA_ARCH_FEAT_SM90_ALL
  extern __shared__ char shared[];
  Stages s;
  s.a = reinterpret_cast<char*>((reinterpret_cast<uintptr_t>(shared) + 1023) / 1024 * 1024);
  s.b = s.a + kStages * kABytes;
  s.scales = s.b + kStages * kBBytes;
  s.full = reinterpret_cast<uint64_t*>(s.scales + kStages * kScaleBytes);
  s.empty = s.full + kStages;
  const int thread = static_cast<int>(threadIdx.x), rank = static_cast<int>(ptx::cluster_rank());
  if (thread == 0) {
    for (int i = 0; i < kStages; ++i) {
      ptx::barrier_init(&s.full[i], 1);
      ptx::barrier_init(&s.empty[i], kConsumers / 32);
    }
    ptx::barrier_init_fence();
  }
  __syncthreads();
  ptx::launch_dependents();
  const int tile = static_cast<int>(blockIdx.x) / kSplit, first_k = args.k_blocks * rank / kSplit;
  const Part part{tile % args.row_tiles * kRows, tile / args.row_tiles * kColumns, first_k,
                  args.k_blocks * (rank + 1) / kSplit - first_k};
  auto* gathered = reinterpret_cast<float*>(s.a);
  if (thread >= kConsumers) {
    if (thread == kConsumers) produce(args, s, part);
    __syncwarp();
  } else {
    float sums[64] = {};
    consume(args, s, part, sums);
    ptx::named_barrier(1, kConsumers);  // all products are done: the stages' memory is free
    const int row = thread / 32 * 16 + thread % 32 / 4, column = thread % 4 * 2;
#pragma unroll
    for (int i = 0; i < 64; i += 2) {
      float2* to = reinterpret_cast<float2*>(gathered + (row + 8 * (i / 2 % 2)) * kSumStride + column + i / 4 * 8);
      *to = make_float2(sums[i], sums[i + 1]);
    }
  }
  ptx::cluster_sync();
  if (thread < kConsumers) {
    ptx::wait_for_previous();  // y may be its input
    constexpr int kShare = kRows / kSplit, kQuads = kColumns / 4;
    for (int i = thread; i < kShare * kQuads; i += kConsumers) {
      const int row = rank * kShare + i / kQuads, column = i % kQuads * 4;
      float4 total = load_remote(gathered + row * kSumStride + column, 0);
#pragma unroll
      for (uint32_t r = 1; r < kSplit; ++r) {
        const float4 v = load_remote(gathered + row * kSumStride + column, r);
        total.x += v.x, total.y += v.y, total.z += v.z, total.w += v.w;
      }
      if (part.row + row >= args.m || part.column + column >= args.output.n) continue;
      store_quad(args.output.y, args.output.type, args.output.add,
                 (part.row + row) * args.output.stride + part.column + column, total);
    }
  }
  __syncwarp();
  ptx::cluster_sync();  // others may still read this block's memory
#endif
}

int tiles_of(int m, int n) { return (m + kRows - 1) / kRows * ((n + kColumns - 1) / kColumns); }

}  // namespace

// With fewer stages than kStagesMin a block, what they save is less than their sums take.
int fp8_split(int m, int n, int k) {
  constexpr int kStagesMin = 6;
  for (int split = 8; split > 1; split /= 2) {
    if (tiles_of(m, n) * split <= 2 * processor_count() && k / kStageK >= kStagesMin * split) return split;
  }
  return 1;
}

cudaError_t launch_fp8_split(const Fp8Product& p, int split, cudaStream_t stream) {
  const Weight& w = p.weight;
  Arguments args;
  if (!make_map(&args.a, MapType::kBytes, p.x.q, p.m, w.k, w.k, kRows, kStageK, true) ||
      !make_map(&args.b, MapType::kBytes, w.data, w.n, w.k, w.k, kColumns, kStageK, true) ||
      !make_map(&args.scales, MapType::kF32, p.x.scales, w.k / 128, p.m, p.x.scales_stride * 4, 1, kRows, false)) {
    return cudaErrorInvalidValue;
  }
  args.weight_scales = static_cast<const float*>(w.scales);
  args.output = {p.y, p.y_type, p.y_stride, w.n, p.epilogue == Epilogue::kAdd};
  args.m = p.m;
  args.k_blocks = w.k / kStageK;
  args.row_tiles = (p.m + kRows - 1) / kRows;
  const auto kernel = split == 2 ? split_kernel<2> : split == 4 ? split_kernel<4> : split_kernel<8>;
  const cudaError_t error = allow_shared(kernel, kSharedBytes);
  if (error != cudaSuccess) return error;
  return launch_kernel(kernel, static_cast<unsigned>(tiles_of(p.m, w.n) * split), kThreads, kSharedBytes, stream, true,
                       split, args);
}

}  // namespace spillway::kernels::cuda
