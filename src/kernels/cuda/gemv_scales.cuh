// The scales of weights of 8 and 4 bits on their way to shared memory, for products by bytes (gemv_bytes.cuh): each of
// the consuming warps copies those of its own slice, kDepth stages ahead of their use. As many stages as the weights
// are ahead: behind so much that is under way, a scale takes as long to come as they do. The first ones do not wait for
// the kernel in front.
//
// A slot holds a group's scales of a stage's rows, copied by words, so from an even row on; where units have two rows,
// the second ones' scales begin two places behind the first ones'. n is even.
#pragma once

#include "kernels/cuda/attention_ptx.cuh"
#include "kernels/cuda/gemv_stream.cuh"

namespace spillway::kernels::cuda {

template <WeightFormat kFormat>
class ScaleStream {
 public:
  static constexpr int kDepth = kScaleDepth;
  static constexpr int kGroups = scale_groups(kFormat);  // of a warp's slice of a stage

  // slots: of the block. Of a thread of a consuming warp; all of them together call each of these.
  __device__ __forceinline__ ScaleStream(const StreamPlan& plan, char* slots)
      : slots_(slots + static_cast<int>(threadIdx.x) / 32 * kDepth * kGroups * kScaleSlotBytes),
        group_bytes_(plan.p.weight.n * 2) {}

  // Share: of the block, rows(pass). Asks for those of the stages that the ring's weights are loaded for.
  template <class Share>
  __device__ __forceinline__ void begin(const StreamPlan& plan, const Share& share) {
    open(plan, share.rows(0));
#pragma unroll
    for (int i = 0; i < kDepth; ++i) next(plan, share);
  }
  // Behind the reads of a stage by all lanes: asks for those kDepth stages on in its place.
  template <class Share>
  __device__ __forceinline__ void next(const StreamPlan& plan, const Share& share) {
    const int group = step_ * kSlices * kGroups + static_cast<int>(threadIdx.x) / 32 * kGroups;
    const int groups = (plan.p.weight.k + 127) / 128;
    const uint32_t to = ptx::shared_address(slots_ + turn_ * kGroups * kScaleSlotBytes) + to_;
    if (mine_) {
#pragma unroll
      for (int i = 0; i < kGroups; ++i) {
        const char* from = from_ + static_cast<int64_t>(min(group + i, groups - 1)) * group_bytes_;
        asm volatile("cp.async.ca.shared.global [%0], [%1], 4;" ::"r"(to + i * kScaleSlotBytes), "l"(from) : "memory");
      }
    }
    copy_async_commit();
    if (++step_ == plan.k_steps) {
      step_ = 0;
      open(plan, share.rows(++pass_));
    }
    turn_ = (turn_ + 1) % kDepth;
  }
  // For the stage that is to be multiplied now: its scales are there.
  __device__ __forceinline__ void wait() const {
    copy_async_wait<kDepth - 1>();
    __syncwarp();
  }
  // place: of a row, by place().
  __device__ __forceinline__ float value(int part, int place) const {
    return __half2float(
        *reinterpret_cast<const __half*>(slots_ + (turn_ * kGroups + part) * kScaleSlotBytes + place));
  }
  static __device__ __forceinline__ int place(const Rows& rows, int row) {
    const bool second = rows.half > 0 && row >= rows.pitch;
    return 2 * (row + (second ? 2 + ((rows.half + rows.first) & 1) : rows.first & 1));
  }

 private:
  // The word of each group that this lane copies in a pass.
  __device__ __forceinline__ void open(const StreamPlan& plan, const Rows& rows) {
    const int lane = static_cast<int>(threadIdx.x) % 32, second = rows.half > 0 ? lane / 16 : 0;
    const int word = lane - second * 16, first = rows.first + second * rows.half, row = (first & ~1) + 2 * word;
    mine_ = rows.count > 0 && row < first + rows.count;
    from_ = static_cast<const char*>(plan.p.weight.scales) + static_cast<int64_t>(row) * 2;
    to_ = second * (rows.pitch + 2) * 2 + word * 4;
  }

  char* slots_;
  const char* from_ = nullptr;
  int group_bytes_, to_ = 0, turn_ = 0, step_ = 0, pass_ = 0;
  bool mine_ = false;
};

}  // namespace spillway::kernels::cuda
