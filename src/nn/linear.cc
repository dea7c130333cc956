#include "nn/linear.h"

#include <fmt/format.h>

#include "kernels/elementwise.h"

namespace spillway::nn {
namespace {

constexpr int64_t kBlock = 128;

int64_t blocks(int64_t n) { return (n + kBlock - 1) / kBlock; }

// A matrix and its block scales, held until packed.
struct StoredMatrix {
  weights::StoredTensor weight;
  tensor::Tensor scales;  // empty unless F8_E4M3
};

Result<StoredMatrix> open_matrix(const weights::WeightScope& scope, const MatrixRow& row, int64_t inputs) {
  SW_ASSIGN(weights::StoredTensor weight,
            scope.tensor(row.name + ".weight", {row.outputs, inputs}, weights::kMatrixTypes));
  tensor::Tensor scales;
  if (weight.view().dtype == tensor::DType::kF8E4M3) {
    SW_ASSIGN(scales, scope.f32(row.name + ".weight_scale_inv", {blocks(row.outputs), blocks(inputs)}));
  }
  return StoredMatrix{std::move(weight), std::move(scales)};
}

kernels::WeightSource source_of(const StoredMatrix& matrix) {
  kernels::WeightSource source;
  source.weight = matrix.weight.view();
  if (!matrix.scales.empty()) source.scales = matrix.scales.view();
  return source;
}

}  // namespace

Result<kernels::PackedLinear> load_matrices(const weights::WeightScope& scope, std::span<const MatrixRow> rows,
                                            int64_t inputs, LoadContext& context, double share) {
  std::vector<StoredMatrix> matrices;
  std::vector<kernels::WeightSource> sources;
  int64_t outputs = 0;
  for (const MatrixRow& row : rows) {
    SW_ASSIGN(StoredMatrix matrix, open_matrix(scope, row, inputs));
    matrices.push_back(std::move(matrix));
    sources.push_back(source_of(matrices.back()));
    outputs += row.outputs;
  }
  auto packed = kernels::pack_linear(sources, context.precision, context.stream);
  if (!packed.ok()) return std::move(packed).error().in(scope.path(rows[0].name));
  context.add(outputs * inputs, int64_t(packed->bytes()), share);
  return packed;
}

Result<tensor::Tensor> load_matrix_f32(const weights::WeightScope& scope, const MatrixRow& row, int64_t inputs,
                                       tensor::Stream& stream) {
  SW_ASSIGN(const StoredMatrix matrix, open_matrix(scope, row, inputs));
  return kernels::dequantize(source_of(matrix), stream);
}

Result<Linear> Linear::load(const weights::WeightScope& scope, std::vector<MatrixRow> rows, int64_t inputs, bool bias,
                            LoadContext& context) {
  Linear linear;
  SW_ASSIGN(linear.weight_, load_matrices(scope, rows, inputs, context));
  if (!bias) return linear;
  linear.bias_ = tensor::Tensor(tensor::DType::kF32, {linear.weight_.n});
  int64_t at = 0;
  for (const MatrixRow& row : rows) {
    SW_ASSIGN(const weights::StoredTensor stored, scope.tensor(row.name + ".bias", {row.outputs}));
    weights::widen(stored.view(), linear.bias_.as<float>() + at);
    at += row.outputs;
  }
  context.add(at, int64_t(linear.bias_.bytes()));
  return linear;
}

void Linear::apply(tensor::TensorView x, tensor::TensorView y, tensor::Stream& stream) const {
  kernels::linear(x, weight_, y, stream, {.bias = bias_.view()});
}

void Linear::add_to(tensor::TensorView x, tensor::TensorView y, tensor::Stream& stream) const {
  kernels::linear(x, weight_, y, stream, {.bias = bias_.view(), .accumulate = true});
}

Result<RmsNorm> RmsNorm::load(const weights::WeightScope& scope, const std::string& name, int64_t size, double epsilon,
                              LoadContext& context) {
  RmsNorm norm;
  SW_ASSIGN(norm.weight_, scope.f32(name + ".weight", {size}));
  norm.epsilon_ = float(epsilon);
  context.add(size, int64_t(norm.weight_.bytes()));
  return norm;
}

void RmsNorm::apply(tensor::TensorView x, tensor::TensorView y, tensor::Stream& stream) const {
  kernels::rms_norm(x, weight_, epsilon_, y, stream);
}

void RmsNorm::apply_slice(tensor::TensorView x, int64_t offset, tensor::TensorView y, tensor::Stream& stream) const {
  kernels::rms_norm_slice(x, offset, weight_, epsilon_, y, stream);
}

}  // namespace spillway::nn
