// The loading side of gemm_fp8_few_rows.cu: a ring of stages of 128 bytes of K, the walks over a block's tiles, and the
// one thread that fills the ring with tensor copies.
#pragma once

#include "kernels/cuda/gemm_fp8_few_rows_work.cuh"
#include "kernels/cuda/gemm_ptx.cuh"

namespace spillway::kernels::cuda::few_rows {

constexpr int kStageK = 128;
constexpr int kBoxRows = 128;               // of the weight; a stage has two, a product takes half of one
constexpr int kConsumers = 256;             // two warpgroups
constexpr int kThreads = kConsumers + 128;  // and one that loads
constexpr int kStages = 6;
constexpr int kRegisterThreads = 512;  // registers as for so many: the kernel in front still fits beside a block
constexpr int kClaimsKept = kStages + 2;
using Output = FewRowsOutput;

template <int kRows_>
struct Shape {
  static constexpr int kRows = kRows_;
  static constexpr int kSums = kRows / 2;  // of a thread and box
  static constexpr int kBoxBytes = kBoxRows * kStageK;
  static constexpr int kXBytes = kRows * kStageK;
  static constexpr int kScaleBytes = 128;  // of a stage; kRows * 4 of them used
  static constexpr int kTransferBytes = 2 * kBoxBytes + kXBytes + kRows * 4;
  static constexpr int kSharedBytes = kStages * (2 * kBoxBytes + kXBytes + kScaleBytes) + 1024 + 16 * kStages;
  static constexpr int kListRows = kRows == kFewTokensMax ? kRows : 1;
};

struct Arguments {
  CUtensorMap w, x, scales, shared;
  Fp8FewRowsProduct p;
  int k_blocks, tiles;  // tiles: of an expert's outputs
};

template <class S>
struct Ring {
  char *w, *x, *scales;
  uint64_t *full, *empty;
  __device__ explicit Ring(char* shared) {
    w = reinterpret_cast<char*>((reinterpret_cast<uintptr_t>(shared) + 1023) / 1024 * 1024);
    x = w + kStages * 2 * S::kBoxBytes;
    scales = x + kStages * S::kXBytes;
    full = reinterpret_cast<uint64_t*>(scales + kStages * S::kScaleBytes);
    empty = full + kStages;
  }
};

template <class S>
struct Beside {
  ExpertList<S::kListRows> list;
  alignas(16) char staged[S::kRows][kBoxRows];  // a tile's h
  float most[8][S::kRows];                      // of a warp
  int claims[kClaimsKept];  // by turns: more than there can be between what is loaded and what is multiplied
};

// Where a segment stands: which expert's weight meets which rows.
template <class S, Output kOutput>
struct Place {
  int block, kb, column, expert;

  __device__ __forceinline__ Place(const Arguments& a, const Beside<S>& beside, int used, const Segment& s) {
    if (kOutput == Output::kSum) {
      block = s.begin / a.k_blocks, kb = s.begin % a.k_blocks, column = s.tile * kTileOutputs;
    } else {
      const int band = s.tile / (kBand * a.tiles), in_band = s.tile % (kBand * a.tiles);
      const int blocks = min(kBand, used - band * kBand);
      block = band * kBand + in_band % blocks, kb = s.begin;
      column = in_band / blocks * (kOutput == Output::kGates ? kTileOutputs / 2 : kTileOutputs);
    }
    find(a, beside);
  }
  __device__ __forceinline__ void find(const Arguments& a, const Beside<S>& beside) {
    expert = a.p.choice.tokens > 0 ? beside.list.experts[block] : __ldcg(a.p.block_experts + block);
  }
  // Not behind the segment's end.
  __device__ __forceinline__ void advance(const Arguments& a, const Beside<S>& beside) {
    ++kb;
    if (kOutput == Output::kSum && kb == a.k_blocks) {
      kb = 0, ++block;
      find(a, beside);
    }
  }
  __device__ __forceinline__ bool shared(const Arguments& a) const { return expert == a.p.experts; }
  // First row of a box among all experts' rows.
  __device__ __forceinline__ int weight_row(const Arguments& a, int box) const {
    return (shared(a) ? 0 : expert * a.p.weight.n) + column +
           box * (kOutput == Output::kGates ? a.p.weight.n / 2 : kBoxRows);
  }
};

template <class S, Output kOutput>
__device__ __forceinline__ Walk walk_of(const Arguments& a, int used) {
  if (kOutput == Output::kSum) return Walk(a.tiles, used * a.k_blocks, false);
  return Walk(used * a.tiles, a.k_blocks, true);
}

constexpr int kPlaces = 4;  // for parts, of a block: of a walk one, of claims one a piece

template <class S, Output kOutput>
class Producer {
 public:
  __device__ __forceinline__ Producer(const Arguments& a, const Ring<S>& ring, const Beside<S>& beside)
      : a_(a), ring_(ring), beside_(beside) {}

