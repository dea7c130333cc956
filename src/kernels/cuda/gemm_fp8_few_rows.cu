// Tiles of 256 rows of the weight (neighbours, or 128 gates and their ups) by 16 or 32 rows of x; a block for every
// multiprocessor, persistent (gemm_fp8_few_rows_work.cuh). One thread loads 128 bytes of K a stage with tensor copies;
// two warpgroups multiply two times 64 rows each and add every stage's sums, times both scales, to float32 registers.
// They share the stage's x: in tiles of 128 rows x took a quarter of all that came from L2.
#include <cuda_fp8.h>

#include <algorithm>

#include "kernels/cuda/gemm_fp8_few_rows_work.cuh"
#include "kernels/cuda/gemm_launch.cuh"
#include "kernels/cuda/gemm_maps.h"
#include "kernels/cuda/gemm_wgmma.cuh"

namespace spillway::kernels::cuda {
namespace {

constexpr int kStageK = 128;
constexpr int kBoxRows = 128;               // of the weight; a stage has two, a product takes half of one
constexpr int kConsumers = 256;             // two warpgroups
constexpr int kThreads = kConsumers + 128;  // and one that loads
constexpr int kStages = 6;
constexpr int kRegisterThreads = 512;  // registers as for so many: the kernel in front still fits beside a block
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

__device__ __forceinline__ float load_one(const void* y, Scalar type, int64_t i) {
  return type == Scalar::kF32 ? static_cast<const float*>(y)[i]
                              : __bfloat162float(static_cast<const __nv_bfloat16*>(y)[i]);
}

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
  int last;
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

template <class S, Output kOutput>
__device__ void produce(const Arguments& a, const Ring<S>& ring, const Beside<S>& beside, int used) {
  const auto load_weight = [&](const Place<S, kOutput>& place, int stage) {
    ptx::barrier_expect(&ring.full[stage], S::kTransferBytes);
    const CUtensorMap* map = place.shared(a) ? &a.shared : &a.w;
    for (int box = 0; box < 2; ++box) {
      ptx::tensor_load(ring.w + (stage * 2 + box) * S::kBoxBytes, map, place.kb * kStageK, place.weight_row(a, box),
                       &ring.full[stage]);
    }
  };
  const bool same_x = a.p.choice.tokens > 0 && kOutput == Output::kGates;
  Walk walk = walk_of<S, kOutput>(a, used), ahead = walk;
  Segment s;
  int stage = 0, loaded = 0;
  uint32_t parity = 1;
  while (loaded < kStages && ahead.next(&s)) {  // the first weights do not depend on the previous kernel
    Place<S, kOutput> place(a, beside, used, s);
    for (int step = s.begin; step < s.end && loaded < kStages; ++step) {
      load_weight(place, loaded++);
      if (step + 1 < s.end) place.advance(a, beside);
    }
  }
  ptx::wait_for_previous();
  while (walk.next(&s)) {
    Place<S, kOutput> place(a, beside, used, s);
    for (int step = s.begin; step < s.end; ++step) {
      if (loaded > 0) {
        --loaded;
      } else {
        ptx::barrier_wait(&ring.empty[stage], parity);
        load_weight(place, stage);
      }
      const int row = same_x ? 0 : place.block * S::kRows;
      ptx::tensor_load(ring.x + stage * S::kXBytes, &a.x, place.kb * kStageK, row, &ring.full[stage]);
      ptx::tensor_load(ring.scales + stage * S::kScaleBytes, &a.scales, row, place.kb, &ring.full[stage]);
      if (step + 1 < s.end) place.advance(a, beside);
      if (++stage == kStages) stage = 0, parity ^= 1;
    }
  }
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
        half_(thread_ / 128),
        walk_(walk_of<S, kOutput>(a, used)) {}

  __device__ __forceinline__ void run() {
    for (Segment s; walk_.next(&s);) {
      Place<S, kOutput> place(a_, beside_, used_, s);
      block_ = place.block, column_ = place.column;
      rows_ = a_.p.choice.tokens > 0 ? a_.p.choice.tokens : __ldcg(a_.p.block_counts + block_);
      multiply(s, place);
      if constexpr (kOutput == Output::kSum) {
        if (s.shared >= 0) {
          add_up_and_store(s);
        } else {
          store();
        }
        continue;
      }
      if (s.shared >= 0 && !add_up(s)) continue;
      if constexpr (kOutput == Output::kGates) {
        quantize();
      } else {
        store();
      }
    }
  }

 private:
  __device__ __forceinline__ int row_of(int i) const { return i / 4 * 8 + lane_ % 4 * 2 + i % 2; }
  __device__ __forceinline__ int output_of(int i) const {
    return half_ * 64 + warp_ % 4 * 16 + lane_ / 4 + i / 2 % 2 * 8;
  }
  __device__ __forceinline__ void multiply(const Segment& s, Place<S, kOutput>& place);
  __device__ __forceinline__ float* part_of(int slot) const {
    return static_cast<float*>(a_.p.workspace) + static_cast<int64_t>(slot) * kTileOutputs * S::kRows;
  }
  __device__ __forceinline__ bool arrive(int tile, int sharers);
  __device__ __forceinline__ bool add_up(const Segment& s);
  __device__ __forceinline__ void add_up_and_store(const Segment& s);
  __device__ __forceinline__ void quantize();
  __device__ __forceinline__ void store();

  const Arguments& a_;
  const Ring<S>& ring_;
  Beside<S>& beside_;
  const int used_, thread_, lane_, warp_, half_;
  Walk walk_;
  int block_, column_, rows_, stage_ = 0;
  uint32_t parity_ = 0;
  float sums_[2][S::kSums];
};

template <class S, Output kOutput>
__device__ __forceinline__ void Consumer<S, kOutput>::multiply(const Segment& s, Place<S, kOutput>& place) {
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
#pragma unroll
  for (int i = 0; i < 2 * S::kSums; ++i) sums_[i / S::kSums][i % S::kSums] = 0;
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

// Counts a part of a shared tile that all consumers have written; whether it was the last.
template <class S, Output kOutput>
__device__ __forceinline__ bool Consumer<S, kOutput>::arrive(int tile, int sharers) {
  ptx::named_barrier(1, kConsumers);
  if (thread_ == 0) {
    __threadfence();
    beside_.last = atomicAdd(a_.p.counters + tile, 1u) == static_cast<unsigned>(sharers - 1) ? 1 : 0;
    if (beside_.last != 0) atomicExch(a_.p.counters + tile, 0u);
    __threadfence();
  }
  ptx::named_barrier(1, kConsumers);
  return beside_.last != 0;
}

// Leaves this block's part of a shared tile; whoever ends last has the whole in sums_ and goes on with it.
template <class S, Output kOutput>
__device__ __forceinline__ bool Consumer<S, kOutput>::add_up(const Segment& s) {
  const auto place_of = [&](int slot) { return part_of(slot) + thread_; };
  float* mine = place_of(partial_slot(static_cast<int>(blockIdx.x), s.begin == 0));
#pragma unroll
  for (int i = 0; i < 2 * S::kSums; ++i) {
    if (row_of(i % S::kSums) < rows_) __stcg(mine + i * kConsumers, sums_[i / S::kSums][i % S::kSums]);
  }
  const int first = walk_.first_sharer(s.shared), last = walk_.last_sharer(s.shared);
  if (!arrive(s.shared, last - first + 1)) return false;
#pragma unroll
  for (int i = 0; i < 2 * S::kSums; ++i) sums_[i / S::kSums][i % S::kSums] = 0;
#pragma unroll(S::kSums > 8 ? 2 : 3)
  for (int block = first; block <= last; ++block) {
    const float* part = place_of(partial_slot(block, block == first));
#pragma unroll
    for (int i = 0; i < 2 * S::kSums; ++i) {
      if (row_of(i % S::kSums) < rows_) sums_[i / S::kSums][i % S::kSums] += __ldcg(part + i * kConsumers);
    }
  }
  return true;
}

// The same where sums are what is asked for: parts lie as rows of outputs, and a thread ends four of one row, all of
// whose parts are under way at once.
template <class S, Output kOutput>
__device__ __forceinline__ void Consumer<S, kOutput>::add_up_and_store(const Segment& s) {
  float* mine = part_of(partial_slot(static_cast<int>(blockIdx.x), s.begin == 0));
#pragma unroll
  for (int i = 0; i < 2 * S::kSums; ++i) {
    const int row = row_of(i % S::kSums);
    if (row < rows_) {
      __stcg(mine + row * kTileOutputs + i / S::kSums * kBoxRows + output_of(i % S::kSums),
             sums_[i / S::kSums][i % S::kSums]);
    }
  }
  const int first = walk_.first_sharer(s.shared), last = walk_.last_sharer(s.shared);
  if (!arrive(s.shared, last - first + 1)) return;
  const int output = thread_ % 64 * 4;
  if (column_ + output >= a_.p.weight.n) return;
  for (int row = thread_ / 64; row < rows_; row += kConsumers / 64) {
    const int64_t at = row * a_.p.y_stride + column_ + output;
    float before[4] = {};
    if (a_.p.add) {
#pragma unroll
      for (int i = 0; i < 4; ++i) before[i] = load_one(a_.p.y, a_.p.y_type, at + i);
    }
    float4 sum = {};
#pragma unroll 8
    for (int block = first; block <= last; ++block) {
      const float* part = part_of(partial_slot(block, block == first)) + row * kTileOutputs + output;
      const float4 v = __ldcg(reinterpret_cast<const float4*>(part));
      sum.x += v.x, sum.y += v.y, sum.z += v.z, sum.w += v.w;
    }
    store_one(a_.p.y, a_.p.y_type, at, before[0] + sum.x, false);
    store_one(a_.p.y, a_.p.y_type, at + 1, before[1] + sum.y, false);
    store_one(a_.p.y, a_.p.y_type, at + 2, before[2] + sum.z, false);
    store_one(a_.p.y, a_.p.y_type, at + 3, before[3] + sum.w, false);
  }
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
#pragma unroll
  for (int i = 0; i < S::kSums; ++i) {
    if (row_of(i) >= rows_) continue;
    const int64_t at = (first_row + row_of(i)) * a_.p.y_stride + column_ + output_of(i);
#pragma unroll
    for (int box = 0; box < 2; ++box) {
      if constexpr (kOutput == Output::kSum) {
        if (column_ + output_of(i) + box * kBoxRows >= a_.p.weight.n) continue;
        store_one(a_.p.y, a_.p.y_type, at + box * kBoxRows, sums_[box][i], a_.p.add);
      } else {
        static_cast<__nv_bfloat16*>(a_.p.y)[at + box * kBoxRows] = __float2bfloat16(sums_[box][i]);
      }
    }
  }
}

template <class S, Output kOutput>
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
  int used;
  if (S::kListRows == S::kRows && args.p.choice.tokens > 0) {
    beside.list.find(args.p.choice, args.p.experts);
    used = beside.list.used;
  } else {
    used = __ldcg(args.p.blocks_used);
    __syncthreads();
  }
  if (threadIdx.x < 128) {
    if (threadIdx.x == 0) produce<S, kOutput>(args, ring, beside, used);
  } else {
    ptx::wait_for_previous();
    ptx::launch_dependents();
    Consumer<S, kOutput>(args, ring, beside, used).run();
  }
#endif
}

template <int kRows, Output kOutput>
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
  const auto kernel = few_rows_kernel<S, kOutput>;
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

// Two parts of 256 outputs by block_rows a multiprocessor.
size_t few_rows_workspace_bytes(int block_rows) {
  return size_t{2} * static_cast<size_t>(processor_count()) * kTileOutputs * static_cast<size_t>(block_rows) * 4;
}

cudaError_t launch_fp8_few_rows(const Fp8FewRowsProduct& p, cudaStream_t stream) {
  const ExpertChoice& c = p.choice;
  const bool few = c.tokens > 0, by_block = p.m >= p.block_rows && p.block_rows > 0 && p.m % p.block_rows == 0;
  const bool listed = few ? p.block_rows == kFewTokensMax && few_rows_take_tokens(c.tokens, c.slots, p.experts)
                          : p.block_experts != nullptr && p.block_counts != nullptr && p.blocks_used != nullptr;
  const bool dense = few && c.slots == 0 && p.output == FewRowsOutput::kSum;
  const bool right = p.experts >= 1 && listed && (by_block || dense || (few && p.output == FewRowsOutput::kGates)) &&
                     (few || p.output != FewRowsOutput::kSum) && (!few || p.output != FewRowsOutput::kRows) &&
                     (dense || p.weight.n % kTileOutputs == 0) && p.weight.k >= 128 && p.weight.k % 128 == 0 &&
                     p.weight.format == WeightFormat::kF8Block && p.weight.scale_rows == 128 &&
                     p.x.scales_stride >= p.m && p.x.scales_stride % 4 == 0 && p.workspace != nullptr &&
                     p.counters != nullptr;
  if (!right) return cudaErrorInvalidValue;
  if (p.output == FewRowsOutput::kSum) return launch<16, Output::kSum>(p, stream);
  const bool gates = p.output == FewRowsOutput::kGates;
  if (p.block_rows == 16) return gates ? launch<16, Output::kGates>(p, stream) : launch<16, Output::kRows>(p, stream);
  if (p.block_rows == 32) return gates ? launch<32, Output::kGates>(p, stream) : launch<32, Output::kRows>(p, stream);
  return cudaErrorInvalidValue;
}

}  // namespace spillway::kernels::cuda
