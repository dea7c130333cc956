// The multiplying side of gemm_fp8_few_rows.cu: two warpgroups that empty the ring, and what becomes of a tile's sums:
// stored, quantised as h, or left as a part for the block that has the tile's beginning.
#pragma once

#include <cuda_fp8.h>

#include "kernels/cuda/gemm_fp8_few_rows_ring.cuh"
#include "kernels/cuda/gemm_launch.cuh"
#include "kernels/cuda/gemm_wgmma.cuh"

namespace spillway::kernels::cuda::few_rows {

__device__ __forceinline__ float load_one(const void* y, Scalar type, int64_t i) {
  return type == Scalar::kF32 ? static_cast<const float*>(y)[i]
                              : __bfloat162float(static_cast<const __nv_bfloat16*>(y)[i]);
}

__device__ __forceinline__ unsigned load_acquire(const unsigned* from) {
  unsigned value;
  asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(value) : "l"(from) : "memory");
  return value;
}

// A consumer's share of a tile: sums[box][i] is output 16 * warp + lane / 4 + 8 * (i / 2 % 2) of its half of the box,
// row 8 * (i / 4) + 2 * (lane % 4) + i % 2 of the block.
template <class S, Output kOutput>
class Consumer {
 public:
  __device__ __forceinline__ Consumer(const Arguments& a, const Ring<S>& ring, Beside<S>& beside, int used)
      : a_(a),
        ring_(ring),
        beside_(beside),
        used_(used),
        thread_(static_cast<int>(threadIdx.x) - 128),
        lane_(static_cast<int>(threadIdx.x) % 32),
        warp_(thread_ / 32),
        half_(thread_ / 128) {}

  __device__ __forceinline__ void run() {
    Walk segments = walk_of<S, kOutput>(a_, used_);
    for (Segment s; segments.next(&s);) {
      multiply(s, place_of(s));
      finish(s, s.shared >= 0 ? segments.sharing(s) : Sharing{});
    }
  }
  __device__ __forceinline__ void run_claims(const Claims& claims) {
    int claim = beside_.claims[0];
    for (int turn = 1; claim < claims.total(); turn = (turn + 1) % kClaimsKept) {
      const Segment s = claims.segment(claim);
      multiply(s, place_of(s));
      const int next = beside_.claims[turn];
      finish(s, s.shared >= 0 ? claims.sharing(claim) : Sharing{});
      claim = next;
    }
  }

 private:
  __device__ __forceinline__ int row_of(int i) const { return i / 4 * 8 + lane_ % 4 * 2 + i % 2; }
  __device__ __forceinline__ int output_of(int i) const {
    return half_ * 64 + warp_ % 4 * 16 + lane_ / 4 + i / 2 % 2 * 8;
  }
  __device__ __forceinline__ Place<S, kOutput> place_of(const Segment& s) {
    const Place<S, kOutput> place(a_, beside_, used_, s);
    block_ = place.block, column_ = place.column;
    rows_ = a_.p.choice.tokens > 0 ? a_.p.choice.tokens : __ldcg(a_.p.block_counts + block_);
    return place;
  }
  __device__ __forceinline__ void multiply(const Segment& s, Place<S, kOutput> place);
  __device__ __forceinline__ void finish(const Segment& s, const Sharing& sharing);
  __device__ __forceinline__ float* part_of(int place) const {
    return static_cast<float*>(a_.p.workspace) + static_cast<int64_t>(place) * kTileOutputs * S::kRows + thread_;
  }
  __device__ __forceinline__ void clear();
  __device__ __forceinline__ void leave(int place);
  __device__ __forceinline__ void add(int place, int count);
  __device__ __forceinline__ void wait_for_parts(const Sharing& sharing);
  __device__ __forceinline__ void quantize();
  __device__ __forceinline__ void store();

  const Arguments& a_;
  const Ring<S>& ring_;
  Beside<S>& beside_;
  const int used_, thread_, lane_, warp_, half_;
  int block_, column_, rows_, stage_ = 0;
  uint32_t parity_ = 0;
  float sums_[2][S::kSums];
};

