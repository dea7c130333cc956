// Drawing tokens on the device from rows of logits: what engine/sampler.h does on the host for requests without
// penalties, biases and constraints. CUDA only; the CPU's logits are the host's already.
#pragma once

#include <cstdint>

#include "tensor/stream.h"
#include "tensor/tensor.h"

namespace spillway::kernels {

// How one row becomes a token. The key is that of the sampler's noise: (key, token) fix it.
struct RowDraw {
  float temperature = 0;  // 0: greedy
  float top_p = 1;
  float min_p = 0;
  int32_t top_k = 0;  // 0: off
  uint32_t key_low = 0, key_high = 0;
  int32_t vocab = 0;  // tokens that may be drawn; 0: the row is left out
  int32_t unused = 0;
};
static_assert(sizeof(RowDraw) == 32, "the kernels read 8 words");

// tokens i32 [T] = what is drawn from logits f32 [T, V] with draws [T] (32 bytes each, on the device); -1 where no
// logit is finite.
void draw_rows(tensor::TensorView logits, const RowDraw* draws, tensor::TensorView tokens, tensor::Stream& stream);

// ids[t] = drawn[carried[t]] where carried[t] >= 0: tokens that the step before drew and the host has not seen. All
// i32.
void carry_tokens(tensor::TensorView carried, tensor::TensorView drawn, tensor::TensorView ids, tensor::Stream& stream);

}  // namespace spillway::kernels
