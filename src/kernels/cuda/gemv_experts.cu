// The streaming core of gemv_stream.cuh over the rows of the chosen experts. gate_up shares out the pairs of rows of
// all slots; down shares out the outputs of all tokens and runs K through the token's experts one after the other, so
// that their weighted sum needs no second kernel.
#include <algorithm>

#include "kernels/cuda/gemv_experts.h"
#include "kernels/cuda/gemv_keep.cuh"

namespace spillway::kernels::cuda {
namespace {

struct Plan {
  StreamPlan stream;
  ExpertProduct e;
  int64_t units;          // outputs, or pairs of rows, of all lanes
  int units_of_lane;      // of one slot (gate_up) or token (down)
  int64_t expert_scales;  // bytes of scales
};

// Slots whose ids and weights a block keeps at hand.
constexpr int kSlotsKept = 256;

struct Arguments {
  CUtensorMap weight, x;
  Plan plan;
};

// One pass over K: some rows of one lane (slot or token).
struct Pass {
  Rows rows;
  int lane;
};

// The passes of this block in order; both sides of the ring walk them alike.
template <bool kDown>
class Passes {
 public:
  __device__ explicit Passes(const Plan& plan)
      : plan_(plan),
        at_(static_cast<int64_t>(blockIdx.x) * plan.units / gridDim.x),
        end_(static_cast<int64_t>(blockIdx.x + 1) * plan.units / gridDim.x) {}
  __device__ bool next(Pass* pass) {
    if (at_ >= end_) return false;
    pass->lane = static_cast<int>(at_ / plan_.units_of_lane);
    const int first = static_cast<int>(at_ % plan_.units_of_lane);
    const int count = min(static_cast<int>(min(end_ - at_, static_cast<int64_t>(plan_.stream.block_units))),
                          plan_.units_of_lane - first);
    pass->rows = {first, count, kDown ? 0 : plan_.units_of_lane, plan_.stream.pitch};
    at_ += count;
    return true;
  }

