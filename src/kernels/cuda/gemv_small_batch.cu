// One block a multiprocessor owns an even share of the outputs and streams their rows (gemv_stream.cuh). The ring fits
// twice in a multiprocessor, so with dependent launch the next product's weights are already arriving while this one
// ends. A product that adds to the residual takes a little more than half of it: such ones follow small kernels
// (attention), during which two of their blocks would meet where the small kernel's are not.
#include <algorithm>
#include <cstddef>

#include "kernels/cuda/gemv_byte_product.cuh"
#include "kernels/cuda/gemv_keep.cuh"
#include "kernels/cuda/gemv_portable.h"
#include "kernels/cuda/gemv_small_batch.h"
#include "kernels/cuda/gemv_token.h"

namespace spillway::kernels::cuda {
namespace {

using Plan = StreamPlan;

// Of a multiprocessor's 228 KB: not twice, but once beside a block of kSharedBytes[0] or of attention_token.cuh.
constexpr size_t kAloneBytes = 113 * 1024;

struct Arguments {
  CUtensorMap weight, x;
  Plan plan;
};

// A block's even share of the units, pass by pass.
struct Share {
  int begin, end, block_units, half, pitch;
  __device__ __forceinline__ explicit Share(const Plan& plan)
      : begin(bound(plan, static_cast<int>(blockIdx.x))),
        end(bound(plan, static_cast<int>(blockIdx.x) + 1)),
        block_units(plan.block_units),
        half(plan.p.epilogue == Epilogue::kSwiGlu ? plan.units : 0),
        pitch(plan.pitch) {}
  static __device__ __forceinline__ int bound(const Plan& plan, int block) {
    return (block * plan.block_steps + min(block, plan.more)) * plan.unit_step;
  }
  __device__ __forceinline__ Rows rows(int pass) const {
    const int first = begin + pass * block_units;
    return {first, max(0, min(block_units, end - first)), half, pitch};
  }
};

// One thread. The weights of the first round of the ring are loaded before the previous kernel has ended.
__device__ void produce(const Arguments& args, const Ring& ring) {
  const Plan& plan = args.plan;
  const Share share(plan);
  const uint32_t bytes = stage_transfer_bytes(plan);
  int issued = 0, stage = 0;
  uint32_t parity = 1;
  bool waited = false;
  const auto load_x = [&](int step, int to) {
    load_stage_x(plan, &args.x, ring.data + to * plan.stage_bytes, 0, step, &ring.full[to]);
  };
  for (int pass = 0;; ++pass) {
    const Rows rows = share.rows(pass);
    if (rows.count == 0) break;
    for (int step = 0; step < plan.k_steps; ++step, ++issued) {
      if (issued == plan.stages) {
        ptx::wait_for_previous();
        waited = true;
        for (int s = 0; s < plan.stages; ++s) load_x(s % plan.k_steps, s);
      }
      if (issued >= plan.stages) ptx::barrier_wait(&ring.empty[stage], parity);
      ptx::barrier_expect(&ring.full[stage], bytes);
      load_stage_weights(plan, &args.weight, ring.data + stage * plan.stage_bytes, rows.first, step, &ring.full[stage]);
      if (waited) load_x(step, stage);
      if (++stage == plan.stages) stage = 0, parity ^= 1;
    }
  }
  if (!waited) {
    ptx::wait_for_previous();
    for (int s = 0; s < issued; ++s) load_x(s % plan.k_steps, s);
  }
}

__device__ __forceinline__ float load_one(const void* y, Scalar type, int64_t i) {
  return type == Scalar::kF32 ? static_cast<const float*>(y)[i]
                              : __bfloat162float(static_cast<const __nv_bfloat16*>(y)[i]);
}

// One warp. What is added to is read while the last stages arrive.
// kept.unscale: [m] that the sums are multiplied by, where inputs are kept scaled.
template <InputKind kKind>
__device__ void finish(const Plan& plan, Rows rows, const float* sums, const KeptRows& kept, SumPlaces& places,
                       int pass) {
  constexpr bool kScaled = kKind != InputKind::kStage;
  const SmallBatchProduct& p = plan.p;
  const int lane = static_cast<int>(threadIdx.x) % 32, outputs = rows.count * p.m;
  const auto token_of = [&](int i) { return p.m == 1 ? 0 : i / rows.count; };  // a division takes long
  const auto place_of = [&](int i) {
    const int token = token_of(i);
    return token * p.y_stride + rows.first + i - token * rows.count;
  };
  float before = 0;
  if (p.epilogue == Epilogue::kAdd && lane < outputs) before = load_one(p.y, p.y_type, place_of(lane));
  places.wait_filled(pass);
  if constexpr (kKind == InputKind::kKept || kKind == InputKind::kKeptBytes) {
    if (pass == 0) {
      if (lane < p.m) kept.unscale[lane] = late_factor<kKind>(p, kept, lane);
      __syncwarp();
    }
  }
  for (int i = lane; i < outputs; i += 32) {
    const int token = token_of(i), r = i - token * rows.count;
    const auto output = [&](int row) {
      const float sum = take_sum(sums, row, token, p.m) * (kScaled ? kept.unscale[token] : 1.0f);
      return p.bias != nullptr ? sum + p.bias[rows.global(row)] : sum;
    };
    float value = output(r);
    if (p.epilogue == Epilogue::kSwiGlu) value = silu(value) * output(r + rows.pitch);
    if (p.epilogue == Epilogue::kAdd) {
      if (i != lane) before = load_one(p.y, p.y_type, place_of(i));
      value += before;
    }
    store_one(p.y, p.y_type, place_of(i), value, false);
  }
  places.free(pass);
}

// By integers. scales: under way.
template <WeightFormat kFormat>
__device__ __forceinline__ void consume_bytes(const Plan& plan, const Ring& ring, ByteProduct<kFormat>& product,
                                              SumPlaces& places, const Share& share, ScaleStream<kFormat>& scales) {
  using Product = ByteProduct<kFormat>;
  const uint32_t full = keep_in_register(ptx::shared_address(ring.full)),
                 empty = keep_in_register(ptx::shared_address(ring.empty)), m = plan.p.m;
  const uint32_t filled = keep_in_register(ptx::shared_address(places.filled));
  static_assert(offsetof(SumPlaces, freed) == 16);
  uint32_t stage_bytes = 0, barrier = 0, parity = 0;
  int stages = plan.stages;
  for (int pass = 0;; ++pass) {
    const Rows rows = share.rows(pass);
    if (rows.count == 0) break;
    const int tiles = (rows.local() + 15) / 16;
    uint32_t column = product.column, facts = product.facts;
    for (int steps = plan.k_steps; steps > 0; --steps) {
      if (tiles > 1) {
        product.template run<2>(stage_bytes, full + barrier, empty + barrier, parity, column, facts, scales);
      } else {
        product.template run<1>(stage_bytes, full + barrier, empty + barrier, parity, column, facts, scales);
      }
      scales.next(plan);
      column += Product::kStepValues, facts += Product::kStepFacts;
      stage_bytes += plan.stage_bytes, barrier += 8;
      if (--stages == 0) stage_bytes = barrier = 0, parity ^= 1, stages = plan.stages;
    }
    const uint32_t place = filled + (pass & 1) * 8;
    if (pass >= 2) ptx::barrier_wait_at(place + 16, static_cast<uint32_t>(pass / 2 + 1) & 1);
    product.leave((pass & 1) * static_cast<uint32_t>(sums_bytes(m)), m, tiles);
    ptx::barrier_arrive_at(place);
  }
}

template <WeightFormat kFormat, int kColumns, InputKind kKind>
__device__ void consume(const Plan& plan, const Ring& ring, const char* kept, float* sums, SumPlaces& places,
                        const Share& share) {
  WarpProduct<kFormat, kColumns, kKind> product;
  StageScales<kFormat> next_scales = {};
  int globals[2][2], stage = 0;
  uint32_t parity = 0;
  Rows rows = share.rows(0);
  fragment_rows(rows, globals);
  next_scales.load(plan.p.weight, plan.p.weight.scales, globals, 0);
  for (int pass = 0; rows.count > 0; ++pass) {
    const Rows next_rows = share.rows(pass + 1);
    const int tiles = (rows.local() + 15) / 16;
    for (int step = 0; step < plan.k_steps; ++step) {
      const StageScales<kFormat> scales = next_scales;
      if (step + 1 < plan.k_steps) {
        next_scales.load(plan.p.weight, plan.p.weight.scales, globals, step + 1);
      } else if (next_rows.count > 0) {
        fragment_rows(next_rows, globals);
        next_scales.load(plan.p.weight, plan.p.weight.scales, globals, 0);
      }
      product.run(plan, ring, stage, parity, tiles, kept + step * kStepElements<kFormat> * 2, scales);
      if (++stage == plan.stages) stage = 0, parity ^= 1;
    }
    places.wait_free(pass);
    product.leave(sums + (pass & 1) * (sums_bytes(plan.p.m) / 4), plan.p.m, tiles);
    places.fill(pass);
    rows = next_rows;
  }
}

template <WeightFormat kFormat, int kColumns, InputKind kKind>
__global__ void __launch_bounds__(kThreads, kColumns == 1 ? 2 : 1)
    small_batch_kernel(const __grid_constant__ Arguments args) {
#if __CUDA_ARCH__ >= 900
  constexpr bool kKept = kKind != InputKind::kStage;
  extern __shared__ char shared[];
  __shared__ uint64_t full[kStagesMax], empty[kStagesMax];
  __shared__ SumPlaces places;
  __shared__ float partial[kKept ? RowFacts<kKind>::kPartials : 1], unscale[kKept ? kSmallBatchRowsMax : 1];
  const Plan& plan = args.plan;
  const Ring ring{full, empty, ring_base(shared)};
  char* const kept = ring.data + plan.stages * plan.stage_bytes;
  if (threadIdx.x == 0) {
    ptx::prefetch_map(&args.weight);
    if (!kKept) ptx::prefetch_map(&args.x);
    for (int s = 0; s < plan.stages; ++s) {
      ptx::barrier_init(&full[s], 1);
      ptx::barrier_init(&empty[s], kConsumers / 32);
    }
    places.init();
    ptx::barrier_init_fence();
  }
  __syncthreads();
  ptx::launch_dependents();
  const KeptRows rows{kept, partial, unscale};
  auto* sums = reinterpret_cast<float*>(kept + sums_offset(kept_bytes(plan, plan.p.m)));
  if (threadIdx.x >= kConsumers + 32) {
    ptx::wait_for_previous();
    const Share share(plan);
    for (int pass = 0; share.rows(pass).count > 0; ++pass) {
      finish<kKind>(plan, share.rows(pass), sums + (pass & 1) * (sums_bytes(plan.p.m) / 4), rows, places, pass);
    }
  } else if (threadIdx.x >= kConsumers) {
    if (threadIdx.x == kConsumers) produce(args, ring);
  } else {
    using Held = HeldRow<kKind, kFormat>;
    const bool held = kKept && Held::takes(plan);
    Held row;
    if (held) row.load_norm(plan);
    const auto keep = [&] {
      ptx::wait_for_previous();
      if (held) {
        row.keep(plan, rows);
      } else if (kKept && LongRow<kKind, kFormat>::takes(plan)) {
        if constexpr (kKept) LongRow<kKind, kFormat>::keep(plan, rows);
      } else if constexpr (kKept) {
        keep_x<kKind, kFormat>(plan, plan.p.m, rows);
      }
    };
    const Share share(plan);
    if constexpr (kKind == InputKind::kKeptBytes) {
      ScaleStream<kFormat> scales(plan, reinterpret_cast<char*>(sums) + 2 * sums_bytes(plan.p.m), share.rows(0),
                                  share.end - share.begin);
      ByteProduct<kFormat> product(plan, ring, kept, sums);
      keep();
      consume_bytes<kFormat>(plan, ring, product, places, share, scales);
    } else {
      keep();
      consume<kFormat, kColumns, kKind>(plan, ring, kept, sums, places, share);
    }
  }
#endif
}

bool make_plan(const SmallBatchProduct& p, int step_elements, int processors, Plan* plan, int* grid) {
  *plan = {};
  plan->p = p;
  const int rows_of_unit = p.epilogue == Epilogue::kSwiGlu ? 2 : 1;
  plan->units = p.weight.n / rows_of_unit;
  // Two blocks a multiprocessor leave no room for the next product's first weights, and narrower stages: for one
  // token's longest rows, which each block takes time to keep, and whose weights arrive meanwhile.
  const bool long_rows = p.m == 1 && p.weight.k > 8192 && p.weight.n >= 16 * processors;
  const bool doubled = p.blocks != 0 ? p.blocks == 2 : p.weight.format != WeightFormat::kBf16 && long_rows;
  *grid = std::min(plan->units, doubled ? 2 * processors : processors);
  const bool integers = p.weight.format == WeightFormat::kInt8 || p.weight.format == WeightFormat::kInt4;
  const bool words = plan->units % 2 == 0 && reinterpret_cast<uintptr_t>(p.weight.scales) % 4 == 0;
  const bool bytes = integers && p.m <= kByteRowsMax && !p.same_bits && words;
  plan->unit_step = bytes ? 2 : 1;
  const int steps = plan->units / plan->unit_step;
  plan->block_steps = steps / *grid, plan->more = steps % *grid;
  const int share = (plan->block_steps + (plan->more > 0 ? 1 : 0)) * plan->unit_step;
  const StreamShape shape{rows_of_unit, step_elements, share, p.m, bytes};
  return plan_stream(plan, shape, p.norm_weight != nullptr || p.x_type != Scalar::kBf16);
}

// Float32 or normalised rows of many tokens that shared memory does not hold: the tokens in two launches.
cudaError_t launch_halves(const SmallBatchProduct& p, cudaStream_t stream) {
  if (p.m < 2) return cudaErrorInvalidValue;
  SmallBatchProduct first = p, second = p;
  first.m = p.m / 2, second.m = p.m - first.m;
  second.x = static_cast<const char*>(p.x) + first.m * p.x_stride * scalar_bytes(p.x_type);
  second.y = static_cast<char*>(p.y) + first.m * p.y_stride * scalar_bytes(p.y_type);
  const cudaError_t error = launch_small_batch(first, stream);
  return error != cudaSuccess ? error : launch_small_batch(second, stream);
}

template <WeightFormat kFormat, int kColumns>
cudaError_t launch(const SmallBatchProduct& p, cudaStream_t stream) {
  int grid = 0;
  Arguments args;
  if (!make_plan(p, kStepElements<kFormat>, processor_count(), &args.plan, &grid)) return launch_halves(p, stream);
  if (!make_stream_maps(args.plan, p.weight.n, p.epilogue == Epilogue::kSwiGlu ? p.weight.n / 2 : 0, p.m, &args.weight,
                        &args.x))
    return cudaErrorInvalidValue;
  auto kernel = args.plan.kept ? small_batch_kernel<kFormat, kColumns, InputKind::kKept>
                               : small_batch_kernel<kFormat, kColumns, InputKind::kStage>;
  if constexpr (kColumns == 1 && Format<kFormat>::kHalves) {
    if (args.plan.kept && !p.same_bits) kernel = small_batch_kernel<kFormat, kColumns, InputKind::kKeptHalf>;
  }
  if constexpr (kColumns == 1 && (kFormat == WeightFormat::kInt8 || kFormat == WeightFormat::kInt4)) {
    if (args.plan.column_bytes > 0) kernel = small_batch_kernel<kFormat, kColumns, InputKind::kKeptBytes>;
  }
  size_t shared = stream_shared_bytes(args.plan, p.m);
  if (p.epilogue == Epilogue::kAdd && grid <= processor_count()) shared = std::max(shared, kAloneBytes);
  const cudaError_t error = allow_shared(kernel, static_cast<int>(shared));
  if (error != cudaSuccess) return error;
  return launch_kernel(kernel, grid, kThreads, shared, stream, p.overlap, 1, args);
}

template <WeightFormat kFormat>
cudaError_t launch_columns(const SmallBatchProduct& p, cudaStream_t stream) {
  if (p.m <= 8) return launch<kFormat, 1>(p, stream);
  if (p.m <= 16) return launch<kFormat, 2>(p, stream);
  return launch<kFormat, 4>(p, stream);
}

}  // namespace

cudaError_t launch_small_batch(const SmallBatchProduct& p, cudaStream_t stream) {
  if (!small_batch_valid(p)) return cudaErrorInvalidValue;
  if (compute_capability() < 90) return launch_small_batch_portable(p, stream);
  switch (p.weight.format) {
    case WeightFormat::kBf16:
      return launch_columns<WeightFormat::kBf16>(p, stream);
    case WeightFormat::kF8Block:
      return launch_columns<WeightFormat::kF8Block>(p, stream);
    case WeightFormat::kInt8:
      return launch_columns<WeightFormat::kInt8>(p, stream);
    case WeightFormat::kInt4:
      if (token_product_takes(p)) return launch_token_product(p, stream);
      return launch_columns<WeightFormat::kInt4>(p, stream);
  }
  return cudaErrorInvalidValue;
}

}  // namespace spillway::kernels::cuda
