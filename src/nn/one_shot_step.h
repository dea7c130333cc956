// OneShotStep: what one pass of a one-shot model carries from layer to layer, and which operations are fused. Lives on
// the engine's thread for one call; borrows everything.
#pragma once

#include <cstdint>
#include <span>

#include "tensor/arena.h"
#include "tensor/stream.h"

namespace spillway::nn {

// Which neighbouring operations run as one kernel: all, but for measurements of what each is worth.
struct Fusions {
  bool qkv = true;             // queries, keys and values as one product
  bool epilogue = true;        // bias and activation in the product
  bool residual_norm = true;   // the residual added in the product, then normed in place
  bool embedding_norm = true;  // lookup, sum and norm in one pass
  bool convolution = true;     // batch norm folded, and its ReLU and residual in the convolution
  bool firsts = true;          // no row in the last layer that nobody reads (the CPU's)
};

struct OneShotStep {
  tensor::Arena& arena;
  tensor::Stream& stream;
  Fusions fusions;
  // Sequence s is rows [offsets[s], offsets[s + 1]) of the batch.
  std::span<const int32_t> offsets;
  tensor::TensorView positions;  // i32 [T]: of each row within its sequence
  int64_t* launches = nullptr;   // counts kernels; may be null

  int64_t tokens() const { return offsets.empty() ? 0 : offsets.back(); }
  void count(int64_t kernels = 1) const {
    if (launches != nullptr) *launches += kernels;
  }
};

}  // namespace spillway::nn
