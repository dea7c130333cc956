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

// The router and its choice: logits f32 [T, experts] = x W^T (work), and route_tokens over them; on CUDA one launch for
// few tokens.
void route(tensor::TensorView x, const PackedLinear& router, tensor::TensorView logits, tensor::TensorView bias,
           const RoutingOptions& options, tensor::TensorView ids, tensor::TensorView weights, tensor::Stream& stream);

struct ExpertWeights {
  PackedLinear gate_up;  // packed from {gate, up}: [2 * inter, hidden]
  PackedLinear down;     // [hidden, inter]
};

// The routed experts of a layer. On the CPU one pair of weights an expert; on CUDA one pair for all, the experts' rows
// one after another.
struct PackedExperts {
  int count = 0;
  std::vector<ExpertWeights> weights;

  size_t bytes() const;
};

// Adds expert `index` (called for each of [0, count) in order) and says how many bytes it took.
Result<int64_t> add_expert(PackedExperts& experts, int index, int count, std::span<const WeightSource> gate_up,
                           const WeightSource& down, Precision precision, tensor::Stream& stream);

// y[t] += sum over slots s, in slot order, of weights[t, s] * expert(ids[t, s])(x[t]), where
// expert(v) = down(silu(gate v) * up v). x activations, y f32 [T, hidden]; ids i32 [T, k]; weights f32 [T, k].
// A token's bits depend on its own row, ids and weights only. y is read: fill it with the shared experts' output or
// zero.
void expert_mlp(tensor::TensorView x, tensor::TensorView ids, tensor::TensorView weights, const PackedExperts& experts,
                tensor::TensorView y, tensor::Stream& stream);

// The same with an expert of every token beside them, of weight 1: where takes_shared_expert() says so.
bool takes_shared_expert(const PackedExperts& experts, const PackedLinear& gate_up, const PackedLinear& down,
                         int64_t tokens, int slots, tensor::Stream& stream);
void expert_mlp_shared(tensor::TensorView x, tensor::TensorView ids, tensor::TensorView weights,
                       const PackedExperts& experts, const PackedLinear& gate_up, const PackedLinear& down,
                       tensor::TensorView y, tensor::Stream& stream);

}  // namespace spillway::kernels
