#include "nn/mlp.h"

#include "kernels/elementwise.h"

namespace spillway::nn {

Result<GatedMlp> GatedMlp::load(const weights::WeightScope& scope, int64_t hidden, int64_t inner, bool bias,
                                LoadContext& context) {
  GatedMlp mlp;
  mlp.inner_ = inner;
  const MatrixRow rows[] = {{"gate_proj", inner}, {"up_proj", inner}};
  SW_ASSIGN(mlp.gate_up_, load_matrices(scope, rows, hidden, context));
  if (bias) {
    tensor::Tensor biases(tensor::DType::kF32, {2 * inner});
    for (int i = 0; i < 2; ++i) {
      SW_ASSIGN(const weights::StoredTensor stored, scope.tensor(rows[i].name + ".bias", {inner}));
      weights::widen(stored.view(), biases.as<float>() + i * inner);
    }
    mlp.gate_up_bias_ = context.stream.place(std::move(biases));
    context.add(2 * inner, int64_t(mlp.gate_up_bias_.bytes()));
  }
  SW_ASSIGN(mlp.down_, Linear::load(scope, {{"down_proj", hidden}}, inner, bias, context));
  return mlp;
}

size_t GatedMlp::workspace_bytes(int64_t tokens) const {
  return tensor::Arena::footprint(tensor::DType::kF32, {tokens, 2 * inner_}) +
         tensor::Arena::footprint(tensor::DType::kF32, {tokens, inner_});
}

void GatedMlp::add_to(tensor::TensorView x, tensor::TensorView y, const Step& step,
                      const kernels::InputNorm& norm) const {
  const ArenaScope scope(step.arena);
  const int64_t tokens = x.shape[0];
  const tensor::TensorView gate_up = step.activation({tokens, 2 * inner_});
  const tensor::TensorView inner = step.activation({tokens, inner_});
  step.stream.stage(norm.empty() ? "gate and up product" : "norm, gate and up product", product_cost(gate_up_, tokens));
  if (gate_up_bias_.empty() && down_.bias().empty() &&
      kernels::takes_gates(gate_up_, down_.weight(), tokens, step.stream)) {
    kernels::linear(x, gate_up_, gate_up, step.stream, {.norm = norm});
    step.stream.stage("SwiGLU, down product", down_.cost(tokens));
    return down_.add_to(gate_up, y, step.stream, true);
  }
  if (gate_up_bias_.empty()) {
    kernels::gated_linear(x, gate_up_, gate_up, inner, step.stream, norm);
  } else {
    kernels::linear(x, gate_up_, gate_up, step.stream, {.bias = gate_up_bias_, .norm = norm});
    kernels::silu_mul(gate_up, inner, step.stream);
  }
  step.stream.stage("down product", down_.cost(tokens));
  down_.add_to(inner, y, step.stream);
}

}  // namespace spillway::nn
