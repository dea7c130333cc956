// What the kernel tests share: random tensors, a paranoid comparison, and a run over every instruction set of this CPU.
#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <random>
#include <vector>

#include "kernels/isa.h"
#include "tensor/stream.h"
#include "tensor/tensor.h"

namespace spillway::kernels::test {

using tensor::DType;
using tensor::Shape;
using tensor::Tensor;
using tensor::TensorView;

inline Tensor random_f32(Shape shape, uint32_t seed, float deviation = 1.0f) {
  Tensor t(DType::kF32, shape);
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0.0f, deviation);
  for (int64_t i = 0; i < shape.elements(); ++i) t.as<float>()[i] = normal(random);
  return t;
}

// Outputs start as NaN so that an element left unwritten is seen.
inline Tensor poisoned(Shape shape) {
  Tensor t(DType::kF32, shape);
  for (int64_t i = 0; i < shape.elements(); ++i) t.as<float>()[i] = NAN;
  return t;
}

inline Tensor stored_as(const Tensor& values, DType dtype) {
  Tensor t(dtype, values.shape());
  for (int64_t i = 0; i < values.shape().elements(); ++i) {
    const float v = values.as<float>()[i];
    switch (dtype) {
      case DType::kF32:
        t.raw<float>()[i] = v;
        break;
      case DType::kBF16:
        t.raw<uint16_t>()[i] = tensor::float_to_bf16(v);
        break;
      case DType::kF16:
        t.raw<uint16_t>()[i] = tensor::float_to_f16(v);
        break;
      default:
        t.raw<uint8_t>()[i] = tensor::float_to_f8e4m3(v);
        break;
    }
  }
  return t;
}

inline float element(TensorView t, int64_t i) {
  switch (t.dtype) {
    case DType::kF32:
      return t.raw<float>()[i];
    case DType::kBF16:
      return tensor::bf16_to_float(t.raw<uint16_t>()[i]);
    case DType::kF16:
      return tensor::f16_to_float(t.raw<uint16_t>()[i]);
    default:
      return tensor::f8e4m3_to_float(t.raw<uint8_t>()[i]);
  }
}

inline bool same_bits(TensorView a, TensorView b) {
  return a.bytes() == b.bytes() && std::memcmp(a.data, b.data, a.bytes()) == 0;
}

// Largest |a - b| relative to the largest |b|; infinite when a has a NaN.
inline double relative_error(TensorView a, const std::vector<double>& b) {
  double worst = 0, largest = 1e-30;
  for (size_t i = 0; i < b.size(); ++i) {
    const double difference = std::fabs(static_cast<double>(a.as<float>()[i]) - b[i]);
    if (std::isnan(difference)) return INFINITY;
    worst = std::max(worst, difference);
    largest = std::max(largest, std::fabs(b[i]));
  }
  return worst / largest;
}

// Each test of a suite derived from this runs at every level that this CPU has.
class EveryIsa : public testing::TestWithParam<IsaLevel> {
 protected:
  void SetUp() override { force_isa(GetParam()); }
  void TearDown() override { force_isa(best_isa()); }
  tensor::Stream stream_{2};
};

}  // namespace spillway::kernels::test

#define SW_EVERY_ISA(suite)                                                                      \
  INSTANTIATE_TEST_SUITE_P(Cpu, suite, testing::ValuesIn(::spillway::kernels::available_isas()), \
                           [](const auto& info) { return std::string(::spillway::kernels::name_of(info.param)); })
