#include "nn/layer_norm.h"

#include <cmath>

#include "kernels/encoder.h"

namespace spillway::nn {

Result<LayerNorm> LayerNorm::load(const weights::WeightScope& scope, const std::string& name, int64_t size,
                                  double epsilon, LoadContext& context) {
  LayerNorm norm;
  const bool old = !scope.contains(name + ".weight") && scope.contains(name + ".gamma");
  SW_ASSIGN(norm.weight_, scope.f32(name + (old ? ".gamma" : ".weight"), {size}));
  const std::string bias = name + (old ? ".beta" : ".bias");
  if (scope.contains(bias)) {
    SW_ASSIGN(norm.bias_, scope.f32(bias, {size}));
  }
  if (context.precision == kernels::Precision::kW8A8) {
    norm.spread_ = tensor::Tensor(tensor::DType::kF32, {size});
    const float *weight = norm.weight_.as<float>(), *shift = norm.bias_.empty() ? nullptr : norm.bias_.as<float>();
    for (int64_t i = 0; i < size; ++i) {  // three standard deviations
      norm.spread_.as<float>()[i] = 3 * std::fabs(weight[i]) + (shift == nullptr ? 0.0f : std::fabs(shift[i]));
    }
  }
  norm.epsilon_ = float(epsilon);
  const int64_t count = norm.bias_.empty() ? size : 2 * size;
  context.add(count, 4 * count);
  return norm;
}

void LayerNorm::place(tensor::Stream& stream) {
  weight_ = stream.place(std::move(weight_));
  if (!bias_.empty()) bias_ = stream.place(std::move(bias_));
}

void LayerNorm::apply(tensor::TensorView x, tensor::TensorView y, const OneShotStep& step) const {
  kernels::layer_norm(x, weight_, bias_, epsilon_, y, step.stream);
  step.count();
}

}  // namespace spillway::nn
