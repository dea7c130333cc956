// Rotary position embedding, in place.
#pragma once

#include <cstdint>

#include "tensor/stream.h"
#include "tensor/tensor.h"

namespace spillway::kernels {

enum class RopePairs : uint8_t {
  kHalves,      // (i, i + D / 2): Llama, Qwen ("rotate_half")
  kInterleaved  // (2 i, 2 i + 1): DeepSeek; results stay where they were
};

// For each token t, head h and pair i of D = 2 * table columns rotary elements, from element `offset` of the head:
//   (a, b) becomes (a cos - b sin, b cos + a sin), with cos and sin of row positions[t].
// x f32 [T, heads, head_dim], or [T, row] with heads and head_dim given by `heads` (fused projections: head h starts at
// x_offset + h * head_dim). cos_sin f32 [positions_max, 2, D / 2] (row: cosines then sines), positions i32 [T].
struct RopeArgs {
  tensor::TensorView x;          // f32 [T, ...]; rows of x.elements() / T floats
  tensor::TensorView cos_sin;    // f32 [positions_max, 2, D / 2]
  tensor::TensorView positions;  // i32 [T]
  RopePairs pairs = RopePairs::kHalves;
  int64_t x_offset = 0;  // where in a row head 0 starts
  int heads = 1;
  int head_dim = 0;  // distance between heads
  int offset = 0;    // first rotary element within a head
};
void rope(const RopeArgs& args, tensor::Stream& stream);

// Fills cos_sin [positions, 2, D / 2] from inverse frequencies [D / 2]: factor * cos(p f), factor * sin(p f), computed
// in float64 from the float32 frequencies, in host memory on every device.
void fill_rope_table(tensor::TensorView inv_freq, float factor, tensor::TensorView cos_sin, tensor::Stream& stream);

}  // namespace spillway::kernels