  // As many weights as there are stages: they do not depend on the kernel in front.
  __device__ __forceinline__ void load_ahead(int used) {
    Walk ahead = walk_of<S, kOutput>(a_, used);
    for (Segment s; loaded_ < kStages && ahead.next(&s);) load_ahead(s, used, kStages);
  }
  // Of the first claim, its last step left out: the next claim goes with that.
  __device__ __forceinline__ void load_claimed(const Claims& claims, int used) {
    const int claim = beside_.claims[0];
    if (claim >= claims.total()) return;
    const Segment s = claims.segment(claim);
    load_ahead(s, used, min(kStages, s.end - s.begin - 1));
  }

  __device__ __forceinline__ void run(int used) {
    Walk segments = walk_of<S, kOutput>(a_, used);
    for (Segment s; segments.next(&s);) {
      Place<S, kOutput> place(a_, beside_, used, s);
      for (int step = s.begin; step < s.end; ++step) load(place, step + 1 < s.end);
    }
  }
  __device__ __forceinline__ void run_claims(const Claims& claims, Beside<S>& beside, int used) {
    int claim = beside.claims[0];
    for (int turn = 1; claim < claims.total(); turn = (turn + 1) % kClaimsKept) {
      const int next = static_cast<int>(atomicAdd(a_.p.claims, 1u));
      const Segment s = claims.segment(claim);
      Place<S, kOutput> place(a_, beside_, used, s);
      for (int step = s.begin; step + 1 < s.end; ++step) load(place, true);
      beside.claims[turn] = claim = next;  // before the barrier of the last step
      load(place, false);
    }
  }

 private:
  __device__ __forceinline__ void load_weight(const Place<S, kOutput>& place, int stage) {
    ptx::barrier_expect(&ring_.full[stage], S::kTransferBytes);
    const CUtensorMap* map = place.shared(a_) ? &a_.shared : &a_.w;
    for (int box = 0; box < 2; ++box) {
      ptx::tensor_load(ring_.w + (stage * 2 + box) * S::kBoxBytes, map, place.kb * kStageK, place.weight_row(a_, box),
                       &ring_.full[stage]);
    }
  }
  __device__ __forceinline__ void load_ahead(const Segment& s, int used, int most) {
    Place<S, kOutput> place(a_, beside_, used, s);
    for (int step = s.begin; step < s.end && loaded_ < most; ++step) {
      load_weight(place, loaded_++);
      if (step + 1 < s.end) place.advance(a_, beside_);
    }
  }
  __device__ __forceinline__ void load(Place<S, kOutput>& place, bool advance) {
    if (loaded_ > 0) {
      --loaded_;
    } else {
      ptx::barrier_wait(&ring_.empty[stage_], parity_);
      load_weight(place, stage_);
    }
    const bool same_x = a_.p.choice.tokens > 0 && kOutput == Output::kGates;
    const int row = same_x ? 0 : place.block * S::kRows;
    ptx::tensor_load(ring_.x + stage_ * S::kXBytes, &a_.x, place.kb * kStageK, row, &ring_.full[stage_]);
    ptx::tensor_load(ring_.scales + stage_ * S::kScaleBytes, &a_.scales, row, place.kb, &ring_.full[stage_]);
    if (++stage_ == kStages) stage_ = 0, parity_ ^= 1;
    if (advance) place.advance(a_, beside_);
  }

  const Arguments& a_;
  const Ring<S>& ring_;
  const Beside<S>& beside_;
  int stage_ = 0, loaded_ = 0;
  uint32_t parity_ = 1;
};

}  // namespace spillway::kernels::cuda::few_rows
