// Tiles of 256 rows of the weight (neighbours, or 128 gates and their ups) by 16 or 32 rows of x; a block for every
// multiprocessor, persistent (gemm_fp8_few_rows_work.cuh). One thread loads 128 bytes of K a stage with tensor copies;
// two warpgroups multiply two times 64 rows each and add every stage's sums, times both scales, to float32 registers.
// They share the stage's x: in tiles of 128 rows x took a quarter of all that came from L2.
#include <algorithm>

#include "kernels/cuda/gemm_fp8_few_rows.h"
#include "kernels/cuda/gemm_fp8_few_rows_sums.cuh"
#include "kernels/cuda/gemm_maps.h"

namespace spillway::kernels::cuda {
namespace {

using namespace few_rows;  // NOLINT

// kListed: of few tokens as they lie.
template <class S, Output kOutput, bool kListed>
__global__ void __launch_bounds__(kRegisterThreads, 1) few_rows_kernel(const __grid_constant__ Arguments args) {
#if __CUDA_ARCH_FEAT_SM90_ALL
  extern __shared__ char shared[];
  __shared__ Beside<S> beside;
  const Ring<S> ring(shared);
  if (threadIdx.x == 0) {
    ptx::prefetch_map(&args.w);
    ptx::prefetch_map(&args.x);
    ptx::prefetch_map(&args.scales);
    for (int i = 0; i < kStages; ++i) {
      ptx::barrier_init(&ring.full[i], 1);
      ptx::barrier_init(&ring.empty[i], kConsumers / 32);
    }
    ptx::barrier_init_fence();
  }
  Producer<S, kOutput> producer(args, ring, beside);
  if constexpr (kListed) {
    beside.list.find(args.p.choice, args.p.experts);
  } else {
    if (threadIdx.x == 0) beside.claims[0] = static_cast<int>(atomicAdd(args.p.claims, 1u));
    __syncthreads();
  }
  const int used = kListed ? beside.list.used : __ldcg(args.p.blocks_used);
  const Claims claims(used * args.tiles, args.k_blocks);
  if (threadIdx.x < 128) {
    if (threadIdx.x != 0) return;
    if constexpr (kListed) {
      producer.load_ahead(used);
      ptx::wait_for_previous();
      producer.run(used);
    } else {
      producer.load_claimed(claims, used);
      ptx::wait_for_previous();
      producer.run_claims(claims, beside, used);
    }
  } else {
    ptx::wait_for_previous();
    ptx::launch_dependents();
    Consumer<S, kOutput> consumer(args, ring, beside, used);
    if constexpr (kListed) {
      consumer.run();
    } else {
      consumer.run_claims(claims);
    }
  }
#endif
}

template <int kRows, Output kOutput, bool kListed>
cudaError_t launch(const Fp8FewRowsProduct& p, cudaStream_t stream) {
  using S = Shape<kRows>;
  Arguments args;
  args.p = p;
  const int64_t w_rows = static_cast<int64_t>(p.weight.n) * p.experts;
  const int k = p.weight.k;
  const void* shared = p.shared_data != nullptr ? p.shared_data : p.weight.data;
  if (!make_map(&args.w, MapType::kBytes, p.weight.data, w_rows, k, k, kBoxRows, kStageK, true) ||
      !make_map(&args.shared, MapType::kBytes, shared, p.weight.n, k, k, kBoxRows, kStageK, true) ||
      !make_map(&args.x, MapType::kBytes, p.x.q, p.m, k, k, kRows, kStageK, true) ||
      !make_map(&args.scales, MapType::kF32, p.x.scales, k / 128, p.m, p.x.scales_stride * 4, 1, kRows, false)) {
    return cudaErrorInvalidValue;
  }
  args.k_blocks = k / 128, args.tiles = (p.weight.n + kTileOutputs - 1) / kTileOutputs;
  const int grid = processor_count();
  if (2 * grid + args.tiles > kFewRowsCounters) return cudaErrorInvalidValue;
  const auto kernel = few_rows_kernel<S, kOutput, kListed>;
  const cudaError_t error = allow_shared(kernel, S::kSharedBytes);
  if (error != cudaSuccess) return error;
  return launch_kernel(kernel, static_cast<unsigned>(grid), kThreads, S::kSharedBytes, stream, true, 1, args);
}

}  // namespace

bool few_rows_take_tokens(int tokens, int slots, int experts) {
  return tokens <= kFewTokensMax && tokens * (slots + 1) <= kListMax && experts < 32 * kBitWords;
}

Fp8FewRowsProduct dense_few_rows(int m, const QuantizedActivations& x, const Weight& weight) {
  Fp8FewRowsProduct p;
  p.experts = 1, p.m = m, p.block_rows = kFewTokensMax;
  p.choice.tokens = m, p.choice.shared = true;
  p.x = x, p.weight = weight, p.shared_data = weight.data, p.shared_scales = weight.scales;
  p.output = FewRowsOutput::kSum;
  return p;
}

size_t few_rows_workspace_bytes(int block_rows) {
  return size_t{kPlaces} * static_cast<size_t>(processor_count()) * kTileOutputs * static_cast<size_t>(block_rows) * 4;
}

cudaError_t launch_fp8_few_rows(const Fp8FewRowsProduct& p, cudaStream_t stream) {
  const ExpertChoice& c = p.choice;
  const bool few = c.tokens > 0, by_block = p.m >= p.block_rows && p.block_rows > 0 && p.m % p.block_rows == 0;
  const bool listed =
      few ? p.block_rows == kFewTokensMax && few_rows_take_tokens(c.tokens, c.slots, p.experts)
          : p.block_experts != nullptr && p.block_counts != nullptr && p.blocks_used != nullptr && p.claims != nullptr;
  const bool dense = few && c.slots == 0 && p.output == FewRowsOutput::kSum;
  const bool right = p.experts >= 1 && listed && (by_block || dense || (few && p.output == FewRowsOutput::kGates)) &&
                     (few || p.output != FewRowsOutput::kSum) && (!few || p.output != FewRowsOutput::kRows) &&
                     (dense || p.weight.n % kTileOutputs == 0) && p.weight.k >= 128 && p.weight.k % 128 == 0 &&
                     p.weight.format == WeightFormat::kF8Block && p.weight.scale_rows == 128 &&
                     p.x.scales_stride >= p.m && p.x.scales_stride % 4 == 0 && p.workspace != nullptr &&
                     p.counters != nullptr;
  if (!right) return cudaErrorInvalidValue;
  if (p.output == FewRowsOutput::kSum) return launch<16, Output::kSum, true>(p, stream);
  const bool gates = p.output == FewRowsOutput::kGates;
  if (few) return launch<16, Output::kGates, true>(p, stream);
  if (p.block_rows == 16) {
    return gates ? launch<16, Output::kGates, false>(p, stream) : launch<16, Output::kRows, false>(p, stream);
  }
  if (p.block_rows == 32) {
    return gates ? launch<32, Output::kGates, false>(p, stream) : launch<32, Output::kRows, false>(p, stream);
  }
  return cudaErrorInvalidValue;
}

}  // namespace spillway::kernels::cuda