 private:
  const Plan& plan_;
  int64_t at_, end_;
};

// The routing's choice, copied to shared memory where it fits: it is looked up for every stage.
struct Choice {
  const int32_t* ids;
  const float* weights;
  __device__ __forceinline__ int expert(int slot) const { return max(0, ids[slot]); }
  __device__ __forceinline__ float factor(int slot) const { return ids[slot] < 0 ? 0.0f : weights[slot]; }
};

// One thread.
template <bool kDown>
__device__ void produce(const Arguments& args, const Ring& ring, const Choice& choice) {
  const Plan& plan = args.plan;
  const StreamPlan& s = plan.stream;
  const int steps = s.k_steps * (kDown ? plan.e.slots : 1);
  const uint32_t bytes = stage_transfer_bytes(s);
  Passes<kDown> passes(plan);
  int issued = 0, stage = 0;
  uint32_t parity = 1;
  for (Pass pass; passes.next(&pass);) {
    int row = 0, part = 0, slot = kDown ? pass.lane * plan.e.slots : pass.lane;
    for (int step = 0; step < steps; ++step, ++issued) {
      if (part == 0) row = choice.expert(slot) * plan.e.weight.n + pass.rows.first;
      if (issued >= s.stages) ptx::barrier_wait(&ring.empty[stage], parity);
      ptx::barrier_expect(&ring.full[stage], bytes);
      char* to = ring.data + stage * s.stage_bytes;
      load_stage_weights(s, &args.weight, to, row, part, &ring.full[stage]);
      if (!s.kept) load_stage_x(s, &args.x, to, kDown ? slot : slot / plan.e.slots, part, &ring.full[stage]);
      if (++stage == s.stages) stage = 0, parity ^= 1;
      if (++part == s.k_steps) part = 0, ++slot;
    }
  }
}

// One warp.
template <bool kDown>
__device__ void finish(const Plan& plan, const Pass& pass, const float* sums) {
  const ExpertProduct& e = plan.e;
  for (int r = static_cast<int>(threadIdx.x) % 32; r < pass.rows.count; r += 32) {
    float value = take_sum(sums, r, 0, 1);
    if constexpr (!kDown) {
      value = e.ids[pass.lane] < 0 ? 0.0f : silu(value) * take_sum(sums, r + pass.rows.pitch, 0, 1);
    }
    store_one(e.y, e.y_type, pass.lane * e.y_stride + pass.rows.first + r, value, kDown && e.add);
  }
}

template <WeightFormat kFormat, bool kDown, bool kKept>
__device__ void consume(const Plan& plan, const Ring& ring, const Choice& choice, const char* kept, float* sums,
                        SumPlaces& places) {
  const StreamPlan& s = plan.stream;
  const int steps = s.k_steps * (kDown ? plan.e.slots : 1);
  WarpProduct<kFormat, 1, kKept ? InputKind::kKept : InputKind::kStage> product;
  StageScales<kFormat> next_scales = {};
  int globals[2][2], stage = 0;
  uint32_t parity = 0;
  const auto load_next = [&](int slot, int part) {
    const char* from = static_cast<const char*>(plan.e.weight.scales) + choice.expert(slot) * plan.expert_scales;
    next_scales.load(plan.e.weight, from, globals, part);
  };
  const auto first_slot = [&](const Pass& pass) { return kDown ? pass.lane * plan.e.slots : pass.lane; };
  Passes<kDown> passes(plan);
  Pass pass, next_pass;
  bool more = passes.next(&next_pass);
  if (more) {
    fragment_rows(next_pass.rows, globals);
    load_next(first_slot(next_pass), 0);
  }
  for (int number = 0; more; ++number) {
    pass = next_pass;
    more = passes.next(&next_pass);
    const int tiles = (pass.rows.local() + 15) / 16;
    int slot = first_slot(pass), part = 0;
    for (int step = 0; step < steps; ++step) {
      const StageScales<kFormat> scales = next_scales;
      const int this_slot = slot, this_part = part;
      if (++part == s.k_steps) part = 0, ++slot;
      if (step + 1 < steps) {
        load_next(slot, part);
      } else if (more) {
        fragment_rows(next_pass.rows, globals);
        load_next(first_slot(next_pass), 0);
      }
      const char* x =
          kept + (kDown ? this_slot : this_slot / plan.e.slots) * s.x_stride + this_part * kStepElements<kFormat> * 2;
      product.run(s, ring, stage, parity, tiles, x, scales, kDown ? choice.factor(this_slot) : 1.0f);
      if (++stage == s.stages) stage = 0, parity ^= 1;
    }
    places.wait_free(number);
    product.leave(sums + (number & 1) * (sums_bytes(1) / 4), 1, tiles);
    places.fill(number);
  }
}

template <WeightFormat kFormat, bool kDown, bool kKept>
__global__ void __launch_bounds__(kThreads, 2) experts_kernel(const __grid_constant__ Arguments args) {
#if __CUDA_ARCH__ >= 900
  extern __shared__ char shared[];
  __shared__ uint64_t full[kStagesMax], empty[kStagesMax];
  __shared__ SumPlaces places;
  __shared__ int32_t kept_ids[kSlotsKept];
  __shared__ float kept_weights[kSlotsKept];
  const Plan& plan = args.plan;
  const StreamPlan& s = plan.stream;
  const Ring ring{full, empty, ring_base(shared)};
  char* const kept = ring.data + s.stages * s.stage_bytes;
  if (threadIdx.x == 0) {
    ptx::prefetch_map(&args.weight);
    for (int i = 0; i < s.stages; ++i) {
      ptx::barrier_init(&full[i], 1);
      ptx::barrier_init(&empty[i], kConsumers / 32);
    }
    places.init();
    ptx::barrier_init_fence();
  }
  ptx::launch_dependents();
  ptx::wait_for_previous();  // the routing's ids say which weights
  Choice choice{plan.e.ids, plan.e.weights};
  const int slots = plan.e.tokens * plan.e.slots;
  if (slots <= kSlotsKept) {
    if (static_cast<int>(threadIdx.x) < slots) {
      kept_ids[threadIdx.x] = __ldcg(plan.e.ids + threadIdx.x);
      if constexpr (kDown) kept_weights[threadIdx.x] = __ldcg(plan.e.weights + threadIdx.x);
    }
    choice = {kept_ids, kept_weights};
  }
  __syncthreads();
  auto* sums = reinterpret_cast<float*>(kept + sums_offset(kept_bytes(s, kDown ? slots : plan.e.tokens)));
  if (threadIdx.x >= kConsumers + 32) {
    Passes<kDown> passes(plan);
    Pass pass;
    for (int number = 0; passes.next(&pass); ++number) {
      places.wait_filled(number);
      finish<kDown>(plan, pass, sums + (number & 1) * (sums_bytes(1) / 4));
      places.free(number);
    }
  } else if (threadIdx.x >= kConsumers) {
    if (threadIdx.x == kConsumers) produce<kDown>(args, ring, choice);
  } else {
    if constexpr (kKept) keep_x<InputKind::kKept, kFormat>(s, kDown ? slots : plan.e.tokens, {kept, nullptr, nullptr});
    consume<kFormat, kDown, kKept>(plan, ring, choice, kept, sums, places);
  }
#endif
}

template <WeightFormat kFormat, bool kDown>
cudaError_t launch(const ExpertProduct& e, cudaStream_t stream);

// Float32 rows of many tokens that shared memory does not hold: the tokens in two launches, which read nothing twice.
template <WeightFormat kFormat, bool kDown>
cudaError_t launch_halves(const ExpertProduct& e, cudaStream_t stream) {
  if (e.tokens < 2) return cudaErrorInvalidValue;
  ExpertProduct first = e, second = e;
  first.tokens = e.tokens / 2, second.tokens = e.tokens - first.tokens;
  const int64_t items = int64_t{first.tokens} * e.slots;
  second.ids += items;
  if (e.weights != nullptr) second.weights += items;
  second.x = static_cast<const char*>(e.x) + (kDown ? items : first.tokens) * e.x_stride * scalar_bytes(e.x_type);
  second.y = static_cast<char*>(e.y) + (kDown ? first.tokens : items) * e.y_stride * scalar_bytes(e.y_type);
  const cudaError_t error = launch<kFormat, kDown>(first, stream);
  return error != cudaSuccess ? error : launch<kFormat, kDown>(second, stream);
}

template <WeightFormat kFormat, bool kDown>
cudaError_t launch(const ExpertProduct& e, cudaStream_t stream) {
  Arguments args;
  Plan& plan = args.plan;
  plan = {};
  plan.e = e;
  plan.units_of_lane = kDown ? e.weight.n : e.weight.n / 2;
  plan.units = static_cast<int64_t>(plan.units_of_lane) * e.tokens * (kDown ? 1 : e.slots);
  plan.expert_scales = weight_scale_bytes(kFormat, e.weight.n, e.weight.k, e.weight.scale_rows);
  StreamPlan& s = plan.stream;
  s.p.m = 1, s.p.weight = e.weight, s.p.x = e.x, s.p.x_type = e.x_type, s.p.x_stride = e.x_stride;
  const int blocks =
      kFormat == WeightFormat::kBf16 ? processor_count() : 2 * processor_count();  // widening: more warps
  const int grid = static_cast<int>(std::min<int64_t>(blocks, plan.units));
  const int rows = kDown ? e.tokens * e.slots : e.tokens;
  const StreamShape shape{kDown ? 1 : 2, kStepElements<kFormat>, static_cast<int>((plan.units + grid - 1) / grid),
                          rows};
  if (!plan_stream(&s, shape, e.x_type != Scalar::kBf16)) return launch_halves<kFormat, kDown>(e, stream);
  if (!make_stream_maps(s, int64_t{e.experts} * e.weight.n, kDown ? 0 : e.weight.n / 2, rows, &args.weight, &args.x))
    return cudaErrorInvalidValue;
  const size_t shared = stream_shared_bytes(s, rows);
  const auto kernel = s.kept ? experts_kernel<kFormat, kDown, true> : experts_kernel<kFormat, kDown, false>;
  const cudaError_t error = allow_shared(kernel, static_cast<int>(shared));
  if (error != cudaSuccess) return error;
  return launch_kernel(kernel, static_cast<unsigned>(grid), kThreads, shared, stream, true, 1, args);
}

template <bool kDown>
cudaError_t launch_format(const ExpertProduct& e, cudaStream_t stream) {
  const bool right = e.tokens >= 1 && e.tokens <= kExpertTokensMax && e.slots >= 1 && e.experts >= 1 &&
                     e.ids != nullptr && (!kDown || e.weights != nullptr) && e.weight.n >= 2 && e.weight.n % 2 == 0 &&
                     e.weight.k >= 16 && e.weight.k % 16 == 0 && e.x_type != Scalar::kF16 && e.y_type != Scalar::kF16;
  if (!right) return cudaErrorInvalidValue;
  if (e.weight.format == WeightFormat::kBf16) return launch<WeightFormat::kBf16, kDown>(e, stream);
  if (e.weight.format == WeightFormat::kF8Block) return launch<WeightFormat::kF8Block, kDown>(e, stream);
  return cudaErrorInvalidValue;
}

}  // namespace

cudaError_t launch_experts_gate_up(const ExpertProduct& product, cudaStream_t stream) {
  return launch_format<false>(product, stream);
}
cudaError_t launch_experts_down(const ExpertProduct& product, cudaStream_t stream) {
  return launch_format<true>(product, stream);
}

}  // namespace spillway::kernels::cuda
