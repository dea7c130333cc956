#include <algorithm>

#include "kernels/cuda/gemv_token.cuh"
#include "kernels/cuda/gemv_token.h"

namespace spillway::kernels::cuda {
namespace {

// Twice in one multiprocessor, so that the next product's first weights come while this one ends; for a product that
// adds to the residual a little more (gemv_small_batch.cu).
constexpr int kSharedMost = 112 * 1024 - 256, kAlone = 113 * 1024;
// A long row takes 40 KB beside its weights: once beside a block of gate and up of two steps ahead.
constexpr int kLongSharedMost = 143 * 1024;
constexpr int kLongTurns = 5;  // slices of a warp at most

struct TokenArguments {
  CUtensorMap weight;
  TokenPlan plan;
};

// In dynamic shared memory: each warp's slots of weights, each slice's inputs and scales, in whose place a warp's sums
// come where it has one slice, else behind them.
struct TokenLayout {
  int inputs, scales, sums, bytes;
  SPILLWAY_HOST_DEVICE TokenLayout(const TokenPlan& plan, int warps, int depth) {
    inputs = warps * depth * kTokenStepBytes;
    scales = inputs + plan.slices * kTokenInputBytes;
    sums = plan.turns > 1 ? scales + plan.slices * plan.tiles * kTokenScaleBytes : scales;
    bytes = sums + warps * plan.tiles * kTokenScaleBytes;
  }
};

__device__ __forceinline__ float load_y(const SmallBatchProduct& p, int i) {
  return p.y_type == Scalar::kF32 ? static_cast<const float*>(p.y)[i]
                                  : __bfloat162float(static_cast<const __nv_bfloat16*>(p.y)[i]);
}

// What is added to an output, where it is one row.
[[maybe_unused]] __device__ __forceinline__ float load_added(const SmallBatchProduct& p, int unit) {
  const float bias = p.bias != nullptr && p.epilogue != Epilogue::kSwiGlu ? p.bias[unit] : 0;
  return p.epilogue == Epilogue::kAdd ? bias + load_y(p, unit) : bias;
}

// sums: [warp][tile][row of 16]; behind a barrier. added: to the thread's first output.
template <int kWarps>
__device__ __forceinline__ void finish(const TokenPlan& plan, const float* sums, const float* squares, int first_unit,
                                       int count, float added) {
  const SmallBatchProduct& p = plan.p;
  const int warps = static_cast<int>(blockDim.x) / 32;
  float factor = 1.0f;
  if (p.norm_weight != nullptr) {
    float square = 0;
#pragma unroll
    for (int w = 0; w < kWarps; ++w) square += w < warps ? squares[w] : 0;
    factor = rsqrtf(square / static_cast<float>(p.weight.k) + p.norm_eps);
  }
  for (int i = static_cast<int>(threadIdx.x); i < count; i += static_cast<int>(blockDim.x)) {
    const int unit = first_unit + i, tile = i / plan.tile_units, row = i - tile * plan.tile_units;
    const auto output = [&](int row_of_tile) {
      float sum = 0;
#pragma unroll
      for (int w = 0; w < kWarps; ++w) {
        if (w < warps) sum += sums[(w * plan.tiles + tile) * kTokenRows + row_of_tile];
      }
      return sum * factor;
    };
    if (i >= static_cast<int>(blockDim.x)) added = load_added(p, unit);
    float value = output(row) + added;
    if (p.epilogue == Epilogue::kSwiGlu) {
      float up = output(row + 8);
      if (p.bias != nullptr) value += p.bias[unit], up += p.bias[plan.half + unit];
      value = silu(value) * up;
    }
    store_one(p.y, p.y_type, unit, value, false);
  }
}

// The sums of rows g and g + 8 over the kinds; at: of row g + 8 t.
[[maybe_unused]] __device__ __forceinline__ void leave(uint32_t at, float first, float second) {
  const uint32_t t = threadIdx.x % 4;
  const bool odd = t % 2 == 1;
  float sum = odd ? second : first;
  sum += __shfl_xor_sync(~0u, odd ? first : second, 1);
  sum += __shfl_xor_sync(~0u, sum, 2);
  __syncwarp();
  if (t < 2) store_own(at, __float_as_uint(sum));
}

// The row of a block whose warps have one slice each: each its own. Answers the fact of the lane's kind.
[[maybe_unused]] __device__ __forceinline__ KindFact keep_own_slice(const SmallBatchProduct& p, int warp, int lane,
                                                                    uint32_t inputs, float* squares) {
  float v[8], w[8];
  const int at = warp * kTokenSlice + lane * 8;
  if (p.norm_weight != nullptr) load_8(p.norm_weight, at, p.norm_type, w);
  ptx::wait_for_previous();
  load_8(p.x, at, p.x_type, v);
  if (p.norm_weight != nullptr) {
    float square = 0;
#pragma unroll
    for (int i = 0; i < 8; ++i) square += v[i] * v[i], v[i] *= w[i];
#pragma unroll
    for (int step = 16; step > 0; step /= 2) square += __shfl_xor_sync(~0u, square, step);
    if (lane == 0) squares[warp] = square;
  }
  return keep_slice(v, inputs);
}

// The row of bf16 of a block whose warps have several: all groups of it by four lanes each, all under way at once.
[[maybe_unused]] __device__ __forceinline__ void keep_long_row(const TokenPlan& plan, const TokenLayout& layout,
                                                               int warp, uint32_t base) {
  ptx::wait_for_previous();
  constexpr int kRounds = (kLongTurns * kTokenLongWarps * 2 + kTokenLongWarps * 8 - 1) / (kTokenLongWarps * 8);
  const auto group_of = [&](int round) { return static_cast<int>(round * blockDim.x + threadIdx.x) / 4; };
  const SmallBatchProduct& p = plan.p;
  const auto* from = static_cast<const __nv_bfloat16*>(p.x) + threadIdx.x % 4 * 8;
  uint4 pieces[kRounds][4];
#pragma unroll
  for (int n = 0; n < kRounds; ++n) {
    const int group = min(group_of(n), 2 * plan.slices - 1);
#pragma unroll
    for (int j = 0; j < 4; ++j) pieces[n][j] = *reinterpret_cast<const uint4*>(from + group * 128 + j * 32);
  }
#pragma unroll
  for (int n = 0; n < kRounds; ++n) {
    if (static_cast<int>(n * blockDim.x) / 4 + warp * 8 >= 2 * plan.slices) break;
    const int group = min(group_of(n), 2 * plan.slices - 1);
    keep_group(pieces[n], base + layout.inputs + group / 2 * kTokenInputBytes, group % 2,
               group_of(n) < 2 * plan.slices);
  }
}

// Where a warp's things lie in shared memory, and the way from a slice to its next.
struct TokenPlaces {
  int warp, lane, warps;
  uint32_t slots, inputs, next_inputs, scales, next_scales, sums, zeros;
};

// All steps of a warp. x, fact: where it has one slice.
template <bool kLong, int kDepth>
__device__ __forceinline__ void multiply_steps(const TokenPlan& plan, const TokenPlaces& at, int count, int turns,
                                               TokenStream<kLong>& stream, KindInputs& x, KindFact& fact) {
  const int warp = at.warp, lane = at.lane, warps = at.warps;
  const uint32_t row = stage_row(lane / 4), t = lane % 4, scale_at = at.scales + t / 2 * 32 + row * 2;
  const uint32_t weights_at = at.slots + row * 128 + ((t ^ row) & 7) * 16;
  const uint32_t full = ptx::shared_address(stream.barriers);
  uint32_t parity = 0, slot_index = 0;
  uint32_t slot = 0, left_at = at.sums + (row + t * 8) * 4, scale_tile = scale_at;
  for (int left = count; left > 0; left -= plan.tile_units) {
    float first = 0, second = 0;
    uint32_t from = scale_tile, inputs_at = at.inputs;
#pragma unroll 1
    for (int turn = 0; turn < (kLong ? turns : 1); ++turn) {
      uint16_t bits[2];
      asm volatile("ld.shared.u16 %0, [%1];" : "=h"(bits[0]) : "r"(from));
      asm volatile("ld.shared.u16 %0, [%1 + 16];" : "=h"(bits[1]) : "r"(from));
      if (kLong) fact = load_fact(inputs_at);
      ptx::barrier_wait_at(full + slot_index * 8, parity);
      TokenWeights weights;
      weights.load<0>(weights_at + slot);
      if (kLong) x.load<0>(inputs_at + lane * 16, at.zeros);
      weights.load<1>(weights_at + slot);
      if (kLong) x.load<1>(inputs_at + lane * 16, at.zeros);
      int totals[2];
      multiply_slice(weights, x, fact.offset, totals);
      __syncwarp();
      stream.copy(slot_index, warp * 64, warps * 64);
      slot += kTokenStepBytes;
      if (++slot_index == kDepth) slot_index = slot = 0, parity ^= 1;
      first += static_cast<float>(totals[0]) * (__half2float(__ushort_as_half(bits[0])) * fact.scale);
      from += at.next_scales, inputs_at += at.next_inputs;
      second += static_cast<float>(totals[1]) * (__half2float(__ushort_as_half(bits[1])) * fact.scale);
    }
    leave(left_at, first, second);
    left_at += kTokenScaleBytes, scale_tile += kTokenScaleBytes;
  }
}

template <bool kLong, int kDepth>
__global__ void __launch_bounds__((kLong ? kTokenLongWarps : kTokenWarps) * 32, 2)
    token_kernel(const __grid_constant__ TokenArguments args) {
#if __CUDA_ARCH__ >= 900
  const TokenPlan& plan = args.plan;
  extern __shared__ char token_raw[];
  char* const token_shared = ring_base(token_raw);
  constexpr int kWarps = kLong ? kTokenLongWarps : kTokenWarps;
  __shared__ uint64_t barriers[kWarps][kDepth];
  __shared__ uint4 zero[kWarps];
  __shared__ float squares[kTokenWarps];
  ptx::launch_dependents();
  const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(own_lane());
  const int warps = static_cast<int>(blockDim.x) / 32, block = static_cast<int>(blockIdx.x);
  const TokenLayout layout(plan, warps, kDepth);
  const int first_unit = 2 * (block * plan.block_steps + min(block, plan.more)),
            count = 2 * (plan.block_steps + (block < plan.more ? 1 : 0));
  const int turns = kLong ? (plan.slices - warp + warps - 1) / warps : 1;
  const uint32_t base = ptx::shared_address(token_shared);
  TokenPlaces at;
  at.warp = warp, at.lane = lane, at.warps = warps;
  at.slots = base + warp * kDepth * kTokenStepBytes;
  at.inputs = base + layout.inputs + warp * kTokenInputBytes, at.next_inputs = warps * kTokenInputBytes;
  at.scales = base + layout.scales + warp * plan.tiles * kTokenScaleBytes;
  at.next_scales = warps * plan.tiles * kTokenScaleBytes;
  at.sums = base + layout.sums + warp * plan.tiles * kTokenScaleBytes;
  if (lane == 0) {
    ptx::prefetch_map(&args.weight);
    TokenStream<kLong>::open(barriers[warp], kDepth);
  }
  __syncwarp();
  const int tiles = (count + plan.tile_units - 1) / plan.tile_units;
  TokenStream<kLong> stream{&args.weight,
                            token_shared + warp * kDepth * kTokenStepBytes,
                            barriers[warp],
                            first_unit,
                            warp * 64,
                            tiles * turns,
                            0,
                            turns,
                            plan.tile_units,
                            plan.box_bytes};
#pragma unroll
  for (int i = 0; i < kDepth; ++i) stream.copy(i, warp * 64, warps * 64);
  for (int turn = 0; turn < turns; ++turn) {
    copy_token_scales(plan, at.scales + turn * at.next_scales, warp + turn * warps, first_unit, count);
  }
  copy_async_commit();
  at.zeros = ptx::shared_address(&zero[warp]);
  if (lane < 4) store_own(at.zeros + lane * 4, 0);
  KindFact fact;
  KindInputs x;
  if constexpr (kLong) {
    keep_long_row(plan, layout, warp, base);
  } else {
    fact = keep_own_slice(plan.p, warp, lane, at.inputs, squares);
    __syncwarp();
    x.load<0>(at.inputs + lane * 16, at.zeros);
    x.load<1>(at.inputs + lane * 16, at.zeros);
  }
  const float added =
      static_cast<int>(threadIdx.x) < count ? load_added(plan.p, first_unit + static_cast<int>(threadIdx.x)) : 0;
  copy_async_wait<0>();  // the scales, which the warp's other lanes have asked for
  if constexpr (kLong) {
    __syncthreads();
  } else {
    __syncwarp();
  }
  multiply_steps<kLong, kDepth>(plan, at, count, turns, stream, x, fact);
  __syncthreads();
  finish<kWarps>(plan, reinterpret_cast<const float*>(token_shared + layout.sums), squares, first_unit, count, added);
#endif
}

bool make_token_map(const TokenPlan& plan, CUtensorMap* map) {
  const Weight& weight = plan.p.weight;
  RowsMap w{weight.data};  // bytes, taken two at a time
  w.row_stride = weight_row_bytes(weight.format, weight.k), w.columns = w.row_stride / 2;
  w.rows = plan.units;
  w.outer = w.box_outer = plan.half > 0 ? 2 : 1;
  w.outer_stride = plan.units * w.row_stride;
  w.box_rows = plan.half > 0 ? 8 : plan.tile_units;
  return make_rows_map(map, w);
}

struct TokenLaunch {
  TokenPlan plan;
  int grid, warps, depth, shared;
  bool chosen;
};

TokenLaunch plan_token(const SmallBatchProduct& p) {
  TokenLaunch l = {};
  TokenPlan& plan = l.plan;
  plan.p = p;
  const bool pairs = p.epilogue == Epilogue::kSwiGlu;
  plan.units = pairs ? p.weight.n / 2 : p.weight.n, plan.half = pairs ? plan.units : 0;
  plan.slices = p.weight.k / kTokenSlice;
  const bool together = plan.slices <= kTokenWarps;
  l.warps = together ? plan.slices : kTokenLongWarps;
  plan.turns = (plan.slices + l.warps - 1) / l.warps;
  const int blocks = p.blocks != 0 ? p.blocks : 1, steps = plan.units / 2;
  l.grid = std::min(steps, blocks * processor_count());
  plan.block_steps = steps / l.grid, plan.more = steps % l.grid;
  const int share = 2 * (plan.block_steps + (plan.more > 0 ? 1 : 0)), most = pairs ? 8 : 16;
  plan.tiles = (share + most - 1) / most;
  plan.tile_units = ((share + plan.tiles - 1) / plan.tiles + 1) / 2 * 2;
  plan.box_bytes = (pairs ? 16 : plan.tile_units) * 128;
  for (l.depth = together ? 2 : 3; l.depth >= 2; --l.depth) {
    l.shared = TokenLayout(plan, l.warps, l.depth).bytes + 1024;
    if (l.shared <= (together ? kSharedMost : kLongSharedMost)) break;
  }
  l.chosen = l.depth >= 2;
  if (p.epilogue == Epilogue::kAdd && l.grid <= processor_count()) l.shared = std::max(l.shared, kAlone);
  return l;
}

template <bool kLong>
auto kernel_of(int depth) {
  return depth == 2 ? token_kernel<kLong, 2> : token_kernel<kLong, 3>;
}

}  // namespace

bool token_product_takes(const SmallBatchProduct& p) {
  if (p.m != 1 || p.same_bits || p.weight.format != WeightFormat::kInt4 || p.weight.k % kTokenSlice != 0) return false;
  const int rows = p.epilogue == Epilogue::kSwiGlu ? 4 : 2, slices = p.weight.k / kTokenSlice;
  if (p.weight.n % rows != 0 || reinterpret_cast<uintptr_t>(p.weight.scales) % 4 != 0) return false;
  if (slices < 12 || slices > kTokenLongWarps * kLongTurns) return false;
  if (slices > kTokenWarps && (p.norm_weight != nullptr || p.x_type != Scalar::kBf16)) return false;
  return plan_token(p).chosen;
}

cudaError_t launch_token_product(const SmallBatchProduct& p, cudaStream_t stream) {
  const TokenLaunch l = plan_token(p);
  const auto kernel = l.warps == kTokenLongWarps ? kernel_of<true>(l.depth) : kernel_of<false>(l.depth);
  const cudaError_t error = allow_shared(kernel, l.shared);
  if (error != cudaSuccess) return error;
  TokenArguments args;
  args.plan = l.plan;
  if (!make_token_map(l.plan, &args.weight)) return cudaErrorInvalidValue;
  return launch_kernel(kernel, static_cast<unsigned>(l.grid), l.warps * 32, static_cast<size_t>(l.shared), stream,
                       p.overlap, 1, args);
}

}  // namespace spillway::kernels::cuda
