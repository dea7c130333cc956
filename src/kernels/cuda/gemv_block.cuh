// A block's part of a product of few rows, between the ring (gemv_stream.cuh) and the outputs: its share of the units,
// what its consumers do stage by stage and what its finishing warp does pass by pass. A block may do several products
// one after the other (gemv_chain.cu): the ring and the count of passes go on.
#pragma once

#include "kernels/cuda/gemv_keep.cuh"

namespace spillway::kernels::cuda {

// A block's even share of the units, pass by pass.
struct Share {
  int begin, end, block_units, half, pitch;
  __device__ __forceinline__ explicit Share(const StreamPlan& plan)
      : begin(static_cast<int>(static_cast<int64_t>(blockIdx.x) * plan.units / gridDim.x)),
        end(static_cast<int>(static_cast<int64_t>(blockIdx.x + 1) * plan.units / gridDim.x)),
        block_units(plan.block_units),
        half(plan.p.epilogue == Epilogue::kSwiGlu ? plan.units : 0),
        pitch(plan.pitch) {}
  __device__ __forceinline__ Rows rows(int pass) const {
    const int first = begin + pass * block_units;
    return {first, max(0, min(block_units, end - first)), half, pitch};
  }
};

__device__ __forceinline__ float load_one(const void* y, Scalar type, int64_t i) {
  return type == Scalar::kF32 ? static_cast<const float*>(y)[i]
                              : __bfloat162float(static_cast<const __nv_bfloat16*>(y)[i]);
}

// One warp. What is added to is read while the last stages arrive.
// kept.unscale: [m] that the sums are multiplied by, where inputs are kept scaled. first: the product's first pass.
template <InputKind kKind>
__device__ void finish(const StreamPlan& plan, Rows rows, const float* sums, const KeptRows& kept, SumPlaces& places,
                       int pass, bool first) {
  constexpr bool kScaled = kKind == InputKind::kKeptHalf || kKind == InputKind::kKeptBytes;
  const SmallBatchProduct& p = plan.p;
  const int lane = static_cast<int>(threadIdx.x) % 32, outputs = rows.count * p.m;
  const auto place_of = [&](int i) { return i / rows.count * p.y_stride + rows.first + i % rows.count; };
  float before = 0;
  if (p.epilogue == Epilogue::kAdd && lane < outputs) before = load_one(p.y, p.y_type, place_of(lane));
  places.wait_filled(pass);
  if (kKind == InputKind::kKeptBytes && first) {
    if (lane < p.m) kept.unscale[lane] = late_factor(p, kept, lane);
    __syncwarp();
  }
  for (int i = lane; i < outputs; i += 32) {
    const int r = i % rows.count, token = i / rows.count;
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

// The finishing warp's part of a product; answers the number of passes so far.
template <InputKind kKind>
__device__ __forceinline__ int finish_product(const StreamPlan& plan, const float* sums, const KeptRows& kept,
                                              SumPlaces& places, int pass) {
  const Share share(plan);
  for (int i = 0; share.rows(i).count > 0; ++i, ++pass) {
    finish<kKind>(plan, share.rows(i), sums + (pass & 1) * (sums_bytes(plan.p.m) / 4), kept, places, pass, i == 0);
  }
  return pass;
}

// One of the eight warps that multiply.
template <WeightFormat kFormat, int kColumns, InputKind kKind>
struct Consumer {
  static constexpr bool kBytes = kKind == InputKind::kKeptBytes;
  const Ring& ring;
  SumPlaces& places;
  float* sums;
  int stage = 0, pass = 0;
  uint32_t parity = 0;
  int globals[2][2] = {};
  StageScales<kFormat> next_scales = {};

  // The scales of a product's first stage, which do not depend on the tokens.
  __device__ __forceinline__ void begin(const StreamPlan& plan) {
    fragment_rows(Share(plan).rows(0), globals);
    next_scales.load(plan.p.weight, plan.p.weight.scales, globals, 0);
  }

  __device__ __forceinline__ void run(const StreamPlan& plan, const char* kept) {
    const Share share(plan);
    std::conditional_t<kBytes, ByteProduct<kFormat>, WarpProduct<kFormat, kColumns, kKind>> product;
    if constexpr (kBytes) product.begin(plan, kept);
    Rows rows = share.rows(0);
    for (int i = 0; rows.count > 0; ++i, ++pass) {
      const Rows next_rows = share.rows(i + 1);
      const int tiles = (rows.local() + 15) / 16;
      for (int step = 0; step < plan.k_steps; ++step) {
        const StageScales<kFormat> scales = next_scales;
        if (step + 1 < plan.k_steps) {
          next_scales.load(plan.p.weight, plan.p.weight.scales, globals, step + 1);
        } else if (next_rows.count > 0) {
          fragment_rows(next_rows, globals);
          next_scales.load(plan.p.weight, plan.p.weight.scales, globals, 0);
        }
        if constexpr (kBytes) {
          product.run(plan, ring, stage, parity, tiles, step, scales);
        } else {
          product.run(plan, ring, stage, parity, tiles, kept + step * kStepElements<kFormat> * 2, scales);
        }
        if (++stage == plan.stages) stage = 0, parity ^= 1;
      }
      places.wait_free(pass);
      product.leave(sums + (pass & 1) * (sums_bytes(plan.p.m) / 4), plan.p.m, tiles);
      places.fill(pass);
      rows = next_rows;
    }
  }
};

}  // namespace spillway::kernels::cuda
