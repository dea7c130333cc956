// Moe: a router, its experts and the experts that every token passes. The router computes in float32 whatever the
// precision of the rest, for a rounding there chooses other experts. One a DeepSeek layer; engine's thread.
#pragma once

#include <optional>
#include <vector>

#include "kernels/moe.h"
#include "nn/mlp.h"

namespace spillway::nn {

struct MoeShape {
  int64_t hidden = 0;
  int64_t inner = 0;  // of one expert
  int experts = 0;
  int shared_experts = 0;
  kernels::RoutingOptions routing;
};

class Moe {
 public:
  static Result<Moe> load(const weights::WeightScope& scope, const MoeShape& shape, LoadContext& context);

  // y [T, hidden] += moe(x [T, hidden]).
  void add_to(tensor::TensorView x, tensor::TensorView y, const Step& step) const;
  size_t workspace_bytes(int64_t tokens) const;

 private:
  tensor::StageCost experts_cost(int64_t tokens, bool shared) const;
  Status load_expert(const weights::WeightScope& scope, int index, LoadContext& context);
  Status load_router(const weights::WeightScope& scope, LoadContext& context);

  MoeShape shape_;
  kernels::PackedLinear router_;
  tensor::Tensor bias_;
  kernels::PackedExperts experts_;
  std::optional<GatedMlp> shared_;
};

}  // namespace spillway::nn
