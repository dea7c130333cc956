// Mixture of experts: routing, and the products of the chosen experts.
#pragma once

#include <cstdint>
#include <span>

#include "kernels/linear.h"

namespace spillway::kernels {

// How a token picks its experts (DeepSeek's noaux_tc; with groups = 1 and kSoftmax the plain top-k).
struct RoutingOptions {
  enum class Score : uint8_t { kSigmoid, kSoftmax };
  Score score = Score::kSigmoid;
  int experts_per_token = 8;
  int groups = 1;            // experts are split in this many equal groups ...
  int groups_per_token = 1;  // ... of which the best are kept, by the sum of their two best scores
  bool normalize = true;     // weights divided by (their sum + 1e-20)
  float scale = 1.0f;        // then multiplied by this
};

// logits f32 [T, experts]; bias f32 [experts] or empty: added to scores for the choice only. ids i32 [T, k] and
// weights f32 [T, k], by falling biased score; equal scores take the lower expert first.
void route_tokens(tensor::TensorView logits, tensor::TensorView bias, const RoutingOptions& options,
                  tensor::TensorView ids, tensor::TensorView weights, tensor::Stream& stream);

struct ExpertWeights {
  PackedLinear gate_up;  // packed from {gate, up}: [2 * inter, hidden]
  PackedLinear down;     // [hidden, inter]
};

// y[t] += sum over slots s, in slot order, of weights[t, s] * expert(ids[t, s])(x[t]), where
// expert(v) = down(silu(gate v) * up v). x, y f32 [T, hidden]; ids i32 [T, k]; weights f32 [T, k].
// A token's bits depend on its own row, ids and weights only. y is read: fill it with the shared experts' output or
// zero.
void expert_mlp(tensor::TensorView x, tensor::TensorView ids, tensor::TensorView weights,
                std::span<const ExpertWeights> experts, tensor::TensorView y, tensor::Stream& stream);

}  // namespace spillway::kernels
