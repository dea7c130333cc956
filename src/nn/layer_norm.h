// LayerNorm: weight and optional bias by name; old checkpoints call them gamma and beta. Owned by the layer that
// computes with it; read-only after loading.
#pragma once

#include <string>

#include "nn/linear.h"
#include "nn/one_shot_step.h"

namespace spillway::nn {

class LayerNorm {
 public:
  static Result<LayerNorm> load(const weights::WeightScope& scope, const std::string& name, int64_t size,
                                double epsilon, LoadContext& context);

  // Onto the stream's device, for kernels::device_norm.
  void place(tensor::Stream& stream);

  // x, y f32 [T, size]; may be the same.
  void apply(tensor::TensorView x, tensor::TensorView y, const OneShotStep& step) const;

  const tensor::Tensor& weight() const { return weight_; }
  const tensor::Tensor& bias() const { return bias_; }
  float epsilon() const { return epsilon_; }
  // Of W8A8 models: how large each of its outputs is likely to be (InputSpread::sizes); else empty. In host memory.
  tensor::TensorView spread() const { return spread_.view(); }

 private:
  tensor::Tensor spread_;
  tensor::Tensor weight_;
  tensor::Tensor bias_;
  float epsilon_ = 0;
};

}  // namespace spillway::nn
