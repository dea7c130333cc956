// Operations of language models on the first GPU against their CPU twins in float32: fresh random numbers, poisoned
// outputs, every precision, few rows and many. Weights and inputs are numbers that bf16 and f16 both hold, so that what
// differs is the kernels' own.
#include <cmath>
#include <cstring>
#include <string>

#include "kernels/cuda/device_test.h"
#include "kernels/elementwise.h"
#include "kernels/linear.h"
#include "kernels/moe.h"

namespace spillway::kernels::cuda {
namespace {

using tensor::DType;
using tensor::Shape;
using tensor::Tensor;
using tensor::TensorView;

// Of an output's root mean square: the error's at most (quantised weights), and the largest (where they are exact).
struct Bounds {
  Precision precision;
  const char* name;
  double mean, largest;
};
constexpr Bounds kBounds[] = {{Precision::kFp32, "fp32", 1e-5, 1e-4},  {Precision::kTf32, "tf32", 1e-3, 1e-2},
                              {Precision::kBf16, "bf16", 4e-3, 6e-2},  {Precision::kFp8, "fp8", 6e-2, 0.5},
                              {Precision::kInt8, "int8", 1.2e-2, 0.1}, {Precision::kInt4, "int4", 0.2, 1.5}};

class Twins : public DeviceTest, public testing::WithParamInterface<Bounds> {
 protected:
  // Multiples of an eighth of `factor`, a power of two.
  Tensor numbers(Shape shape, float factor = 1) {
    Tensor out(DType::kF32, shape);
    std::normal_distribution<float> normal(0, 8);
    for (int64_t i = 0; i < shape.elements(); ++i) out.as<float>()[i] = std::round(normal(random_)) / 8 * factor;
    return out;
  }
  Tensor placed(const Tensor& host, DType dtype) {
    Tensor out(dtype, host.shape(), kDevice), cast(dtype, host.shape());
    for (int64_t i = 0; i < host.shape().elements(); ++i) {
      const float value = host.as<float>()[i];
      if (dtype == DType::kF32) {
        cast.as<float>()[i] = value;
      } else {
        cast.raw<uint16_t>()[i] = dtype == DType::kBF16 ? tensor::float_to_bf16(value) : tensor::float_to_f16(value);
      }
    }
    stream_->upload(out.view().data, cast.view().data, out.bytes());
    return out;
  }
  Tensor placed_integers(const Tensor& host) {
    Tensor out(DType::kI32, host.shape(), kDevice);
    stream_->upload(out.view().data, host.view().data, out.bytes());
    return out;
  }
  Tensor poisoned(DType dtype, Shape shape) {
    Tensor out(dtype, shape, kDevice);
    stream_->cuda().fill(out.view().data, 0xff, out.bytes());
    return out;
  }
  Tensor read(const Tensor& device) {
    Tensor raw(device.dtype(), device.shape()), out(DType::kF32, device.shape());
    stream_->download(raw.view().data, device.view().data, device.bytes());
    for (int64_t i = 0; i < out.shape().elements(); ++i) {
      out.as<float>()[i] = raw.dtype() == DType::kF32    ? raw.as<float>()[i]
                           : raw.dtype() == DType::kBF16 ? tensor::bf16_to_float(raw.raw<uint16_t>()[i])
                                                         : tensor::f16_to_float(raw.raw<uint16_t>()[i]);
    }
    return out;
  }
  DType activations() const { return computes_in_f32(GetParam().precision) ? DType::kF32 : half_type(kDevice); }

  // False where the chip has no such weights, which it has to say.
  bool refused(const Status& status) {
    if (status.ok()) return false;
    EXPECT_LT(tensor::cuda::device_info(0).capability(), 80) << status.error().message;
    EXPECT_NE(status.error().message.find("expected bf16 or fp32 on compute capability"), std::string::npos)
        << status.error().message;
    return true;
  }

