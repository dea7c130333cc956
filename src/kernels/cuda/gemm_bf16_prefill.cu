// Tiles of 128 rows by 256 rows of the weight, persistent, a block a multiprocessor. A cluster is two blocks with
// neighbouring rows and the same part of the weight, of which each loads half for both. One warp loads 64 elements of K
// a stage; two warpgroups multiply 64 x 256 each. With SwiGLU the 256 are 128 gates and their 128 ups, which meet in
// one thread's registers. The loads of the next tile go on while a tile is stored.
#include <algorithm>

#include "kernels/cuda/gemm_bf16_prefill.h"
#include "kernels/cuda/gemm_launch.cuh"
#include "kernels/cuda/gemm_maps.h"
#include "kernels/cuda/gemm_stages.cuh"
#include "kernels/cuda/gemm_tile_store.cuh"
#include "kernels/cuda/gemm_wgmma.cuh"

namespace spillway::kernels::cuda {
namespace {

constexpr int kRows = 128;
constexpr int kWeightRows = 256;
constexpr int kHalf = kWeightRows / 2;
constexpr int kStageK = 64;
constexpr int kCluster = 2;
constexpr int kStages = 4;
constexpr int kThreads = 3 * 128;
constexpr int kABytes = kRows * 128;
constexpr int kBBytes = kWeightRows * 128;
constexpr int kStageBytes = kABytes + kBBytes;
constexpr int kSharedBytes = kStages * kStageBytes + 1024 + 2 * kStages * 8;
constexpr int kBand = 4;
constexpr int kLead = 2;  // stages of the first warpgroup; fewer than kStages

struct Arguments {
  CUtensorMap a, b;
  TileOutput output;  // n: outputs
  int m, k_blocks, band;
  int width;       // outputs of a tile
  int second_row;  // of the weight, from a tile's first row to its second half
};

// Pairs of row tiles by outputs, in bands of pairs.
class Walk {
 public:
  __device__ explicit Walk(const Arguments& args)
      : pairs_((args.m + 2 * kRows - 1) / (2 * kRows)),
        columns_((args.output.n + args.width - 1) / args.width),
        band_(args.band),
        at_(static_cast<int>(blockIdx.x) / kCluster) {}

  __device__ __forceinline__ bool next(const Arguments& args, TilePlace* place) {
    if (at_ >= pairs_ * columns_) return false;
    const int band = at_ / (band_ * columns_), in_band = at_ % (band_ * columns_);
    const int pairs = min(band_, pairs_ - band * band_);
    const int pair = band * band_ + in_band % pairs, rank = static_cast<int>(blockIdx.x) % kCluster;
    place->x_row = (pair * kCluster + rank) * kRows;
    place->rows_end = args.m;
    place->column = in_band / pairs * args.width;
    at_ += static_cast<int>(gridDim.x) / kCluster;
    return true;
  }

