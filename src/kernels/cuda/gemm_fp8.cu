// Blocks of 64, 128, 192 or 256 rows by 128 outputs, persistent. One warp loads 128 bytes of K a stage with tensor
// copies (x shared by the two blocks of a cluster, which take neighbouring outputs of the same rows); one to three
// warpgroups multiply on the tensor cores and add each stage's sums, times both scales, to float32 registers: while one
// warpgroup adds, another one multiplies. Of prompts, plain bf16 outputs leave through shared memory by tensor copies.
#include <algorithm>

#include "kernels/cuda/gemm_fp8.h"
#include "kernels/cuda/gemm_fp8_split.h"
#include "kernels/cuda/gemm_launch.cuh"
#include "kernels/cuda/gemm_maps.h"
#include "kernels/cuda/gemm_tile_stage.cuh"
#include "kernels/cuda/gemm_tile_store.cuh"
#include "kernels/cuda/gemm_tiles.cuh"
#include "kernels/cuda/gemm_wgmma.cuh"

namespace spillway::kernels::cuda {
namespace {

constexpr int kTileN = 128;
constexpr int kStageK = 128;
constexpr int kSharedMax = 227 * 1024;

template <int kGroups_, int kWaves_, int kCluster_, int kResident_ = 1, bool kStaged_ = false>
struct Tile {
  static constexpr int kGroups = kGroups_;      // warpgroups that multiply
  static constexpr int kWaves = kWaves_;        // products of 64 rows, one after the other, of a warpgroup
  static constexpr int kCluster = kCluster_;    // blocks that share x
  static constexpr int kResident = kResident_;  // blocks at once in a multiprocessor
  static constexpr bool kStaged = kStaged_;     // outputs leave through shared memory
  // Two warpgroups take turns in starting products, but where their ends are short.
  static constexpr bool kTurns = kGroups == 2 && !kStaged;
  static constexpr int kRows = 64 * kGroups * kWaves;
  static constexpr int kThreads = 128 * (kGroups + 1);
  static constexpr int kABytes = kRows * kStageK;
  static constexpr int kBBytes = kTileN * kStageK;
  static constexpr int kScaleBytes = kRows * 4;
  static constexpr int kStageBytes = kABytes + kBBytes + kScaleBytes;
  static constexpr int kStagingBytes = kStaged ? kRows * kTileN * 2 : 0;
  static constexpr int kStages = std::min(8, (kSharedMax / kResident - 2048 - kStagingBytes) / kStageBytes);
  // Registers of a thread that loads and of one that multiplies, once they have parted; 0: as they start.
  static constexpr int kFew = kGroups == 3 ? 32 : kGroups == 2 || kResident == 2 ? 24 : 0;
  static constexpr int kMany = kFew == 0 ? 0 : kGroups == 3 ? 160 : kGroups == 2 ? 240 : 232;
  static constexpr int kSharedBytes = kStagingBytes + kStages * kStageBytes + 1024 + 256;
};

struct Arguments {
  CUtensorMap a, b, scales;  // x, W, x's scales
  CUtensorMap y;             // where outputs are staged
  TilePlan tiles;
  int k_blocks;
  const float* weight_scales;
  TileOutput output;
};

template <typename T>
struct Stages {
  char* staging;
  char* a;
  char* b;
  char* scales;
  uint64_t* full;
  uint64_t* empty;
};

template <typename T>
__device__ __forceinline__ Stages<T> carve(char* shared) {
  char* base = reinterpret_cast<char*>((reinterpret_cast<uintptr_t>(shared) + 1023) / 1024 * 1024);
  Stages<T> s;
  s.staging = base;
  s.a = base + T::kStagingBytes;
  s.b = s.a + T::kStages * T::kABytes;
  s.scales = s.b + T::kStages * T::kBBytes;
  s.full = reinterpret_cast<uint64_t*>(s.scales + T::kStages * T::kScaleBytes);
  s.empty = s.full + T::kStages;
  return s;
}

template <typename T, TileMode kMode>
__device__ void produce(const Arguments& args, const Stages<T>& s, const int* starts) {
  const uint32_t rank = T::kCluster > 1 ? ptx::cluster_rank() : 0;
  TileWalk<T::kRows, kTileN, T::kCluster, kMode> walk(args.tiles, starts);
  const auto load_weight = [&](const TilePlace& place, int kb, int to) {
    ptx::barrier_expect(&s.full[to], T::kStageBytes);
    ptx::tensor_load(s.b + to * T::kBBytes, &args.b, kb * kStageK, place.w_row, &s.full[to]);
  };
  int stage = 0, loaded = 0;
  uint32_t phase = 0;
  if constexpr (kMode == TileMode::kDense) {  // the weight does not depend on the previous kernel
    auto first = walk;
    TilePlace place;
    if (first.next(&place)) {
      for (; loaded < T::kStages && loaded < args.k_blocks; ++loaded) load_weight(place, loaded, loaded);
    }
    ptx::wait_for_previous();
  }
  for (TilePlace place; walk.next(&place);) {
    for (int kb = 0; kb < args.k_blocks; ++kb) {
      if (loaded > 0) {
        --loaded;
      } else {
        ptx::barrier_wait(&s.empty[stage], phase ^ 1);
        load_weight(place, kb, stage);
      }
      constexpr int kPart = T::kRows / T::kCluster;
      char* a = s.a + stage * T::kABytes + rank * kPart * kStageK;
      const int row = place.x_row + static_cast<int>(rank) * kPart;
      if constexpr (T::kCluster > 1) {
        ptx::tensor_load_multicast(a, &args.a, kb * kStageK, row, &s.full[stage], (1 << T::kCluster) - 1);
      } else {
        ptx::tensor_load(a, &args.a, kb * kStageK, row, &s.full[stage]);
      }
      ptx::tensor_load(s.scales + stage * T::kScaleBytes, &args.scales, place.x_row, kb, &s.full[stage]);
      if (++stage == T::kStages) stage = 0, phase ^= 1;
    }
  }
}

// Each warp its rows, in memory that only it uses; its products go on while the copy engine stores.
template <typename T>
__device__ __forceinline__ void store_staged(const Arguments& args, const Stages<T>& s, const TilePlace& place,
                                             const float (&sums)[T::kWaves][64]) {
  const int group = threadIdx.x / 128 - 1, warp = threadIdx.x / 32 % 4, lane = threadIdx.x % 32;
  const auto first_row = [&](int w) { return (w * T::kGroups + group) * 64 + warp * 16; };
  const auto boxes = [&](int w) { return s.staging + first_row(w) / 8 * kStagedBoxBytes; };
  if (lane == 0) ptx::stores_wait_read();
  __syncwarp();
#pragma unroll
  for (int w = 0; w < T::kWaves; ++w) stage_rows(boxes(w), sums[w]);
  ptx::publish_staged();
  __syncwarp();
  if (lane != 0) return;
#pragma unroll
  for (int w = 0; w < T::kWaves; ++w) {
    const int row = place.x_row + first_row(w);
    if (row >= place.rows_end) continue;
    ptx::tensor_store(&args.y, boxes(w), place.column, row);
    if (place.column + 64 < args.output.n) {
      ptx::tensor_store(&args.y, boxes(w) + kStagedBoxBytes, place.column + 64, row);
    }
  }
  ptx::stores_commit();
}

template <typename T, TileMode kMode>
__device__ void consume(const Arguments& args, const Stages<T>& s, const int* starts) {
  const int group = threadIdx.x / 128 - 1, warp = threadIdx.x / 32 % 4, lane = threadIdx.x % 32;
  TileWalk<T::kRows, kTileN, T::kCluster, kMode> walk(args.tiles, starts);
  int stage = 0;
  uint32_t phase = 0;
  // The warpgroups take turns in starting products: one adds while the other one's run.
  if (T::kTurns && group == 1) ptx::named_arrive(2, 256);
  for (TilePlace place; walk.next(&place);) {
    float sums[T::kWaves][64] = {};
    const float* weight_scales = args.weight_scales + static_cast<int64_t>(place.scale_row) * args.k_blocks;
    float next_scale = __ldg(weight_scales);
    for (int kb = 0; kb < args.k_blocks; ++kb) {
      const float weight_scale = next_scale;
      if (kb + 1 < args.k_blocks) next_scale = __ldg(weight_scales + kb + 1);
      ptx::barrier_wait(&s.full[stage], phase);
      const uint64_t b = ptx::tile_descriptor(s.b + stage * T::kBBytes);
      const auto* scales = reinterpret_cast<const float*>(s.scales + stage * T::kScaleBytes);
#pragma unroll
      for (int w = 0; w < T::kWaves; ++w) {
        const int row = (w * T::kGroups + group) * 64;
        const uint64_t a = ptx::tile_descriptor(s.a + stage * T::kABytes + row * kStageK);
        float part[64];
        if constexpr (T::kTurns) ptx::named_barrier(2 + group, 256);
        ptx::hold(part);
        ptx::products_begin();
#pragma unroll
        for (int i = 0; i < 4; ++i) ptx::product_e4m3(part, a + 2 * i, b + 2 * i, i);
        ptx::products_commit();
        if constexpr (T::kTurns) ptx::named_arrive(3 - group, 256);
        const float low = scales[row + warp * 16 + lane / 4] * weight_scale;
        const float high = scales[row + warp * 16 + lane / 4 + 8] * weight_scale;
        ptx::products_wait<0>();
        ptx::hold(part);
        if (w == T::kWaves - 1 && lane < T::kCluster) {  // each warp for itself: it has read its scales
          if constexpr (T::kCluster > 1) {
            ptx::barrier_arrive_remote(&s.empty[stage], lane);
          } else {
            ptx::barrier_arrive(&s.empty[stage]);
          }
        }
#pragma unroll
        for (int i = 0; i < 64; i += 4) {
          sums[w][i] += low * part[i];
          sums[w][i + 1] += low * part[i + 1];
          sums[w][i + 2] += high * part[i + 2];
          sums[w][i + 3] += high * part[i + 3];
        }
      }
      if (++stage == T::kStages) stage = 0, phase ^= 1;
    }
    if constexpr (T::kStaged) {
      store_staged<T>(args, s, place, sums);
    } else {
#pragma unroll
      for (int w = 0; w < T::kWaves; ++w) {
        const int row = (w * T::kGroups + group) * 64 + warp * 16 + lane / 4;
        store_wave(args.output, place, row, sums[w]);
      }
    }
  }
  if (T::kStaged && lane == 0) ptx::stores_wait();
}

template <typename T, TileMode kMode>
__global__ void __launch_bounds__(T::kThreads, T::kResident) fp8_kernel(const __grid_constant__ Arguments args) {
#if __CUDA_ARCH_FEAT_SM90_ALL
  extern __shared__ char shared[];
  const Stages<T> s = carve<T>(shared);
  if (threadIdx.x == 0) {
    ptx::prefetch_map(&args.a);
    ptx::prefetch_map(&args.b);
    ptx::prefetch_map(&args.scales);
    for (int i = 0; i < T::kStages; ++i) {
      ptx::barrier_init(&s.full[i], 1);
      ptx::barrier_init(&s.empty[i], 4 * T::kGroups * T::kCluster);
    }
    ptx::barrier_init_fence();
  }
  if constexpr (T::kCluster > 1) {
    ptx::cluster_sync();
  } else {
    __syncthreads();
  }
  ptx::launch_dependents();
  if (kMode != TileMode::kDense || threadIdx.x >= 128) ptx::wait_for_previous();
  __shared__ int starts[kMode == TileMode::kMasked ? kExpertsMax + 1 : 1];
  if constexpr (kMode == TileMode::kMasked) {
    if (threadIdx.x < 32) count_row_tiles<T::kRows>(args.tiles, starts);
    __syncthreads();
  }
  if (threadIdx.x < 128) {
    if constexpr (T::kFew > 0) ptx::fewer_registers<T::kFew>();
    if (threadIdx.x == 0) produce<T, kMode>(args, s, starts);
  } else {
    if constexpr (T::kFew > 0) ptx::more_registers<T::kMany>();
    consume<T, kMode>(args, s, starts);
  }
  if constexpr (T::kCluster > 1) {
    __syncwarp();
    ptx::cluster_sync();  // nobody leaves while another block may still arrive at its barriers
  }
#endif
}

struct Problem {
  TileMode mode;
  int m, n, k;
  int experts, rows_max;
  const int32_t* block_experts;
  const int32_t* counts;
  QuantizedActivations x;
  const void* w;
  const float* w_scales;
  void* y;
  Scalar y_type;
  int64_t y_stride;
  bool add;
};

bool valid(const Problem& p) {
  if (p.m < 1 || p.n < 8 || p.n % 8 != 0 || p.k < 128 || p.k % 128 != 0 || p.y_type == Scalar::kF16) return false;
  if (p.x.scales_stride < p.m || p.x.scales_stride % 4 != 0) return false;
  if (p.experts < 1 || p.experts > kExpertsMax) return false;
  if (p.mode == TileMode::kContiguous) return p.block_experts != nullptr;
  if (p.mode == TileMode::kMasked) return p.rows_max % 64 == 0 && p.counts != nullptr && p.m == p.experts * p.rows_max;
  return true;
}

template <typename T, TileMode kMode>
cudaError_t launch(const Problem& p, cudaStream_t stream) {
  Arguments args;
  const int64_t w_rows = static_cast<int64_t>(p.n) * p.experts;
  if (!make_map(&args.a, MapType::kBytes, p.x.q, p.m, p.k, p.k, T::kRows / T::kCluster, kStageK, true) ||
      !make_map(&args.b, MapType::kBytes, p.w, w_rows, p.k, p.k, kTileN, kStageK, true) ||
      !make_map(&args.scales, MapType::kF32, p.x.scales, p.k / 128, p.m, p.x.scales_stride * 4, 1, T::kRows, false)) {
    return cudaErrorInvalidValue;
  }
  if (T::kStaged && !make_map(&args.y, MapType::kBf16, p.y, p.m, p.n, p.y_stride * 2, 16, 64, true)) {
    return cudaErrorInvalidValue;
  }
  args.tiles = {p.m, p.n, p.experts, p.rows_max, p.block_experts, p.counts};
  args.k_blocks = p.k / 128;
  args.weight_scales = p.w_scales;
  args.output = {p.y, p.y_type, p.y_stride, p.n, p.add};
  const auto kernel = fp8_kernel<T, kMode>;
  const cudaError_t error = allow_shared(kernel, T::kSharedBytes);
  if (error != cudaSuccess) return error;
  const int tiles = (p.m + T::kRows - 1) / T::kRows * ((p.n + kTileN * T::kCluster - 1) / (kTileN * T::kCluster));
  const int clusters = std::min(processor_count() * T::kResident / T::kCluster, tiles);
  return launch_kernel(kernel, static_cast<unsigned>(clusters * T::kCluster), T::kThreads, T::kSharedBytes, stream,
                       true, T::kCluster, args);
}

// Rows of a prompt's tile: rounds of tiles over the multiprocessors by what a stage and a tile's end were measured to
// take (clocks, NOTES-products.md). Three warpgroups load more for their products, so they must be faster by more than
// a little.
int prompt_tile_rows(int m, int n, int k) {
  const auto clocks = [&](int rows, int64_t stage, int64_t end) {
    const int64_t pairs = int64_t{(m + rows - 1) / rows} * ((n + 2 * kTileN - 1) / (2 * kTileN));
    const int64_t at_once = std::max(processor_count() / 2, 1);
    return (pairs + at_once - 1) / at_once * (k / kStageK * stage + end);
  };
  return clocks(192, 985, 1700) * 103 < clocks(256, 1300, 2400) * 100 ? 192 : 256;
}

}  // namespace

cudaError_t launch_fp8_product(const Fp8Product& p, cudaStream_t stream) {
  const Problem problem{TileMode::kDense,
                        p.m,
                        p.weight.n,
                        p.weight.k,
                        1,
                        0,
                        nullptr,
                        nullptr,
                        p.x,
                        p.weight.data,
                        static_cast<const float*>(p.weight.scales),
                        p.y,
                        p.y_type,
                        p.y_stride,
                        p.epilogue == Epilogue::kAdd};
  if (!valid(problem) || p.weight.format != WeightFormat::kF8Block || p.weight.scale_rows != 128 ||
      p.epilogue == Epilogue::kSwiGlu) {
    return cudaErrorInvalidValue;
  }
  const int split = p.split != 0 ? p.split : p.tile_rows != 0 ? 1 : fp8_split(p.m, p.weight.n, p.weight.k);
  if (split != 1) return launch_fp8_split(p, split, stream);
  const bool staged = p.y_type == Scalar::kBf16 && p.epilogue == Epilogue::kStore && p.y_stride % 8 == 0;
  const int rows = p.tile_rows != 0 ? p.tile_rows
                   : p.m <= 64      ? 64
                   : p.m <= 512     ? 128
                   : staged         ? prompt_tile_rows(p.m, p.weight.n, p.weight.k)
                                    : 256;
  if (rows == 64) return launch<Tile<1, 1, 1, 2>, TileMode::kDense>(problem, stream);
  if (rows == 128) return launch<Tile<2, 1, 2>, TileMode::kDense>(problem, stream);
  if (rows == 192 && staged) return launch<Tile<3, 1, 2, 1, true>, TileMode::kDense>(problem, stream);
  if (rows == 192) return launch<Tile<3, 1, 2>, TileMode::kDense>(problem, stream);
  if (rows == 256 && staged) return launch<Tile<2, 2, 2, 1, true>, TileMode::kDense>(problem, stream);
  if (rows == 256) return launch<Tile<2, 2, 2>, TileMode::kDense>(problem, stream);
  return cudaErrorInvalidValue;
}

cudaError_t launch_fp8_grouped_product(const Fp8GroupedProduct& p, cudaStream_t stream) {
  const bool masked = p.counts != nullptr;
  const Problem problem{masked ? TileMode::kMasked : TileMode::kContiguous,
                        p.m,
                        p.weight.n,
                        p.weight.k,
                        p.experts,
                        p.rows_max,
                        p.block_experts,
                        p.counts,
                        p.x,
                        p.weight.data,
                        static_cast<const float*>(p.weight.scales),
                        p.y,
                        p.y_type,
                        p.y_stride,
                        false};
  if (!valid(problem) || p.weight.scale_rows != 128) return cudaErrorInvalidValue;
  if (masked) return launch<Tile<1, 1, 1, 2>, TileMode::kMasked>(problem, stream);
  if (p.m % p.block_rows != 0) return cudaErrorInvalidValue;
  if (p.block_rows == 64) return launch<Tile<1, 1, 1, 2>, TileMode::kContiguous>(problem, stream);
  const bool staged = p.y_type == Scalar::kBf16 && p.y_stride % 8 == 0;
  if (p.block_rows == 128 && staged) return launch<Tile<2, 1, 2, 1, true>, TileMode::kContiguous>(problem, stream);
  if (p.block_rows == 128) return launch<Tile<2, 1, 2>, TileMode::kContiguous>(problem, stream);
  return cudaErrorInvalidValue;
}

}  // namespace spillway::kernels::cuda