template <class S, Output kOutput>
__device__ __forceinline__ void Consumer<S, kOutput>::multiply(const Segment& s, Place<S, kOutput> place) {
  float next_scales[2];
  const auto find_scales = [&] {
#pragma unroll
    for (int box = 0; box < 2; ++box) {
      const auto* scales =
          static_cast<const float*>(place.shared(a_) ? a_.p.shared_scales : a_.p.weight.scales) + place.kb;
      int row = place.weight_row(a_, box);
      if (kOutput == Output::kSum && place.shared(a_)) row = min(row, a_.p.weight.n - 1);  // of a dense product
      next_scales[box] = __ldg(scales + static_cast<int64_t>(row / 128) * a_.k_blocks);
    }
  };
  clear();
  find_scales();
  for (int step = s.begin; step < s.end; ++step) {
    const float weight_scales[2] = {next_scales[0], next_scales[1]};
    if (step + 1 < s.end) {
      place.advance(a_, beside_);
      find_scales();
    }
    ptx::barrier_wait(&ring_.full[stage_], parity_);
    const uint64_t x = ptx::tile_descriptor(ring_.x + stage_ * S::kXBytes);
    float part[2][S::kSums];
    ptx::hold(part[0]);
    ptx::hold(part[1]);
    ptx::products_begin();
#pragma unroll
    for (int box = 0; box < 2; ++box) {
      const uint64_t w = ptx::tile_descriptor(ring_.w + (stage_ * 2 + box) * S::kBoxBytes + half_ * S::kBoxBytes / 2);
#pragma unroll
      for (int i = 0; i < 4; ++i) ptx::product_e4m3(part[box], w + 2 * i, x + 2 * i, i);
    }
    ptx::products_commit();
    float2 scales[S::kRows / 8];
    const auto* row_scales = reinterpret_cast<const float2*>(ring_.scales + stage_ * S::kScaleBytes) + lane_ % 4;
#pragma unroll
    for (int j = 0; j < S::kRows / 8; ++j) scales[j] = row_scales[j * 4];
    ptx::products_wait<0>();
    ptx::hold(part[0]);
    ptx::hold(part[1]);
#pragma unroll
    for (int box = 0; box < 2; ++box) {
#pragma unroll
      for (int i = 0; i < S::kSums; ++i) {
        sums_[box][i] += part[box][i] * ((i % 2 == 0 ? scales[i / 4].x : scales[i / 4].y) * weight_scales[box]);
      }
    }
    __syncwarp();  // all have read their scales
    if (lane_ == 0) ptx::barrier_arrive(&ring_.empty[stage_]);
    if (++stage_ == kStages) stage_ = 0, parity_ ^= 1;
  }
}

template <class S, Output kOutput>
__device__ __forceinline__ void Consumer<S, kOutput>::finish(const Segment& s, const Sharing& sharing) {
  if (s.shared >= 0 && s.begin != 0) {
    leave(sharing.mine);
    ptx::named_barrier(1, kConsumers);
    if (thread_ == 0) {
      __threadfence();
      atomicAdd(a_.p.counters + sharing.counter, 1u);
    }
    return;
  }
  if (s.shared >= 0) {
    wait_for_parts(sharing);
    add(sharing.from, sharing.count);
  }
  if constexpr (kOutput == Output::kGates) {
    quantize();
  } else {
    store();
  }
}

template <class S, Output kOutput>
__device__ __forceinline__ void Consumer<S, kOutput>::clear() {
#pragma unroll
  for (int i = 0; i < 2 * S::kSums; ++i) sums_[i / S::kSums][i % S::kSums] = 0;
}

template <class S, Output kOutput>
__device__ __forceinline__ void Consumer<S, kOutput>::leave(int place) {
  float* part = part_of(place);
#pragma unroll
  for (int i = 0; i < 2 * S::kSums; ++i) {
    if (row_of(i % S::kSums) < rows_) __stcg(part + i * kConsumers, sums_[i / S::kSums][i % S::kSums]);
  }
}

template <class S, Output kOutput>
__device__ __forceinline__ void Consumer<S, kOutput>::add(int place, int count) {
#pragma unroll(S::kSums > 8 ? 2 : 3)
  for (int p = 0; p < count; ++p) {
    const float* part = part_of(place + p);
#pragma unroll
    for (int i = 0; i < 2 * S::kSums; ++i) {
      if (row_of(i % S::kSums) < rows_) sums_[i / S::kSums][i % S::kSums] += __ldcg(part + i * kConsumers);
    }
  }
}

