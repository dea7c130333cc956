// The streaming core of gemv_stream.cuh over the rows of the chosen experts. gate_up shares out the pairs of rows of all
// slots; down shares out the outputs of all tokens and runs K through the token's experts one after the other, so that
// their weighted sum needs no second kernel.
#include "kernels/cuda/gemv_experts.h"

#include <algorithm>

#include "kernels/cuda/gemv_stream.cuh"

namespace spillway::kernels::cuda {
namespace {

constexpr int kShared = 112 * 1024;  // twice in one multiprocessor

struct Plan {
  StreamPlan stream;
  ExpertProduct e;
  int64_t units;          // outputs, or pairs of rows, of all lanes
  int units_of_lane;      // of one slot (gate_up) or token (down)
  int64_t expert_bytes;   // of weights
  int64_t expert_scales;  // bytes of scales
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
    pass->rows = {first, count, kDown ? 0 : plan_.units_of_lane};
    at_ += count;
    return true;
  }

 private:
  const Plan& plan_;
  int64_t at_, end_;
};

// The slot that step `step` of a pass works for; and its expert.
template <bool kDown>
__device__ __forceinline__ int slot_of(const Plan& plan, const Pass& pass, int step) {
  return kDown ? pass.lane * plan.e.slots + step / plan.stream.k_steps : pass.lane;
}
__device__ __forceinline__ int expert_of(const Plan& plan, int slot) { return max(0, __ldcg(plan.e.ids + slot)); }

template <bool kDown, int kElements>
__device__ void produce(const Plan& plan, const Ring& ring) {
  const StreamPlan& s = plan.stream;
  const int lane = threadIdx.x % 32, steps = s.k_steps * (kDown ? plan.e.slots : 1);
  Passes<kDown> passes(plan);
  int issued = 0;
  for (Pass pass; passes.next(&pass);) {
    for (int step = 0; step < steps; ++step, ++issued) {
      const int stage = issued % s.stages, slot = slot_of<kDown>(plan, pass, step), part = step % s.k_steps;
      const int64_t offset = static_cast<int64_t>(part) * kRowBytes;
      const auto bytes = static_cast<uint32_t>(min(static_cast<int64_t>(kRowBytes), s.row_bytes - offset));
      const auto x_bytes = static_cast<uint32_t>(min(kElements, plan.e.weight.k - part * kElements) * s.x_bytes);
      const char* weight = static_cast<const char*>(plan.e.weight.data) + expert_of(plan, slot) * plan.expert_bytes;
      if (issued >= s.stages) ptx::barrier_wait(&ring.empty[stage], (issued / s.stages - 1) & 1);
      __syncwarp();
      char* to = ring.data + stage * s.stage_bytes;
      if (lane == 0) {
        ptx::barrier_expect(&ring.full[stage], bytes * pass.rows.local() + x_bytes);
        const int64_t row = kDown ? slot : slot / plan.e.slots;
        ptx::bulk_load(to + s.x_offset,
                       static_cast<const char*>(plan.e.x) +
                           (row * plan.e.x_stride + static_cast<int64_t>(part) * kElements) * s.x_bytes,
                       x_bytes, &ring.full[stage]);
      }
      __syncwarp();
      for (int r = lane; r < pass.rows.local(); r += 32) {
        ptx::bulk_load(to + r * kRowStride, weight + pass.rows.global(r) * s.row_bytes + offset, bytes,
                       &ring.full[stage]);
      }
    }
  }
}

template <bool kDown>
__device__ void finish(const Plan& plan, const Pass& pass, const float* sums) {
  const ExpertProduct& e = plan.e;
  for (int r = threadIdx.x; r < pass.rows.count; r += kConsumers) {
    float value = take_sum(sums, r, 0, 1);
    if constexpr (!kDown) {
      value = e.ids[pass.lane] < 0 ? 0.0f : silu(value) * take_sum(sums, r + pass.rows.count, 0, 1);
    }
    store_one(e.y, e.y_type, pass.lane * e.y_stride + pass.rows.first + r, value, kDown && e.add);
  }
}

template <WeightFormat kFormat, bool kDown>
__global__ void __launch_bounds__(kThreads, 2) experts_kernel(const __grid_constant__ Plan plan) {
#if __CUDA_ARCH__ >= 900
  extern __shared__ __align__(128) char shared[];
  __shared__ uint64_t full[kStagesMax], empty[kStagesMax];
  const StreamPlan& s = plan.stream;
  const Ring ring{full, empty, shared};
  auto* sums = reinterpret_cast<float*>(shared + s.stages * s.stage_bytes);
  if (threadIdx.x == 0) {
    for (int i = 0; i < s.stages; ++i) {
      ptx::barrier_init(&full[i], 1);
      ptx::barrier_init(&empty[i], kConsumers / 32);
    }
    ptx::barrier_init_fence();
  }
  __syncthreads();
  ptx::launch_dependents();
  ptx::wait_for_previous();  // the routing's ids say which weights
  if (threadIdx.x >= kConsumers) {
    produce<kDown, kStepElements<kFormat>>(plan, ring);
    return;
  }
  WarpProduct<kFormat, 1> product;
  const int g = threadIdx.x % 32 / 4, first_tile = threadIdx.x / 32 / kSlices;
  const int steps = s.k_steps * (kDown ? plan.e.slots : 1);
  Passes<kDown> passes(plan);
  int consumed = 0;
  for (Pass pass; passes.next(&pass);) {
    const int local = pass.rows.local(), tiles = (local + 15) / 16;
    int globals[2][2];
    for (int i = 0; i < 2; ++i) {
      for (int h = 0; h < 2; ++h) globals[i][h] = pass.rows.global(min((first_tile + 2 * i) * 16 + g + 8 * h, local - 1));
    }
    for (int step = 0; step < steps; ++step, ++consumed) {
      const int slot = slot_of<kDown>(plan, pass, step);
      const float factor = !kDown ? 1.0f : plan.e.ids[slot] < 0 ? 0.0f : plan.e.weights[slot];
      const char* scales = static_cast<const char*>(plan.e.weight.scales) + expert_of(plan, slot) * plan.expert_scales;
      product.run(s, ring, consumed % s.stages, consumed / s.stages & 1, globals, tiles, step % s.k_steps, scales, factor);
    }
    product.leave(sums, nullptr, 1, tiles, false);
    ptx::named_barrier(1, kConsumers);
    finish<kDown>(plan, pass, sums);
    ptx::named_barrier(1, kConsumers);
  }
#endif
}

template <WeightFormat kFormat, bool kDown>
cudaError_t launch(const ExpertProduct& e, cudaStream_t stream) {
  Plan plan{};
  plan.e = e;
  plan.units_of_lane = kDown ? e.weight.n : e.weight.n / 2;
  plan.units = static_cast<int64_t>(plan.units_of_lane) * e.tokens * (kDown ? 1 : e.slots);
  plan.expert_bytes = weight_data_bytes(kFormat, e.weight.n, e.weight.k);
  plan.expert_scales = weight_scale_bytes(kFormat, e.weight.n, e.weight.k, e.weight.scale_rows);
  StreamPlan& s = plan.stream;
  s.p.m = 1, s.p.weight = e.weight, s.p.x_type = e.x_type;
  s.row_bytes = weight_row_bytes(kFormat, e.weight.k);
  s.k_steps = static_cast<int>((s.row_bytes + kRowBytes - 1) / kRowBytes);
  s.x_bytes = scalar_bytes(e.x_type);
  s.x_stride = kStepElements<kFormat> * s.x_bytes + 16;
  const int grid = static_cast<int>(std::min<int64_t>(processor_count(), plan.units));
  const int rows_of_unit = kDown ? 1 : 2;
  const int share = static_cast<int>((plan.units + grid - 1) / grid);
  const int wanted = std::max(1, (share * rows_of_unit <= kRowsMax ? kRowsMax : kRowsMax / 2) / rows_of_unit);
  const int passes = (share + wanted - 1) / wanted;
  s.block_units = (share + passes - 1) / passes;
  s.x_offset = s.block_units * rows_of_unit * kRowStride;
  s.stage_bytes = s.x_offset + s.x_stride;
  s.stages = std::min((kShared - tail_bytes(1) - 2048) / s.stage_bytes, kStagesMax);
  const size_t shared = static_cast<size_t>(s.stages) * s.stage_bytes + tail_bytes(1);
  const auto kernel = experts_kernel<kFormat, kDown>;
  const cudaError_t error = allow_shared(kernel, static_cast<int>(shared));
  if (error != cudaSuccess) return error;
  return launch_kernel(kernel, static_cast<unsigned>(grid), kThreads, shared, stream, true, 1, plan);
}

template <bool kDown>
cudaError_t launch_format(const ExpertProduct& e, cudaStream_t stream) {
  const bool right = e.tokens >= 1 && e.tokens <= kExpertTokensMax && e.slots >= 1 && e.ids != nullptr &&
                     (!kDown || e.weights != nullptr) && e.weight.n >= 2 && e.weight.n % 2 == 0 && e.weight.k >= 16 &&
                     e.weight.k % 16 == 0 && e.x_type != Scalar::kF16 && e.y_type != Scalar::kF16;
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
