// A tile is 64 or 128 rows by 288 rows of the weight, persistent, a block a multiprocessor. One warp loads 64 elements
// of K a stage; a warpgroup for each 64 rows multiplies 64 x 144 twice. With SwiGLU the two are gates and their ups,
// which meet in one thread's registers. A cluster is two blocks with neighbouring tiles, each of which loads half of x
// for both. The next tile's loads go on while a tile is stored.
#include <algorithm>

#include "kernels/cuda/gemm_bf16_wide.h"
#include "kernels/cuda/gemm_launch.cuh"
#include "kernels/cuda/gemm_maps.h"
#include "kernels/cuda/gemm_ptx.cuh"
#include "kernels/cuda/gemm_stages.cuh"
#include "kernels/cuda/gemm_wgmma.cuh"

namespace spillway::kernels::cuda {
namespace {

constexpr int kHalf = 144;  // weight rows of one product
constexpr int kStageK = 64;
constexpr int kCluster = 2;
constexpr int kBBytes = 2 * kHalf * 128;
constexpr int kSharedMax = 226 * 1024;

template <int kGroups_>
struct Tile {
  static constexpr int kGroups = kGroups_;  // of 64 rows
  static constexpr int kRows = 64 * kGroups;
  static constexpr int kThreads = 128 * (kGroups + 1);
  static constexpr int kABytes = kRows * 128;
  static constexpr int kStageBytes = kABytes + kBBytes;
  static constexpr int kStages = (kSharedMax - 2048) / kStageBytes;
  static constexpr int kSharedBytes = kStages * kStageBytes + 1024 + 2 * kStages * 8;
};

struct Arguments {
  CUtensorMap a, b;
  void* y;
  int64_t y_stride;
  Scalar y_type;
  int m, outputs, k_blocks, tiles;
  int width;       // outputs of a tile
  int second_row;  // of the weight, from a tile's first row to its second half
};

// One thread. The weight does not depend on the previous kernel.
template <typename T>
__device__ void produce(const Arguments& args, const Stages& s) {
  const int rank = static_cast<int>(ptx::cluster_rank()), first = static_cast<int>(blockIdx.x);
  const auto load_weight = [&](int tile, int kb, int stage) {
    ptx::barrier_expect(&s.full[stage], T::kStageBytes);
    char* to = s.b + stage * kBBytes;
    ptx::tensor_load(to, &args.b, kb * kStageK, tile * args.width, &s.full[stage]);
    ptx::tensor_load(to + kBBytes / 2, &args.b, kb * kStageK, tile * args.width + args.second_row, &s.full[stage]);
  };
  int loaded = 0, stage = 0;
  uint32_t phase = 0;
  for (; loaded < T::kStages && loaded < args.k_blocks; ++loaded) load_weight(first, loaded, loaded);
  ptx::wait_for_previous();
  for (int tile = first; tile - rank < args.tiles; tile += static_cast<int>(gridDim.x)) {
    for (int kb = 0; kb < args.k_blocks; ++kb) {
      if (loaded > 0) {
        --loaded;
      } else {
        ptx::barrier_wait(&s.empty[stage], phase ^ 1);
        load_weight(tile, kb, stage);
      }
      constexpr int kPart = T::kRows / kCluster;
      ptx::tensor_load_multicast(s.a + stage * T::kABytes + rank * kPart * 128, &args.a, kb * kStageK, rank * kPart,
                                 &s.full[stage], 3);
      if (++stage == T::kStages) stage = 0, phase ^= 1;
    }
  }
}

__device__ __forceinline__ void store_pair(const Arguments& args, int row, int column, float a, float b) {
  if (row >= args.m || column >= args.outputs) return;
  const int64_t at = row * args.y_stride + column;
  if (args.y_type == Scalar::kF32) {
    *reinterpret_cast<float2*>(static_cast<float*>(args.y) + at) = make_float2(a, b);
  } else {
    *reinterpret_cast<uint32_t*>(static_cast<__nv_bfloat16*>(args.y) + at) = pack_bf16(a, b);
  }
}

// silu by the fast division: many in a row at a tile's end.
__device__ __forceinline__ float gate(float v) { return __fdividef(v, 1.0f + __expf(-v)); }

template <typename T, bool kGated>
__device__ void consume(const Arguments& args, const Stages& s) {
  const int thread = static_cast<int>(threadIdx.x) - 128, group = thread / 128, lane = thread % 32;
  const int rank = static_cast<int>(ptx::cluster_rank());
  const auto leave = [&](int stage) {
    if (lane < kCluster) ptx::barrier_arrive_remote(&s.empty[stage], static_cast<uint32_t>(lane));
  };
  int stage = 0;
  uint32_t phase = 0;
  for (int tile = static_cast<int>(blockIdx.x); tile - rank < args.tiles; tile += static_cast<int>(gridDim.x)) {
    float first[kHalf / 2], second[kHalf / 2];
    for (int kb = 0; kb < args.k_blocks; ++kb) {
      ptx::barrier_wait(&s.full[stage], phase);
      const uint64_t a = ptx::tile_descriptor(s.a + stage * T::kABytes + group * 64 * 128);
      const uint64_t b = ptx::tile_descriptor(s.b + stage * kBBytes);
      constexpr uint64_t kSecond = kBBytes / 2 / 16;  // descriptors count 16 bytes
      ptx::hold(first);
      ptx::hold(second);
      ptx::products_begin();
#pragma unroll
      for (int j = 0; j < 4; ++j) ptx::product_bf16(first, a + 2 * j, b + 2 * j, kb | j);
#pragma unroll
      for (int j = 0; j < 4; ++j) ptx::product_bf16(second, a + 2 * j, b + kSecond + 2 * j, kb | j);
      ptx::products_commit();
      ptx::products_wait<1>();
      ptx::hold(first);
      ptx::hold(second);
      if (kb > 0) leave(stage == 0 ? T::kStages - 1 : stage - 1);
      if (++stage == T::kStages) stage = 0, phase ^= 1;
    }
    ptx::products_wait<0>();
    ptx::hold(first);
    ptx::hold(second);
    leave(stage == 0 ? T::kStages - 1 : stage - 1);
    const int row = group * 64 + thread % 128 / 32 * 16 + lane / 4, column = tile * args.width + lane % 4 * 2;
#pragma unroll
    for (int i = 0; i < kHalf / 2; i += 2) {
      const int at_row = row + i / 2 % 2 * 8, at = column + i / 4 * 8;
      if constexpr (kGated) {
        store_pair(args, at_row, at, gate(first[i]) * second[i], gate(first[i + 1]) * second[i + 1]);
      } else {
        store_pair(args, at_row, at, first[i], first[i + 1]);
        store_pair(args, at_row, at + kHalf, second[i], second[i + 1]);
      }
    }
  }
}

template <typename T, bool kGated>
__global__ void __launch_bounds__(T::kThreads, 1) wide_kernel(const __grid_constant__ Arguments args) {
#if __CUDA_ARCH_FEAT_SM90_ALL
  extern __shared__ char shared[];
  const Stages s = lay_stages<T::kStages, T::kABytes, kBBytes>(shared);
  if (threadIdx.x == 0) {
    ptx::prefetch_map(&args.a);
    ptx::prefetch_map(&args.b);
    open_stages<T::kStages>(s, 4 * T::kGroups * kCluster);
  }
  ptx::cluster_sync();
  ptx::launch_dependents();
  if (threadIdx.x < 128) {
    if constexpr (T::kGroups > 1) ptx::fewer_registers<40>();
    if (threadIdx.x == 0) produce<T>(args, s);
  } else {
    if constexpr (T::kGroups > 1) ptx::more_registers<232>();
    ptx::wait_for_previous();  // y may be its input
    consume<T, kGated>(args, s);
  }
  __syncwarp();
  ptx::cluster_sync();  // nobody leaves while the other block may still arrive at its barriers
#endif
}

template <int kGroups, bool kGated>
cudaError_t launch(const Bf16Product& p, cudaStream_t stream) {
  using T = Tile<kGroups>;
  const Weight& w = p.weight;
  Arguments args;
  if (!make_map(&args.a, MapType::kBf16, p.x, p.m, w.k, p.x_stride * 2, T::kRows / kCluster, kStageK, true) ||
      !make_map(&args.b, MapType::kBf16, w.data, w.n, w.k, int64_t{w.k} * 2, kHalf, kStageK, true)) {
    return cudaErrorInvalidValue;
  }
  args.y = p.y, args.y_stride = p.y_stride, args.y_type = p.y_type;
  args.m = p.m;
  args.outputs = kGated ? w.n / 2 : w.n;
  args.k_blocks = w.k / kStageK;
  args.width = kGated ? kHalf : 2 * kHalf;
  args.second_row = kGated ? w.n / 2 : kHalf;
  args.tiles = (args.outputs + args.width - 1) / args.width;
  const auto kernel = wide_kernel<T, kGated>;
  const cudaError_t error = allow_shared(kernel, T::kSharedBytes);
  if (error != cudaSuccess) return error;
  const int clusters = std::min(processor_count(), args.tiles + args.tiles % kCluster) / kCluster;
  return launch_kernel(kernel, static_cast<unsigned>(clusters * kCluster), T::kThreads, T::kSharedBytes, stream, true,
                       kCluster, args);
}

}  // namespace

bool bf16_wide_takes(const Bf16Product& p) {
  const Weight& w = p.weight;
  const bool gated = p.epilogue == Epilogue::kSwiGlu;
  return compute_capability() == 90 && p.m >= 1 && p.m <= 128 && w.format == WeightFormat::kBf16 && p.bias == nullptr &&
         (gated || p.epilogue == Epilogue::kStore) && w.n % (gated ? 16 : 8) == 0 && w.k >= kStageK &&
         w.k % kStageK == 0 && p.x_stride % 8 == 0 && p.y_stride % 2 == 0 && p.y_type != Scalar::kF16;
}

cudaError_t launch_bf16_wide_product(const Bf16Product& p, cudaStream_t stream) {
  if (!bf16_wide_takes(p)) return cudaErrorInvalidValue;
  const bool gated = p.epilogue == Epilogue::kSwiGlu;
  if (p.m <= 64) return gated ? launch<1, true>(p, stream) : launch<1, false>(p, stream);
  return gated ? launch<2, true>(p, stream) : launch<2, false>(p, stream);
}

}  // namespace spillway::kernels::cuda
