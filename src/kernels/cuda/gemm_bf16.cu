// One tile of 64 or 128 rows by 112 or 144 outputs a block, two blocks a multiprocessor. A cluster is either 2 or 4
// blocks that split K of one tile (few outputs) or neighbours that share x's tile by multicast. A stage is 64 elements
// of K; a warpgroup for each 64 rows multiplies. The sums meet in shared memory, are added over the cluster, and leave
// in whole rows. The weight's first stages are loaded before the previous kernel ends.
#include <algorithm>

#include "kernels/cuda/gemm_bf16.h"
#include "kernels/cuda/gemm_launch.cuh"
#include "kernels/cuda/gemm_maps.h"
#include "kernels/cuda/gemm_stages.cuh"
#include "kernels/cuda/gemm_tile_store.cuh"
#include "kernels/cuda/gemm_wgmma.cuh"

namespace spillway::kernels::cuda {
namespace {

constexpr int kStageK = 64;
constexpr int kSharedMax = 112 * 1024;  // twice in a multiprocessor

template <int kGroups_, int kColumns_, int kSplit_, int kShare_>
struct Tile {
  static constexpr int kGroups = kGroups_;
  static constexpr int kColumns = kColumns_;
  static constexpr int kSplit = kSplit_;
  static constexpr int kShare = kShare_;
  static constexpr int kRows = 64 * kGroups;
  static constexpr int kThreads = 128 * kGroups;
  static constexpr int kABytes = kRows * 128;
  static constexpr int kBBytes = kColumns * 128;
  static constexpr int kStageBytes = kABytes + kBBytes;
  static constexpr int kStages = (kSharedMax - 2048) / kStageBytes;
  static constexpr int kSumStride = kColumns + 4;
  static constexpr int kSharedBytes = kStages * kStageBytes + 1024 + 128;
  static_assert(kRows * kSumStride * 4 <= kStages * kStageBytes);
};

struct Arguments {
  CUtensorMap a, b;
  Bf16Product p;
  int k_blocks;
  int row_tiles;
};

// This block's tile and share of K.
struct Part {
  int row, unit, first_k, end_k, second_row;
  uint32_t rank;
};

template <typename T>
__device__ __forceinline__ Part find_part(const Arguments& args) {
  constexpr int kCluster = T::kSplit * T::kShare;
  const Bf16Product& p = args.p;
  const bool gated = p.epilogue == Epilogue::kSwiGlu;
  Part part;
  part.rank = kCluster > 1 ? ptx::cluster_rank() : 0;
  const int tile = static_cast<int>(blockIdx.x) / kCluster;
  part.row = tile % args.row_tiles * T::kRows;
  const int column_tile = tile / args.row_tiles * T::kShare + (T::kShare > 1 ? static_cast<int>(part.rank) : 0);
  part.unit = column_tile * (gated ? T::kColumns / 2 : T::kColumns);
  part.second_row = part.unit + (gated ? p.weight.n / 2 : T::kColumns / 2);
  const int slice = T::kSplit > 1 ? static_cast<int>(part.rank) : 0;
  part.first_k = args.k_blocks * slice / T::kSplit;
  part.end_k = args.k_blocks * (slice + 1) / T::kSplit;
  return part;
}

template <typename T>
__device__ __forceinline__ void load_weight(const Arguments& args, const Stages& s, const Part& part, int i) {
  const int stage = i % T::kStages, k = (part.first_k + i) * kStageK;
  ptx::barrier_expect(&s.full[stage], T::kStageBytes);
  char* to = s.b + stage * T::kBBytes;
  ptx::tensor_load(to, &args.b, k, part.unit, &s.full[stage]);
  ptx::tensor_load(to + T::kBBytes / 2, &args.b, k, part.second_row, &s.full[stage]);
}

template <typename T>
__device__ __forceinline__ void load_x(const Arguments& args, const Stages& s, const Part& part, int i) {
  const int stage = i % T::kStages, k = (part.first_k + i) * kStageK;
  constexpr int kPart = T::kRows / T::kShare;
  if constexpr (T::kShare > 1) {
    ptx::tensor_load_multicast(s.a + stage * T::kABytes + part.rank * kPart * 128, &args.a, k,
                               part.row + static_cast<int>(part.rank) * kPart, &s.full[stage], (1 << T::kShare) - 1);
  } else {
    ptx::tensor_load(s.a + stage * T::kABytes, &args.a, k, part.row, &s.full[stage]);
  }
}

// One thread also loads: while the products of stage i run, it refills that of i - 1 as soon as everybody has left it.
template <typename T>
__device__ void multiply(const Arguments& args, const Stages& s, const Part& part, float (&sums)[T::kColumns / 2]) {
  const int group = threadIdx.x / 128;
  const int count = part.end_k - part.first_k;
  if (threadIdx.x == 0) {
    for (int i = 0; i < T::kStages && i < count; ++i) load_weight<T>(args, s, part, i);
    ptx::wait_for_previous();
    for (int i = 0; i < T::kStages && i < count; ++i) load_x<T>(args, s, part, i);
  }
  __syncwarp();
  for (int i = 0; i < count; ++i) {
    const int stage = i % T::kStages;
    ptx::barrier_wait(&s.full[stage], i / T::kStages & 1);
    const uint64_t a = ptx::tile_descriptor(s.a + stage * T::kABytes + group * 64 * 128);
    const uint64_t b = ptx::tile_descriptor(s.b + stage * T::kBBytes);
    ptx::hold(sums);
    ptx::products_begin();
#pragma unroll
    for (int j = 0; j < 4; ++j) ptx::product_bf16(sums, a + 2 * j, b + 2 * j, 1);
    ptx::products_commit();
    ptx::products_wait<1>();
    ptx::hold(sums);
    if (i == 0) continue;
    const int left = (i - 1) % T::kStages;
    if (threadIdx.x % 32 < T::kShare) {
      if constexpr (T::kShare > 1) {
        ptx::barrier_arrive_remote(&s.empty[left], threadIdx.x % 32);
      } else {
        ptx::barrier_arrive(&s.empty[left]);
      }
    }
    if (threadIdx.x == 0 && i - 1 + T::kStages < count) {
      ptx::barrier_wait(&s.empty[left], (i - 1) / T::kStages & 1);
      load_weight<T>(args, s, part, i - 1 + T::kStages);
      load_x<T>(args, s, part, i - 1 + T::kStages);
    }
    __syncwarp();
  }
  ptx::products_wait<0>();
  ptx::hold(sums);
}

// Four neighbouring sums of one row, over the cluster's slices of K in order.
template <typename T>
__device__ __forceinline__ float4 take_sums(const float* sums, int row, int column) {
  const float* at = sums + row * T::kSumStride + column;
  if constexpr (T::kSplit == 1) {
    return *reinterpret_cast<const float4*>(at);
  } else {
    float4 total = load_remote(at, 0);
#pragma unroll
    for (uint32_t r = 1; r < T::kSplit; ++r) {
      const float4 v = load_remote(at, r);
      total.x += v.x, total.y += v.y, total.z += v.z, total.w += v.w;
    }
    return total;
  }
}

template <typename T>
__device__ void finish(const Arguments& args, const Part& part, const float* sums) {
  const Bf16Product& p = args.p;
  const bool gated = p.epilogue == Epilogue::kSwiGlu;
  const int outputs = gated ? p.weight.n / 2 : p.weight.n;
  const int width = gated ? T::kColumns / 2 : T::kColumns, quads = width / 4;
  const int first_row = T::kSplit > 1 ? static_cast<int>(part.rank) * T::kRows / T::kSplit : 0;
  for (int i = threadIdx.x; i < T::kRows / T::kSplit * quads; i += T::kThreads) {
    const int row = first_row + i / quads, column = i % quads * 4;
    if (part.row + row >= p.m || part.unit + column >= outputs) continue;
    float4 v = take_sums<T>(sums, row, column);
    const auto add_bias = [&](float4* to, int from) {
      if (p.bias == nullptr) return;
      const float4 b = *reinterpret_cast<const float4*>(p.bias + from);
      to->x += b.x, to->y += b.y, to->z += b.z, to->w += b.w;
    };
    add_bias(&v, part.unit + column);
    if (gated) {
      float4 up = take_sums<T>(sums, row, column + width);
      add_bias(&up, part.second_row + column);
      v = make_float4(silu(v.x) * up.x, silu(v.y) * up.y, silu(v.z) * up.z, silu(v.w) * up.w);
    }
    store_quad(p.y, p.y_type, p.epilogue == Epilogue::kAdd, (part.row + row) * p.y_stride + part.unit + column, v);
  }
}

template <typename T>
__global__ void __launch_bounds__(T::kThreads, 2) bf16_kernel(const __grid_constant__ Arguments args) {
#if __CUDA_ARCH_FEAT_SM90_ALL
  extern __shared__ char shared[];
  constexpr bool kClustered = T::kSplit * T::kShare > 1;
  const Stages s = lay_stages<T::kStages, T::kABytes, T::kBBytes>(shared);
  if (threadIdx.x == 0) {
    open_stages<T::kStages>(s, 4 * T::kGroups * T::kShare);
  }
  if constexpr (kClustered) {
    ptx::cluster_sync();
  } else {
    __syncthreads();
  }
  ptx::launch_dependents();
  const Part part = find_part<T>(args);
  auto* gathered = reinterpret_cast<float*>(s.a);
  float sums[T::kColumns / 2] = {};
  multiply<T>(args, s, part, sums);
  __syncthreads();  // all products are done: the stages' memory is free
  const int row = threadIdx.x / 32 * 16 + threadIdx.x % 32 / 4, column = threadIdx.x % 4 * 2;
#pragma unroll
  for (int i = 0; i < T::kColumns / 2; i += 2) {
    float2* to = reinterpret_cast<float2*>(gathered + (row + 8 * (i / 2 % 2)) * T::kSumStride + column + i / 4 * 8);
    *to = make_float2(sums[i], sums[i + 1]);
  }
  if constexpr (T::kSplit > 1) {
    ptx::cluster_sync();
  } else {
    __syncthreads();
  }
  ptx::wait_for_previous();  // y may be its input
  finish<T>(args, part, gathered);
  if constexpr (kClustered) {
    __syncwarp();
    ptx::cluster_sync();  // others may still read this block's memory or arrive at its barriers
  }
#endif
}

template <typename T>
cudaError_t launch(const Bf16Product& p, cudaStream_t stream) {
  Arguments args;
  args.p = p;
  args.k_blocks = p.weight.k / kStageK;
  args.row_tiles = (p.m + T::kRows - 1) / T::kRows;
  if (!make_map(&args.a, MapType::kBf16, p.x, p.m, p.weight.k, p.x_stride * 2, T::kRows / T::kShare, kStageK, true) ||
      !make_map(&args.b, MapType::kBf16, p.weight.data, p.weight.n, p.weight.k, int64_t{p.weight.k} * 2,
                T::kColumns / 2, kStageK, true)) {
    return cudaErrorInvalidValue;
  }
  const auto kernel = bf16_kernel<T>;
  const cudaError_t error = allow_shared(kernel, T::kSharedBytes);
  if (error != cudaSuccess) return error;
  const int outputs_tile = T::kShare * (p.epilogue == Epilogue::kSwiGlu ? T::kColumns / 2 : T::kColumns);
  const int outputs = p.epilogue == Epilogue::kSwiGlu ? p.weight.n / 2 : p.weight.n;
  const int tiles = (outputs + outputs_tile - 1) / outputs_tile * args.row_tiles;
  constexpr int kCluster = T::kSplit * T::kShare;
  return launch_kernel(kernel, dim3(static_cast<unsigned>(tiles * kCluster)), T::kThreads, T::kSharedBytes, stream,
                       true, kCluster, args);
}

// The tile's width that leaves the fewest blocks idle in the last round, or splits K where there are few tiles.
template <int kGroups>
cudaError_t launch_rows(const Bf16Product& p, cudaStream_t stream) {
  const int processors = processor_count();
  const auto tiles = [&](int columns) { return (p.weight.n + columns - 1) / columns; };
  const int slots = 2 * processors;
  if (tiles(112) * 4 <= processors) return launch<Tile<kGroups, 112, 4, 1>>(p, stream);
  if (tiles(144) * 4 <= slots) return launch<Tile<kGroups, 144, 4, 1>>(p, stream);
  if (tiles(144) * 2 <= slots) return launch<Tile<kGroups, 144, 2, 1>>(p, stream);
  if (p.share == 1) return launch<Tile<kGroups, 144, 1, 1>>(p, stream);
  return launch<Tile<kGroups, 144, 1, 2>>(p, stream);
}

}  // namespace

cudaError_t launch_bf16_product(const Bf16Product& p, cudaStream_t stream) {
  const Weight& w = p.weight;
  if (p.m < 1 || w.format != WeightFormat::kBf16 || w.n % 8 != 0 || w.k < kStageK || w.k % kStageK != 0 ||
      p.x_stride % 8 != 0 || p.y_type == Scalar::kF16 || p.y_stride % 4 != 0) {
    return cudaErrorInvalidValue;
  }
  const int rows = p.tile_rows != 0 ? p.tile_rows : p.m <= 64 ? 64 : 128;
  if (rows == 64) return launch_rows<1>(p, stream);
  if (rows == 128) return launch_rows<2>(p, stream);
  return cudaErrorInvalidValue;
}

}  // namespace spillway::kernels::cuda
