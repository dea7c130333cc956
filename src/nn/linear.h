// The layers' own weights: Linear (one or several checkpoint matrices as one product) and RmsNorm, and what loading
// them adds up. Owned by the layer that computes with them; read-only after loading.
#pragma once

#include <string>
#include <vector>

#include "kernels/linear.h"
#include "nn/step.h"
#include "weights/weight_scope.h"

namespace spillway::nn {

// What the loaded layers amount to.
struct LoadTotals {
  int64_t parameters = 0;
  int64_t bytes = 0;        // resident
  double decode_bytes = 0;  // read by one token's step
  double flops_per_token = 0;
};

struct LoadContext {
  kernels::Precision precision = kernels::Precision::kFp32;
  tensor::Stream& stream;
  LoadTotals totals = {};
  kernels::InputSpread input_spread = {};  // of the matrices loaded while it is set

  // share: the part of the steps' tokens that pass here (an expert's is experts_per_token / experts).
  void add(int64_t parameters, int64_t bytes, double share = 1) {
    totals.parameters += parameters;
    totals.bytes += bytes;
    totals.decode_bytes += share * double(bytes);
    totals.flops_per_token += share * 2 * double(parameters);
  }
};

struct MatrixRow {
  std::string name;  // without ".weight": "q_proj"
  int64_t outputs = 0;
};

// Matrices as stored, with their block scales: [outputs, inputs] of each row, F8_E4M3 ones with their weight_scale_inv.
// Held until packed.
class StoredMatrices {
 public:
  static Result<StoredMatrices> open(const weights::WeightScope& scope, std::span<const MatrixRow> rows,
                                     int64_t inputs);
  std::span<const kernels::WeightSource> sources() const { return sources_; }

 private:
  std::vector<weights::StoredTensor> weights_;
  std::vector<tensor::Tensor> scales_;
  std::vector<kernels::WeightSource> sources_;
};

// [outputs, inputs] of each named matrix, stacked in that order.
Result<kernels::PackedLinear> load_matrices(const weights::WeightScope& scope, std::span<const MatrixRow> rows,
                                            int64_t inputs, LoadContext& context, double share = 1);

// A matrix as plain float32 [outputs, inputs], scales applied: for weights that are rearranged before packing.
Result<tensor::Tensor> load_matrix_f32(const weights::WeightScope& scope, const MatrixRow& row, int64_t inputs,
                                       tensor::Stream& stream);

// What a product of so many rows must read and compute.
tensor::StageCost product_cost(const kernels::PackedLinear& weight, int64_t rows);

class Linear {
 public:
  static Result<Linear> load(const weights::WeightScope& scope, std::vector<MatrixRow> rows, int64_t inputs, bool bias,
                             LoadContext& context);

  int64_t outputs() const { return weight_.n; }
  tensor::StageCost cost(int64_t rows) const { return product_cost(weight_, rows); }

  // x activations [T, inputs]; y [T, outputs]: activations, or f32, which add_to adds to.
  // x of a norm: f32, the residual.
  void apply(tensor::TensorView x, tensor::TensorView y, tensor::Stream& stream,
             const kernels::InputNorm& norm = {}) const;
  // The same without the bias, which the caller adds.
  void apply_unbiased(tensor::TensorView x, tensor::TensorView y, tensor::Stream& stream,
                      const kernels::InputNorm& norm = {}) const;
  // gates: x is [T, 2 inputs], by kernels::takes_gates.
  void add_to(tensor::TensorView x, tensor::TensorView y, tensor::Stream& stream, bool gates = false) const;

  const kernels::PackedLinear& weight() const { return weight_; }
  const tensor::Tensor& bias() const { return bias_; }

 private:
  kernels::PackedLinear weight_;
  tensor::Tensor bias_;
};

class RmsNorm {
 public:
  static Result<RmsNorm> load(const weights::WeightScope& scope, const std::string& name, int64_t size, double epsilon,
                              LoadContext& context);

  void apply(tensor::TensorView x, tensor::TensorView y, tensor::Stream& stream) const;
  // For the product that follows, with room for the rows between.
  kernels::InputNorm before(tensor::TensorView normed) const { return {weight_.view(), epsilon_, normed}; }
  const tensor::Tensor& weight() const { return weight_; }

 private:
  tensor::Tensor weight_;
  float epsilon_ = 0;
};

}  // namespace spillway::nn
