// Tiles of 128 rows of the weight (two products of 64: neighbours, or 64 gates and their ups) by 16 or 32 rows of x;
// two blocks a multiprocessor, persistent. One thread loads 128 bytes of K a stage with tensor copies, one warpgroup
// multiplies and adds each stage's sums, times both scales, to float32 registers.
#include <algorithm>

#include "kernels/cuda/gemm_fp8_few_rows.h"
#include "kernels/cuda/gemm_launch.cuh"
#include "kernels/cuda/gemm_maps.h"
#include "kernels/cuda/gemm_wgmma.cuh"

namespace spillway::kernels::cuda {
namespace {

constexpr int kStageK = 128;
constexpr int kWaveOutputs = 64;
constexpr int kThreads = 256;  // a warpgroup that loads, one that multiplies
constexpr int kBlocksEach = 2;
constexpr int kSharedMax = 227 * 1024 / kBlocksEach;
constexpr int kBand = 8;  // row blocks whose tiles are in flight together: an expert of two blocks is read once

template <int kRows_>
struct Shape {
  static constexpr int kRows = kRows_;
  static constexpr int kSums = kRows / 2;  // of a thread and wave
  static constexpr int kWaveBytes = kWaveOutputs * kStageK;
  static constexpr int kXBytes = kRows * kStageK;
  static constexpr int kScaleBytes = 128;  // of a stage; kRows * 4 of them used
  static constexpr int kTransferBytes = 2 * kWaveBytes + kXBytes + kRows * 4;
  static constexpr int kStages = (kSharedMax - 2048) / (2 * kWaveBytes + kXBytes + kScaleBytes);
  static constexpr int kSharedBytes = kStages * (2 * kWaveBytes + kXBytes + kScaleBytes) + 1024 + 16 * kStages;
};

struct Arguments {
  CUtensorMap w, x, scales, shared;
  const int32_t* block_experts;
  const int32_t* block_counts;
  const float* weight_scales;
  const float* shared_scales;
  int experts;
  int row_blocks, tiles;  // tiles: of an expert's outputs
  int k_blocks, n;
  int outputs;  // of a tile: 128, or 64 where gates and ups meet
  __nv_bfloat16* y;
  int64_t y_stride;
};

template <class S>
struct Ring {
  char *w, *x, *scales;
  uint64_t *full, *empty;
  __device__ explicit Ring(char* shared) {
    w = reinterpret_cast<char*>((reinterpret_cast<uintptr_t>(shared) + 1023) / 1024 * 1024);
    x = w + S::kStages * 2 * S::kWaveBytes;
    scales = x + S::kStages * S::kXBytes;
    full = reinterpret_cast<uint64_t*>(scales + S::kStages * S::kScaleBytes);
    empty = full + S::kStages;
  }
};

struct Tile {
  int block, expert, column;
  __device__ __forceinline__ bool shared(const Arguments& a) const { return expert == a.experts; }
  // First row of a wave's weight among all experts' rows.
  __device__ __forceinline__ int weight_row(const Arguments& a, int wave) const {
    return (shared(a) ? 0 : expert * a.n) + column + wave * (a.outputs == kWaveOutputs ? a.n / 2 : kWaveOutputs);
  }
};

// The tiles of this block in order; both sides of the ring walk them alike.
class Walk {
 public:
  __device__ explicit Walk(const Arguments& a) : a_(a), at_(static_cast<int>(blockIdx.x)) {}
  __device__ bool next(Tile* tile) {
    for (; at_ < a_.row_blocks * a_.tiles; at_ += static_cast<int>(gridDim.x)) {
      const int band = at_ / (kBand * a_.tiles), in_band = at_ % (kBand * a_.tiles);
      const int blocks = min(kBand, a_.row_blocks - band * kBand);
      tile->block = band * kBand + in_band % blocks;
      tile->expert = __ldcg(a_.block_experts + tile->block);
      tile->column = in_band / blocks * a_.outputs;
      if (tile->expert < 0) continue;
      at_ += static_cast<int>(gridDim.x);
      return true;
    }
    return false;
  }

