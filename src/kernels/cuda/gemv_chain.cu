// The kernel of gemv_chain.h: what gemv_small_batch.cu does for one product, in a loop. The loading warp goes through
// all products without a pause; between two of them the finishing warps count the blocks in global memory and the
// consumers wait for the count.
#include <algorithm>

#include "kernels/cuda/gemv_block.cuh"
#include "kernels/cuda/gemv_chain.h"
#include "kernels/cuda/gemv_portable.h"

namespace spillway::kernels::cuda {
namespace {

// Once beside a block of attention_token.cuh; registers keep two of them apart, which one multiprocessor would take twice
// the time for.
constexpr int kChainShared = 142 * 1024;
constexpr int kBoundThreads = 512;  // 128 registers a thread, of which there are fewer
constexpr int kStagesMin = 2;

struct Item {
  CUtensorMap weight;
  StreamPlan plan;
};
struct ChainArguments {
  Item items[kChainMax];
  int count;
  int kept_bytes;  // the longest
  unsigned long long* counter;
};

// Arrivals of all blocks at the ends of products; never set back, a multiple of the blocks between launches.
struct BlockCount {
  unsigned long long* counter;
  unsigned long long reached;

  // Behind the wait for the previous kernel, before this block's first arrival.
  __device__ __forceinline__ void begin(unsigned long long* at) {
    counter = at;
    asm volatile("ld.relaxed.gpu.global.u64 %0, [%1];" : "=l"(reached) : "l"(counter) : "memory");
    reached = reached / gridDim.x * gridDim.x;
  }
  __device__ __forceinline__ void wait_for_all() {
    reached += gridDim.x;
    unsigned long long seen;
    do {
      asm volatile("ld.relaxed.gpu.global.u64 %0, [%1];" : "=l"(seen) : "l"(counter) : "memory");
    } while (seen < reached);
    asm volatile("fence.acq_rel.gpu;" ::: "memory");
  }
  static __device__ __forceinline__ void arrive(unsigned long long* counter) {
    asm volatile("fence.acq_rel.gpu;\nred.relaxed.gpu.global.add.u64 [%0], 1;" ::"l"(counter) : "memory");
  }
};

// One thread.
__device__ void load_weights(const ChainArguments& args, const Ring& ring) {
  int issued = 0, stage = 0;
  uint32_t parity = 1;
  for (int i = 0; i < args.count; ++i) {
    const StreamPlan& plan = args.items[i].plan;
    const Share share(plan);
    const uint32_t bytes = stage_transfer_bytes(plan);
    for (int pass = 0;; ++pass) {
      const Rows rows = share.rows(pass);
      if (rows.count == 0) break;
      for (int step = 0; step < plan.k_steps; ++step, ++issued) {
        if (issued >= plan.stages) ptx::barrier_wait(&ring.empty[stage], parity);
        ptx::barrier_expect(&ring.full[stage], bytes);
        load_stage_weights(plan, &args.items[i].weight, ring.data + stage * plan.stage_bytes, rows.first, step,
                           &ring.full[stage]);
        if (++stage == plan.stages) stage = 0, parity ^= 1;
      }
    }
  }
}

template <InputKind kKind>
__device__ void finish_chain(const ChainArguments& args, const float* sums, const KeptRows& rows, SumPlaces& places) {
  int pass = 0;
  for (int i = 0; i < args.count; ++i) {
    pass = finish_product<kKind>(args.items[i].plan, sums, rows, places, pass);
    __syncwarp();
    if (i + 1 < args.count && threadIdx.x % 32 == 0) BlockCount::arrive(args.counter);
  }
}

template <WeightFormat kFormat, InputKind kKind>
__device__ void consume_chain(const ChainArguments& args, const Ring& ring, float* sums, const KeptRows& rows,
                              SumPlaces& places) {
  using Held = HeldRow<kKind, kFormat>;
  using Long = LongRow<kKind, kFormat>;
  Consumer<kFormat, 1, kKind> consumer{ring, places, sums};
  BlockCount blocks;
  for (int i = 0; i < args.count; ++i) {
    const StreamPlan& plan = args.items[i].plan;
    const bool held = Held::takes(plan);
    Held row;
    if (held) row.load_norm(plan);
    consumer.begin(plan);
    if (i == 0) {
      ptx::wait_for_previous();
      if (threadIdx.x == 0) blocks.begin(args.counter);
    } else {
      if (threadIdx.x == 0) blocks.wait_for_all();
      ptx::named_barrier(1, kConsumers);  // also: the kept inputs of the product before are read
    }
    if (held) {
      row.keep(plan, rows);
    } else if (Long::takes(plan)) {
      Long::keep(plan, rows);
    } else {
      keep_x<kKind, kFormat>(plan, 1, rows);
    }
    consumer.run(plan, rows.at);
  }
}

template <WeightFormat kFormat, InputKind kKind>
__global__ void __launch_bounds__(kBoundThreads, 1) chain_kernel(const __grid_constant__ ChainArguments args) {
#if __CUDA_ARCH__ >= 900
  extern __shared__ char shared[];
  __shared__ uint64_t full[kStagesMax], empty[kStagesMax];
  __shared__ SumPlaces places;
  __shared__ float partial[RowFacts<kKind == InputKind::kKeptHalf>::kPartials], unscale[kHalfRowsMax];
  const StreamPlan& first = args.items[0].plan;
  const Ring ring{full, empty, ring_base(shared)};
  char* const kept = ring.data + first.stages * first.stage_bytes;
  if (threadIdx.x == 0) {
    for (int i = 0; i < args.count; ++i) ptx::prefetch_map(&args.items[i].weight);
    for (int s = 0; s < first.stages; ++s) {
      ptx::barrier_init(&full[s], 1);
      ptx::barrier_init(&empty[s], kConsumers / 32);
    }
    places.init();
    ptx::barrier_init_fence();
  }
  __syncthreads();
  ptx::launch_dependents();
  const KeptRows rows{kept, partial, unscale};
  auto* sums = reinterpret_cast<float*>(kept + sums_offset(args.kept_bytes));
  if (threadIdx.x >= kConsumers + 32) {
    ptx::wait_for_previous();
    finish_chain<kKind>(args, sums, rows, places);
  } else if (threadIdx.x >= kConsumers) {
    if (threadIdx.x == kConsumers) load_weights(args, ring);
  } else {
    consume_chain<kFormat, kKind>(args, ring, sums, rows, places);
  }
#endif
}

constexpr InputKind kind_of(WeightFormat format) {
  if (format == WeightFormat::kBf16) return InputKind::kKept;
  return format == WeightFormat::kF8Block ? InputKind::kKeptHalf : InputKind::kKeptBytes;
}

int step_elements(WeightFormat format) {
  switch (format) {
    case WeightFormat::kBf16:
      return kStepElements<WeightFormat::kBf16>;
    case WeightFormat::kF8Block:
      return kStepElements<WeightFormat::kF8Block>;
    case WeightFormat::kInt8:
      return kStepElements<WeightFormat::kInt8>;
    case WeightFormat::kInt4:
      return kStepElements<WeightFormat::kInt4>;
  }
  return 0;
}

// Stages of 32 rows or what a share's passes leave of them, all in places of one size.
bool plan_chain(const SmallBatchChain& chain, ChainArguments* args, size_t* shared) {
  const int grid = processor_count(), budget = chain.shared_bytes > 0 ? chain.shared_bytes : kChainShared;
  if (chain.count < 1 || chain.count > kChainMax || chain.counter == nullptr) return false;
  args->count = chain.count, args->counter = chain.counter, args->kept_bytes = 0;
  int place = 0;
  for (int i = 0; i < chain.count; ++i) {
    const SmallBatchProduct& p = chain.products[i];
    if (!small_batch_valid(p) || p.m != 1 || p.same_bits || p.weight.format != chain.products[0].weight.format)
      return false;
    StreamPlan& plan = args->items[i].plan;
    plan = {};
    plan.p = p;
    const int rows_of_unit = p.epilogue == Epilogue::kSwiGlu ? 2 : 1;
    plan.units = p.weight.n / rows_of_unit;
    if (plan.units < grid) return false;
    const int share = (plan.units + grid - 1) / grid, most = kRowsMax / rows_of_unit;
    plan.block_units = (share + (share + most - 1) / most - 1) / ((share + most - 1) / most);
    const bool bytes = kind_of(p.weight.format) == InputKind::kKeptBytes;
    size_stream(&plan, {rows_of_unit, step_elements(p.weight.format), share, 1, bytes}, true, budget);
    args->kept_bytes = std::max(args->kept_bytes, kept_bytes(plan, 1));
    place = std::max(place, plan.stage_bytes);
  }
  const int beside = 1024 + tail_bytes(1, args->kept_bytes);
  const int stages = std::min((budget - beside) / place, kStagesMax);
  if (stages < kStagesMin) return false;
  for (int i = 0; i < chain.count; ++i) {
    args->items[i].plan.stages = stages;
    args->items[i].plan.stage_bytes = place;
  }
  *shared = static_cast<size_t>(budget);
  return true;
}

template <WeightFormat kFormat>
cudaError_t launch(const ChainArguments& args, size_t shared, cudaStream_t stream) {
  const auto kernel = chain_kernel<kFormat, kind_of(kFormat)>;
  const cudaError_t error = allow_shared(kernel, static_cast<int>(shared));
  if (error != cudaSuccess) return error;
  return launch_kernel(kernel, processor_count(), kThreads, shared, stream, args.items[0].plan.p.overlap, 1, args);
}

}  // namespace

bool small_batch_chain_takes(const SmallBatchChain& chain) {
  ChainArguments args;
  size_t shared = 0;
  return compute_capability() == 90 && plan_chain(chain, &args, &shared);
}

cudaError_t launch_small_batch_chain(const SmallBatchChain& chain, cudaStream_t stream) {
  ChainArguments args;
  size_t shared = 0;
  if (compute_capability() != 90 || !plan_chain(chain, &args, &shared)) return cudaErrorInvalidValue;
  for (int i = 0; i < chain.count; ++i) {
    const SmallBatchProduct& p = chain.products[i];
    CUtensorMap unused;
    if (!make_stream_maps(args.items[i].plan, p.weight.n, p.epilogue == Epilogue::kSwiGlu ? p.weight.n / 2 : 0, 1,
                          &args.items[i].weight, &unused))
      return cudaErrorInvalidValue;
  }
  switch (chain.products[0].weight.format) {
    case WeightFormat::kBf16:
      return launch<WeightFormat::kBf16>(args, shared, stream);
    case WeightFormat::kF8Block:
      return launch<WeightFormat::kF8Block>(args, shared, stream);
    case WeightFormat::kInt8:
      return launch<WeightFormat::kInt8>(args, shared, stream);
    case WeightFormat::kInt4:
      return launch<WeightFormat::kInt4>(args, shared, stream);
  }
  return cudaErrorInvalidValue;
}

}  // namespace spillway::kernels::cuda