// Those who have the parts are at work, have ended or start as blocks behind this one do: none waits for this block.
template <class S, Output kOutput>
__device__ __forceinline__ void Consumer<S, kOutput>::wait_for_parts(const Sharing& sharing) {
  if (thread_ == 0) {
    unsigned* counter = a_.p.counters + sharing.counter;
    while (load_acquire(counter) != static_cast<unsigned>(sharing.count)) {
    }
    *counter = 0;
  }
  ptx::named_barrier(1, kConsumers);
}

// h of 128 outputs, which are one group of the quantisation.
template <class S, Output kOutput>
__device__ __forceinline__ void Consumer<S, kOutput>::quantize() {
  constexpr int kRowsEach =
      S::kSums / 2;  // of a thread; row r is that of sums 4 * (r / 2) + r % 2 and the next but one
  const bool few = a_.p.choice.tokens > 0;
  const auto first_of = [](int r) { return r / 2 * 4 + r % 2; };
  float factors[kRowsEach];
#pragma unroll
  for (int r = 0; r < kRowsEach; ++r) {
    const int row = row_of(first_of(r));
    factors[r] = row >= rows_ ? 0.0f : few ? beside_.list.factors[block_][row % S::kListRows] : 1.0f;
    float most = 0;
#pragma unroll
    for (int i = first_of(r); i < first_of(r) + 4; i += 2) {
      sums_[0][i] = factors[r] != 0 ? silu(sums_[0][i]) * sums_[1][i] : 0.0f;
      most = fmaxf(most, fabsf(sums_[0][i]));
    }
#pragma unroll
    for (int step = 4; step < 32; step *= 2) most = fmaxf(most, __shfl_xor_sync(~0u, most, step));
    if (lane_ < 4) beside_.most[warp_][row] = most;
  }
  ptx::named_barrier(1, kConsumers);
  const int64_t first_row = static_cast<int64_t>(block_) * S::kRows;
#pragma unroll
  for (int r = 0; r < kRowsEach; ++r) {
    const int row = row_of(first_of(r));
    float most = 0;
#pragma unroll
    for (int w = 0; w < kConsumers / 32; ++w) most = fmaxf(most, beside_.most[w][row]);
    const float scale = __fdiv_rn(fmaxf(most, 1e-4f), 448.0f);
#pragma unroll
    for (int i = first_of(r); i < first_of(r) + 4; i += 2) {
      beside_.staged[row][output_of(i)] =
          static_cast<char>(__nv_cvt_float_to_fp8(__fdiv_rn(sums_[0][i], scale), __NV_SATFINITE, __NV_E4M3));
    }
    if (thread_ < 4 && row < rows_) {
      a_.p.h.scales[column_ / 128 * a_.p.h.scales_stride + first_row + row] = few ? scale * factors[r] : scale;
    }
  }
  ptx::named_barrier(1, kConsumers);
  for (int i = thread_; i < rows_ * 8; i += kConsumers) {
    const uint4 part = *reinterpret_cast<const uint4*>(&beside_.staged[i / 8][i % 8 * 16]);
    char* to = static_cast<char*>(a_.p.h.q) + (first_row + i / 8) * (a_.p.weight.n / 2) + column_;
    *reinterpret_cast<uint4*>(to + i % 8 * 16) = part;
  }
}

template <class S, Output kOutput>
__device__ __forceinline__ void Consumer<S, kOutput>::store() {
  const int64_t first_row = kOutput == Output::kSum ? 0 : static_cast<int64_t>(block_) * S::kRows;
  const auto place = [&](int box, int i) {
    return (first_row + row_of(i)) * a_.p.y_stride + column_ + output_of(i) + box * kBoxRows;
  };
  const auto counts = [&](int box, int i) {
    return row_of(i) < rows_ && (kOutput != Output::kSum || column_ + output_of(i) + box * kBoxRows < a_.p.weight.n);
  };
  if (kOutput == Output::kSum && a_.p.add) {  // all of y under way at once
#pragma unroll
    for (int i = 0; i < 2 * S::kSums; ++i) {
      const int box = i / S::kSums, at = i % S::kSums;
      if (counts(box, at)) sums_[box][at] += load_one(a_.p.y, a_.p.y_type, place(box, at));
    }
  }
#pragma unroll
  for (int i = 0; i < 2 * S::kSums; ++i) {
    const int box = i / S::kSums, at = i % S::kSums;
    if (counts(box, at)) {
      store_one(a_.p.y, kOutput == Output::kSum ? a_.p.y_type : Scalar::kBf16, place(box, at), sums_[box][at], false);
    }
  }
}

}  // namespace spillway::kernels::cuda::few_rows