 private:
  const Arguments& a_;
  int at_;
};

template <class S>
__device__ void produce(const Arguments& a, const Ring<S>& ring) {
  const auto load_weight = [&](const Tile& tile, int kb, int stage) {
    ptx::barrier_expect(&ring.full[stage], S::kTransferBytes);
    const CUtensorMap* map = tile.shared(a) ? &a.shared : &a.w;
    for (int wave = 0; wave < 2; ++wave) {
      ptx::tensor_load(ring.w + (stage * 2 + wave) * S::kWaveBytes, map, kb * kStageK, tile.weight_row(a, wave),
                       &ring.full[stage]);
    }
  };
  Walk walk(a);
  Tile tile;
  int stage = 0, loaded = 0;
  uint32_t parity = 1;
  {  // the first weights do not depend on the previous kernel
    Walk first(a);
    if (first.next(&tile)) {
      for (; loaded < S::kStages && loaded < a.k_blocks; ++loaded) load_weight(tile, loaded, loaded);
    }
    ptx::wait_for_previous();
  }
  while (walk.next(&tile)) {
    for (int kb = 0; kb < a.k_blocks; ++kb) {
      if (loaded > 0) {
        --loaded;
      } else {
        ptx::barrier_wait(&ring.empty[stage], parity);
        load_weight(tile, kb, stage);
      }
      const int row = tile.block * S::kRows;
      ptx::tensor_load(ring.x + stage * S::kXBytes, &a.x, kb * kStageK, row, &ring.full[stage]);
      ptx::tensor_load(ring.scales + stage * S::kScaleBytes, &a.scales, row, kb, &ring.full[stage]);
      if (++stage == S::kStages) stage = 0, parity ^= 1;
    }
  }
}

// Both waves' sums of a thread: [i] is output 16 * warp + lane / 4 + 8 * (i / 2 % 2), row 8 * (i / 4) + 2 * (lane % 4)
// + i % 2 of the tile.
template <class S>
__device__ __forceinline__ void store(const Arguments& a, const Tile& tile, const float (&sums)[2][S::kSums]) {
  const int warp = static_cast<int>(threadIdx.x) / 32 % 4, lane = static_cast<int>(threadIdx.x) % 32;
  const int count = __ldcg(a.block_counts + tile.block);
  const int output = tile.column + warp * 16 + lane / 4;
  const bool gated = a.outputs == kWaveOutputs;
#pragma unroll
  for (int i = 0; i < S::kSums; ++i) {
    const int row = i / 4 * 8 + lane % 4 * 2 + i % 2;
    if (row >= count) continue;
    __nv_bfloat16* to = a.y + (tile.block * S::kRows + row) * a.y_stride + output + i / 2 % 2 * 8;
    if (gated) {
      *to = __float2bfloat16(silu(sums[0][i]) * sums[1][i]);
    } else {
      to[0] = __float2bfloat16(sums[0][i]);
      to[kWaveOutputs] = __float2bfloat16(sums[1][i]);
    }
  }
}

template <class S>
__device__ void consume(const Arguments& a, const Ring<S>& ring) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  Walk walk(a);
  int stage = 0;
  uint32_t parity = 0;
  for (Tile tile; walk.next(&tile);) {
    float sums[2][S::kSums] = {};
    const float* from[2];
    float next_scales[2];
#pragma unroll
    for (int wave = 0; wave < 2; ++wave) {
      from[wave] = (tile.shared(a) ? a.shared_scales : a.weight_scales) +
                   static_cast<int64_t>(tile.weight_row(a, wave) / 128) * a.k_blocks;
      next_scales[wave] = __ldg(from[wave]);
    }
    for (int kb = 0; kb < a.k_blocks; ++kb) {
      const float weight_scales[2] = {next_scales[0], next_scales[1]};
      if (kb + 1 < a.k_blocks) {
        next_scales[0] = __ldg(from[0] + kb + 1);
        next_scales[1] = __ldg(from[1] + kb + 1);
      }
      ptx::barrier_wait(&ring.full[stage], parity);
      const uint64_t x = ptx::tile_descriptor(ring.x + stage * S::kXBytes);
      float part[2][S::kSums];
      ptx::hold(part[0]);
      ptx::hold(part[1]);
      ptx::products_begin();
#pragma unroll
      for (int wave = 0; wave < 2; ++wave) {
        const uint64_t w = ptx::tile_descriptor(ring.w + (stage * 2 + wave) * S::kWaveBytes);
#pragma unroll
        for (int i = 0; i < 4; ++i) ptx::product_e4m3(part[wave], w + 2 * i, x + 2 * i, i);
      }
      ptx::products_commit();
      float2 scales[S::kRows / 8];
      const auto* row_scales = reinterpret_cast<const float2*>(ring.scales + stage * S::kScaleBytes) + lane % 4;
#pragma unroll
      for (int j = 0; j < S::kRows / 8; ++j) scales[j] = row_scales[j * 4];
      ptx::products_wait<0>();
      ptx::hold(part[0]);
      ptx::hold(part[1]);
#pragma unroll
      for (int wave = 0; wave < 2; ++wave) {
#pragma unroll
        for (int i = 0; i < S::kSums; ++i) {
          sums[wave][i] += part[wave][i] * ((i % 2 == 0 ? scales[i / 4].x : scales[i / 4].y) * weight_scales[wave]);
        }
      }
      __syncwarp();  // all have read their scales
      if (lane == 0) ptx::barrier_arrive(&ring.empty[stage]);
      if (++stage == S::kStages) stage = 0, parity ^= 1;
    }
    store<S>(a, tile, sums);
  }
}

template <class S>
__global__ void __launch_bounds__(kThreads, kBlocksEach) few_rows_kernel(const __grid_constant__ Arguments args) {
#if __CUDA_ARCH_FEAT_SM90_ALL
  extern __shared__ char shared[];
  const Ring<S> ring(shared);
  if (threadIdx.x == 0) {
    ptx::prefetch_map(&args.w);
    ptx::prefetch_map(&args.x);
    ptx::prefetch_map(&args.scales);
    for (int i = 0; i < S::kStages; ++i) {
      ptx::barrier_init(&ring.full[i], 1);
      ptx::barrier_init(&ring.empty[i], 4);
    }
    ptx::barrier_init_fence();
  }
  __syncthreads();
  if (threadIdx.x < 128) {
    if (threadIdx.x == 0) produce<S>(args, ring);
  } else {
    ptx::wait_for_previous();
    ptx::launch_dependents();
    consume<S>(args, ring);
  }
#endif
}

template <int kRows>
cudaError_t launch(const Fp8FewRowsProduct& p, cudaStream_t stream) {
  using S = Shape<kRows>;
  Arguments args;
  const int64_t w_rows = static_cast<int64_t>(p.weight.n) * p.experts;
  const int k = p.weight.k;
  if (!make_map(&args.w, MapType::kBytes, p.weight.data, w_rows, k, k, kWaveOutputs, kStageK, true) ||
      !make_map(&args.x, MapType::kBytes, p.x.q, p.m, k, k, kRows, kStageK, true) ||
      !make_map(&args.scales, MapType::kF32, p.x.scales, k / 128, p.m, p.x.scales_stride * 4, 1, kRows, false)) {
    return cudaErrorInvalidValue;
  }
  const void* shared = p.shared_data != nullptr ? p.shared_data : p.weight.data;
  if (!make_map(&args.shared, MapType::kBytes, shared, p.weight.n, k, k, kWaveOutputs, kStageK, true)) {
    return cudaErrorInvalidValue;
  }
  args.shared_scales = static_cast<const float*>(p.shared_scales), args.experts = p.experts;
  args.block_experts = p.block_experts, args.block_counts = p.block_counts;
  args.weight_scales = static_cast<const float*>(p.weight.scales);
  args.row_blocks = p.m / kRows, args.k_blocks = k / 128, args.n = p.weight.n;
  args.outputs = p.swiglu ? kWaveOutputs : 2 * kWaveOutputs;
  args.tiles = p.weight.n / (2 * kWaveOutputs);
  args.y = static_cast<__nv_bfloat16*>(p.y), args.y_stride = p.y_stride;
  const auto kernel = few_rows_kernel<S>;
  const cudaError_t error = allow_shared(kernel, S::kSharedBytes);
  if (error != cudaSuccess) return error;
  const int grid = std::min(kBlocksEach * processor_count(), args.row_blocks * args.tiles);
  return launch_kernel(kernel, static_cast<unsigned>(grid), kThreads, S::kSharedBytes, stream, true, 1, args);
}

}  // namespace

cudaError_t launch_fp8_few_rows(const Fp8FewRowsProduct& p, cudaStream_t stream) {
  const bool right = p.experts >= 1 && p.m >= p.block_rows && p.block_rows > 0 && p.m % p.block_rows == 0 &&
                     p.block_experts != nullptr && p.block_counts != nullptr && p.weight.n % 128 == 0 &&
                     (!p.swiglu || p.weight.n % 256 == 0) && p.weight.k >= 128 && p.weight.k % 128 == 0 &&
                     p.weight.format == WeightFormat::kF8Block && p.weight.scale_rows == 128 &&
                     p.x.scales_stride >= p.m && p.x.scales_stride % 4 == 0;
  if (!right) return cudaErrorInvalidValue;
  if (p.block_rows == 16) return launch<16>(p, stream);
  if (p.block_rows == 32) return launch<32>(p, stream);
  return cudaErrorInvalidValue;
}

}  // namespace spillway::kernels::cuda
