// The scales of weights of 8 and 4 bits on their way to shared memory, for products by bytes (gemv_byte_product.cuh):
// each of the consuming warps copies those of its own slice, kDepth stages ahead of their use. As many stages as the
// weights are ahead: behind so much that is under way, a scale takes as long to come as they do. The first ones do not
// wait for the kernel in front.
//
// A slot holds a group's scales of a stage's rows, two bytes each, copied by words: a block's units begin at even ones
// (StreamPlan::unit_step). Groups past the weight's last are not copied; what lies there is finite.
#pragma once

#include "kernels/cuda/attention_ptx.cuh"
#include "kernels/cuda/gemv_stream.cuh"

namespace spillway::kernels::cuda {

// The same value, which the compiler then keeps in a register: it would rather read the thread's number again in every
// stage, which takes some 30 clocks.
__device__ __forceinline__ uint32_t keep_in_register(uint32_t value) {
  return __shfl_sync(~0u, value, static_cast<int>(threadIdx.x) % 32);
}

template <WeightFormat kFormat>
class ScaleStream {
 public:
  static constexpr int kDepth = kScaleDepth;
  static constexpr int kGroups = scale_groups(kFormat);  // of a warp's slice of a stage
  static constexpr int kTurnBytes = kGroups * kScaleSlotBytes;

  // Of a thread of a consuming warp, whose lanes call each of these together. Asks for the scales of the first stages.
  // slots: of the block; first: the first pass over its `units`.
  __device__ __forceinline__ ScaleStream(const StreamPlan& plan, const char* slots, const Rows& first, int units) {
    const int lane = static_cast<int>(threadIdx.x) % 32, slice = static_cast<int>(threadIdx.x) / 32;
    slots_ = keep_in_register(shared_address(slots) + slice * kDepth * kTurnBytes);
    constexpr int kZeros = kDepth * kTurnBytes / 32;
    static_assert(kZeros % 8 == 0);
#pragma unroll
    for (int i = 0; i < kZeros; i += 8) {
      asm volatile("st.shared.v2.u32 [%0], {%1, %1};" ::"r"(slots_ + lane * kZeros + i), "r"(0) : "memory");
    }
    __syncwarp();
    // The word that this lane copies in each stage: 16 lanes a group.
    const int group = slice * kGroups + lane / 16 % kGroups;
    const int second = first.half > 0 ? lane / 8 % 2 : 0, word = first.half > 0 ? lane % 8 : lane % 16;
    const int64_t at = static_cast<int64_t>(group) * plan.p.weight.n + first.first + second * first.half + 2 * word;
    from_ = static_cast<const char*>(plan.p.weight.scales) + at * 2;
    to_ = keep_in_register(slots_ + lane / 16 % kGroups * kScaleSlotBytes + (second * first.pitch + 2 * word) * 2);
    const bool mine = lane / 16 < kGroups && 2 * word < plan.block_units;
    groups_ = mine ? (plan.p.weight.k + 127) / 128 - group : 0;
    units_ = units - 2 * word;
    left_ = units_ > 0 ? groups_ : 0;
    steps_ = plan.k_steps;
    step_bytes_ = static_cast<int>(keep_in_register(kSlices * kGroups * plan.p.weight.n * 2));
    for (int i = 0; i < kDepth; ++i) next(plan);
  }

  // Behind the reads of a stage by all lanes: asks for the scales kDepth stages on in its place.
  __device__ __forceinline__ void next(const StreamPlan& plan) {
    if (left_ > 0) {
      asm volatile("cp.async.ca.shared.global [%0], [%1], 4;" ::"r"(to_ + turn_), "l"(from_) : "memory");
    }
    copy_async_commit();
    from_ += step_bytes_;
    left_ -= kSlices * kGroups;
    turn_ = (turn_ + kTurnBytes) % (kDepth * kTurnBytes);
    if (--steps_ == 0) next_pass(plan);
  }
  // Until the scales of the stage that is to be multiplied are there; where they lie: row r of part p at
  // p * kScaleSlotBytes + 2 r.
  __device__ __forceinline__ uint32_t wait() const {
    copy_async_wait<kDepth - 1>();
    __syncwarp();
    return slots_ + turn_;
  }

 private:
  // The same word of the rows behind this pass's.
  __device__ __forceinline__ void next_pass(const StreamPlan& plan) {
    steps_ = plan.k_steps;
    from_ += plan.block_units * 2 - static_cast<int64_t>(plan.k_steps) * step_bytes_;
    units_ -= plan.block_units;
    left_ = units_ > 0 ? groups_ : 0;
  }

  const char* from_;
  uint32_t slots_, to_, turn_ = 0;
  int step_bytes_, steps_;
  int groups_, left_, units_;  // of this lane's word: groups of a pass, those to come, the block's units from it on
};

}  // namespace spillway::kernels::cuda
