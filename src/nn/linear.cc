#include "nn/linear.h"

#include <fmt/format.h>

#include "kernels/elementwise.h"

namespace spillway::nn {
namespace {

constexpr int64_t kBlock = 128;

int64_t blocks(int64_t n) { return (n + kBlock - 1) / kBlock; }

}  // namespace

Result<StoredMatrices> StoredMatrices::open(const weights::WeightScope& scope, std::span<const MatrixRow> rows,
                                            int64_t inputs) {
  StoredMatrices matrices;
  for (const MatrixRow& row : rows) {
    SW_ASSIGN(weights::StoredTensor weight,
              scope.tensor(row.name + ".weight", {row.outputs, inputs}, weights::kMatrixTypes));
    kernels::WeightSource source;
    source.weight = weight.view();
    if (source.weight.dtype == tensor::DType::kF8E4M3) {
      SW_ASSIGN(tensor::Tensor scales,
                scope.f32(row.name + ".weight_scale_inv", {blocks(row.outputs), blocks(inputs)}));
      source.scales = scales.view();
      matrices.scales_.push_back(std::move(scales));
    }
    matrices.sources_.push_back(source);
    matrices.weights_.push_back(std::move(weight));
  }
  return matrices;
}

Result<kernels::PackedLinear> load_matrices(const weights::WeightScope& scope, std::span<const MatrixRow> rows,
                                            int64_t inputs, LoadContext& context, double share) {
  SW_ASSIGN(const StoredMatrices matrices, StoredMatrices::open(scope, rows, inputs));
  std::vector<kernels::WeightSource> sources(matrices.sources().begin(), matrices.sources().end());
  for (kernels::WeightSource& source : sources) source.spread = context.input_spread;
  auto packed = kernels::pack_linear(sources, context.precision, context.stream);
  if (!packed.ok()) return std::move(packed).error().in(scope.path(rows[0].name));
  context.add(packed->n * inputs, int64_t(packed->bytes()), share);
  return packed;
}

Result<tensor::Tensor> load_matrix_f32(const weights::WeightScope& scope, const MatrixRow& row, int64_t inputs,
                                       tensor::Stream& stream) {
  SW_ASSIGN(const StoredMatrices matrix, StoredMatrices::open(scope, std::span(&row, 1), inputs));
  return kernels::dequantize(matrix.sources()[0], stream);
}

Result<Linear> Linear::load(const weights::WeightScope& scope, std::vector<MatrixRow> rows, int64_t inputs, bool bias,
                            LoadContext& context) {
  Linear linear;
  SW_ASSIGN(linear.weight_, load_matrices(scope, rows, inputs, context));
  if (!bias) return linear;
  tensor::Tensor biases(tensor::DType::kF32, {linear.weight_.n});
  int64_t at = 0;
  for (const MatrixRow& row : rows) {
    SW_ASSIGN(const weights::StoredTensor stored, scope.tensor(row.name + ".bias", {row.outputs}));
    weights::widen(stored.view(), biases.as<float>() + at);
    at += row.outputs;
  }
  linear.bias_ = context.stream.place(std::move(biases));
  context.add(at, int64_t(linear.bias_.bytes()));
  return linear;
}

tensor::StageCost product_cost(const kernels::PackedLinear& weight, int64_t rows) {
  return {.bytes = double(weight.bytes()), .flops = 2.0 * double(rows) * double(weight.n) * double(weight.k)};
}

void Linear::apply(tensor::TensorView x, tensor::TensorView y, tensor::Stream& stream,
                   const kernels::InputNorm& norm) const {
  kernels::linear(x, weight_, y, stream, {.bias = bias_.view(), .norm = norm});
}

void Linear::apply_unbiased(tensor::TensorView x, tensor::TensorView y, tensor::Stream& stream,
                            const kernels::InputNorm& norm) const {
  kernels::linear(x, weight_, y, stream, {.norm = norm});
}

void Linear::add_to(tensor::TensorView x, tensor::TensorView y, tensor::Stream& stream, bool gates) const {
  kernels::linear(x, weight_, y, stream, {.bias = bias_.view(), .accumulate = true, .gates = gates});
}

Result<RmsNorm> RmsNorm::load(const weights::WeightScope& scope, const std::string& name, int64_t size, double epsilon,
                              LoadContext& context) {
  RmsNorm norm;
  SW_ASSIGN(tensor::Tensor weight, scope.f32(name + ".weight", {size}));
  norm.weight_ = context.stream.place(std::move(weight));
  norm.epsilon_ = float(epsilon);
  context.add(size, int64_t(norm.weight_.bytes()));
  return norm;
}

void RmsNorm::apply(tensor::TensorView x, tensor::TensorView y, tensor::Stream& stream) const {
  stream.stage("norm", {.bytes = double(x.bytes() + y.bytes())});
  kernels::rms_norm(x, weight_, epsilon_, y, stream);
}

}  // namespace spillway::nn