  void compare(const Tensor& expected, const Tensor& found, double mean, double largest, const std::string& what) {
    double squares = 0, errors = 0, most = 0;
    const int64_t count = expected.shape().elements();
    for (int64_t i = 0; i < count; ++i) {
      const double e = expected.as<float>()[i], error = std::abs(found.as<float>()[i] - e);
      ASSERT_TRUE(std::isfinite(error)) << what << ", element " << i << ": " << found.as<float>()[i];
      squares += e * e, errors += error * error, most = std::max(most, error);
    }
    const double size = std::sqrt(squares / double(count));
    EXPECT_LE(std::sqrt(errors / double(count)), mean * size) << what;
    EXPECT_LE(most, largest * size) << what;
  }

  tensor::Stream host_{2};
};

INSTANTIATE_TEST_SUITE_P(Precisions, Twins, testing::ValuesIn(kBounds),
                         [](const auto& info) { return std::string(info.param.name); });

constexpr int64_t kRows[] = {1, 2, 5, 16, 33, 64, 130, 515};

TEST_P(Twins, Products) {
  const Bounds& bounds = GetParam();
  for (const auto& [n, k] : {std::pair<int64_t, int64_t>{384, 256}, {1536, 1024}, {264, 2176}}) {
    const Tensor weight = numbers({n, k}, 1.0f / 16), bias = numbers({n});
    const WeightSource source{.weight = weight.view(), .scales = {}};
    auto here = pack_linear(source, Precision::kFp32, host_), there = pack_linear(source, bounds.precision, *stream_);
    ASSERT_TRUE(here.ok());
    if (refused(there.ok() ? Status{} : Status(there.error()))) return;
    const Tensor placed_bias = placed(bias, DType::kF32);
    for (const int64_t rows : kRows) {
      const Tensor x = numbers({rows, k}), placed_x = placed(x, activations());
      Tensor expected(DType::kF32, {rows, n});
      const Tensor begin = numbers({rows, n});
      for (const bool biased : {false, true}) {
        for (const DType type : {DType::kF32, activations()}) {
          const bool adds = biased && type == DType::kF32;
          Tensor y = adds ? placed(begin, type) : poisoned(type, {rows, n});
          std::memcpy(expected.view().data, begin.view().data, begin.bytes());
          linear(x, *here, expected, host_, {.bias = biased ? bias.view() : TensorView{}, .accumulate = adds});
          linear(placed_x, *there, y, *stream_,
                 {.bias = biased ? placed_bias.view() : TensorView{}, .accumulate = adds});
          compare(expected, read(y), bounds.mean, bounds.largest,
                  std::to_string(rows) + " rows of " + std::to_string(n) + " x " + std::to_string(k) +
                      (biased ? ", bias" : "") + (type == DType::kF32 ? ", f32" : ""));
        }
      }
    }
  }
}

TEST_P(Twins, GatedProducts) {
  const Bounds& bounds = GetParam();
  constexpr int64_t kInner = 640, kWidth = 512;
  const Tensor gate = numbers({kInner, kWidth}, 1.0f / 16), up = numbers({kInner, kWidth}, 1.0f / 16);
  const WeightSource sources[] = {{.weight = gate.view(), .scales = {}}, {.weight = up.view(), .scales = {}}};
  auto here = pack_linear(sources, Precision::kFp32, host_), there = pack_linear(sources, bounds.precision, *stream_);
  ASSERT_TRUE(here.ok());
  if (refused(there.ok() ? Status{} : Status(there.error()))) return;
  for (const int64_t rows : kRows) {
    const Tensor x = numbers({rows, kWidth}), placed_x = placed(x, activations());
    Tensor work(DType::kF32, {rows, 2 * kInner}), expected(DType::kF32, {rows, kInner});
    gated_linear(x, *here, work, expected, host_);
    const Tensor placed_work = poisoned(activations(), {rows, 2 * kInner}), y = poisoned(activations(), {rows, kInner});
    gated_linear(placed_x, *there, placed_work, y, *stream_);
    compare(expected, read(y), 2 * bounds.mean, 4 * bounds.largest, std::to_string(rows) + " rows");
  }
}

TEST_P(Twins, Experts) {
  const Bounds& bounds = GetParam();
  if (bounds.precision == Precision::kInt8 || bounds.precision == Precision::kInt4)
    GTEST_SKIP() << "experts keep bf16 there";
  constexpr int kExperts = 12, kSlots = 3;
  constexpr int64_t kInner = 256, kWidth = 512;
  PackedExperts here, there;
  for (int e = 0; e < kExperts; ++e) {
    const Tensor gate = numbers({kInner, kWidth}, 1.0f / 16), up = numbers({kInner, kWidth}, 1.0f / 16),
                 down = numbers({kWidth, kInner}, 1.0f / 16);
    const WeightSource gates[] = {{.weight = gate.view(), .scales = {}}, {.weight = up.view(), .scales = {}}};
    const WeightSource downs{.weight = down.view(), .scales = {}};
    ASSERT_TRUE(add_expert(here, e, kExperts, gates, downs, Precision::kFp32, host_).ok());
    const auto added = add_expert(there, e, kExperts, gates, downs, bounds.precision, *stream_);
    if (refused(added.ok() ? Status{} : Status(added.error()))) return;
  }
  for (const int64_t rows : kRows) {
    const Tensor x = numbers({rows, kWidth}), begin = numbers({rows, kWidth});
    Tensor ids(DType::kI32, {rows, kSlots}), weights(DType::kF32, {rows, kSlots}), expected(DType::kF32, begin.shape());
    for (int64_t i = 0; i < rows * kSlots; ++i) {
      ids.as<int32_t>()[i] = int32_t((i / kSlots * 5 + i % kSlots * 4 + i / 7) % kExperts);
      weights.as<float>()[i] = 0.25f * float(1 + i % 4);
    }
    for (int64_t t = 0; t < rows; ++t) {  // no expert twice
      auto* row = ids.as<int32_t>() + t * kSlots;
      if (row[1] == row[0]) row[1] = (row[1] + 1) % kExperts;
      while (row[2] == row[0] || row[2] == row[1]) row[2] = (row[2] + 1) % kExperts;
    }
    std::memcpy(expected.view().data, begin.view().data, begin.bytes());
    expert_mlp(x, ids, weights, here, expected, host_);
    const Tensor placed_x = placed(x, activations()), y = placed(begin, DType::kF32);
    expert_mlp(placed_x, placed_integers(ids), placed(weights, DType::kF32), there, y, *stream_);
    compare(expected, read(y), 2 * bounds.mean, 4 * bounds.largest, std::to_string(rows) + " tokens");
  }
}

TEST_P(Twins, RowOperations) {
  const bool wide = activations() == DType::kF32;
  const double mean = wide ? 1e-6 : 4e-3, largest = wide ? 1e-5 : 6e-2;
  constexpr int64_t kWidth = 1536;
  for (const int64_t rows : kRows) {
    const std::string what = std::to_string(rows) + " rows";
    const Tensor x = numbers({rows, kWidth}), scale = numbers({kWidth}), placed_x = placed(x, DType::kF32);
    Tensor expected(DType::kF32, {rows, kWidth});
    const Tensor normed = poisoned(activations(), {rows, kWidth});
    rms_norm(x, scale, 1e-5f, expected, host_);
    rms_norm(placed_x, placed(scale, DType::kF32), 1e-5f, normed, *stream_);
    compare(expected, read(normed), mean, largest, "norm of " + what);

    Tensor half(DType::kF32, {rows, kWidth / 2});
    const Tensor product = poisoned(activations(), {rows, kWidth / 2});
    silu_mul(x, half, host_);
    silu_mul(placed(x, activations()), product, *stream_);
    compare(half, read(product), 2 * mean, 4 * largest, "SwiGLU of " + what);

    Tensor ids(DType::kI32, {rows});
    for (int64_t i = 0; i < rows; ++i) ids.as<int32_t>()[i] = int32_t(i * 7 % rows);
    const Tensor placed_ids = placed_integers(ids);
    const Tensor gathered = poisoned(DType::kF32, {rows, kWidth}), embedded = poisoned(DType::kF32, {rows, kWidth});
    gather_rows(x, ids, expected, host_);
    gather_rows(placed_x, placed_ids, gathered, *stream_);
    compare(expected, read(gathered), 0, 0, "rows gathered, " + what);
    embedding(placed(x, activations()), placed_ids, embedded, *stream_);
    compare(expected, read(embedded), 0, 0, "embedding of " + what);
  }
}

}  // namespace
}  // namespace spillway::kernels::cuda