 private:
  int pairs_, columns_, band_, at_;
};

__device__ void produce(const Arguments& args, const Stages& s) {
  const int rank = static_cast<int>(ptx::cluster_rank());
  Walk walk(args);
  const auto load_weight = [&](const TilePlace& place, int kb, int to) {
    ptx::barrier_expect(&s.full[to], kStageBytes);
    ptx::tensor_load_multicast(s.b + to * kBBytes + rank * kHalf * 128, &args.b, kb * kStageK,
                               place.column + rank * args.second_row, &s.full[to], 3);
  };
  int stage = 0, loaded = 0;
  uint32_t phase = 0;
  Walk first = walk;
  TilePlace place;
  if (first.next(args, &place)) {  // the weight does not depend on the previous kernel
    for (; loaded < kStages && loaded < args.k_blocks; ++loaded) load_weight(place, loaded, loaded);
  }
  ptx::wait_for_previous();
  while (walk.next(args, &place)) {
    for (int kb = 0; kb < args.k_blocks; ++kb) {
      if (loaded > 0) {
        --loaded;
      } else {
        ptx::barrier_wait(&s.empty[stage], phase ^ 1);
        load_weight(place, kb, stage);
      }
      ptx::tensor_load(s.a + stage * kABytes, &args.a, kb * kStageK, place.x_row, &s.full[stage]);
      if (++stage == kStages) stage = 0, phase ^= 1;
    }
  }
}

__device__ __forceinline__ void leave(const Stages& s, int stage) {
  if (threadIdx.x % 32 < kCluster) ptx::barrier_arrive_remote(&s.empty[stage], threadIdx.x % 32);
}

template <bool kGated>
__device__ void consume(const Arguments& args, const Stages& s) {
  const int group = static_cast<int>(threadIdx.x) / 128 - 1, warp = threadIdx.x / 32 % 4, lane = threadIdx.x % 32;
  Walk walk(args);
  int stage = 0;
  uint32_t phase = 0;
  for (TilePlace place; walk.next(args, &place);) {
    float sums[kWeightRows / 2];
    if (group == 1) ptx::named_barrier(2, 256);
    for (int kb = 0; kb < args.k_blocks; ++kb) {
      ptx::barrier_wait(&s.full[stage], phase);
      const uint64_t a = ptx::tile_descriptor(s.a + stage * kABytes + group * 64 * 128);
      const uint64_t b = ptx::tile_descriptor(s.b + stage * kBBytes);
      ptx::hold(sums);
      ptx::products_begin();
#pragma unroll
      for (int j = 0; j < 4; ++j) ptx::product_bf16(sums, a + 2 * j, b + 2 * j, kb | j);
      ptx::products_commit();
      // The second warpgroup stays two stages behind: it has the tensor cores while the first one stores its tile, and
      // leaves them to the next tile of the first while it stores its own.
      if (group == 0 && kb == min(kLead, args.k_blocks) - 1) ptx::named_arrive(2, 256);
      ptx::products_wait<1>();
      ptx::hold(sums);
      if (kb > 0) leave(s, stage == 0 ? kStages - 1 : stage - 1);
      if (++stage == kStages) stage = 0, phase ^= 1;
    }
    ptx::products_wait<0>();
    ptx::hold(sums);
    leave(s, stage == 0 ? kStages - 1 : stage - 1);
    const int row = group * 64 + warp * 16 + lane / 4;
    float out[64];
    if constexpr (kGated) {
#pragma unroll
      for (int i = 0; i < 64; i += 2) {
        // One reciprocal for two: 1 / a = b / (a b). Below -40 the factor stays at e^-40, so that a b is finite.
        const float a = 1.0f + __expf(-fmaxf(sums[i], -40.0f)), b = 1.0f + __expf(-fmaxf(sums[i + 1], -40.0f));
        const float inverse = __fdividef(1.0f, a * b);
        out[i] = sums[i] * (inverse * b) * sums[64 + i];
        out[i + 1] = sums[i + 1] * (inverse * a) * sums[64 + i + 1];
      }
      store_wave(args.output, place, row, out);
    } else {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
#pragma unroll
        for (int i = 0; i < 64; ++i) out[i] = sums[half * 64 + i];
        store_wave(args.output, place, row, out);
        place.column += kHalf;
      }
    }
  }
}

template <bool kGated>
__global__ void __launch_bounds__(kThreads, 1) prompt_kernel(const __grid_constant__ Arguments args) {
#if __CUDA_ARCH_FEAT_SM90_ALL
  extern __shared__ char shared[];
  const Stages s = lay_stages<kStages, kABytes, kBBytes>(shared);
  if (threadIdx.x == 0) {
    ptx::prefetch_map(&args.a);
    ptx::prefetch_map(&args.b);
    open_stages<kStages>(s, 8 * kCluster);
  }
  ptx::cluster_sync();
  ptx::launch_dependents();
  if (threadIdx.x < 128) {
    ptx::fewer_registers<40>();
    if (threadIdx.x == 0) produce(args, s);
  } else {
    ptx::more_registers<232>();
    ptx::wait_for_previous();  // y may be its input
    consume<kGated>(args, s);
  }
  __syncwarp();
  ptx::cluster_sync();  // nobody leaves while the other block may still arrive at its barriers
#endif
}

}  // namespace

cudaError_t launch_bf16_prompt_product(const Bf16PromptProduct& p, cudaStream_t stream) {
  const Weight& w = p.weight;
  const bool gated = p.epilogue == Epilogue::kSwiGlu;
  if (p.m < 1 || w.format != WeightFormat::kBf16 || w.n % (gated ? 16 : 8) != 0 || w.k < kStageK ||
      w.k % kStageK != 0 || p.x_stride % 8 != 0 || p.y_stride % 8 != 0 || p.y_type == Scalar::kF16) {
    return cudaErrorInvalidValue;
  }
  Arguments args;
  if (!make_map(&args.a, MapType::kBf16, p.x, p.m, w.k, p.x_stride * 2, kRows, kStageK, true) ||
      !make_map(&args.b, MapType::kBf16, w.data, w.n, w.k, int64_t{w.k} * 2, kHalf, kStageK, true)) {
    return cudaErrorInvalidValue;
  }
  args.output = {p.y, p.y_type, p.y_stride, gated ? w.n / 2 : w.n, p.epilogue == Epilogue::kAdd};
  args.m = p.m;
  args.k_blocks = w.k / kStageK;
  args.band = p.band > 0 ? p.band : kBand;
  args.width = gated ? kHalf : kWeightRows;
  args.second_row = gated ? w.n / 2 : kHalf;
  const auto kernel = gated ? prompt_kernel<true> : prompt_kernel<false>;
  const cudaError_t error = allow_shared(kernel, kSharedBytes);
  if (error != cudaSuccess) return error;
  const int tiles = (p.m + 2 * kRows - 1) / (2 * kRows) * ((args.output.n + args.width - 1) / args.width);
  const int clusters = std::min(processor_count() / kCluster, tiles);
  return launch_kernel(kernel, static_cast<unsigned>(clusters * kCluster), kThreads, kSharedBytes, stream, true,
                       kCluster, args);
}

}  // namespace spillway::kernels::cuda
