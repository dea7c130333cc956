// GatedMlp: down(silu(gate(x)) * up(x)). One a dense decoder layer, or DeepSeek's shared experts; engine's thread.
#pragma once

#include "nn/linear.h"

namespace spillway::nn {

class GatedMlp {
 public:
  static Result<GatedMlp> load(const weights::WeightScope& scope, int64_t hidden, int64_t inner, bool bias,
                               LoadContext& context);

  // y [T, hidden] += mlp(x [T, hidden]).
  void add_to(tensor::TensorView x, tensor::TensorView y, const Step& step, const kernels::InputNorm& norm = {}) const;
  size_t workspace_bytes(int64_t tokens) const;
  // For those that compute it together with others; without biases then.
  const kernels::PackedLinear& gate_up() const { return gate_up_; }
  const kernels::PackedLinear& down() const { return down_.weight(); }

 private:
  int64_t inner_ = 0;
  kernels::PackedLinear gate_up_;
  tensor::Tensor gate_up_bias_;
  Linear down_;
};

}  // namespace spillway::nn
