// Products, experts and row operations of language models on the first GPU against their CPU twins in float32: every
// precision, few rows and many. docs/gpus.md lists which test or program holds which operation.
#include "kernels/cuda/twin_test.h"

#include <cstring>

namespace spillway::kernels::cuda {
namespace {

using tensor::DType;
using tensor::Shape;
using tensor::Tensor;
using tensor::TensorView;

struct Case {
  Precision precision;
  const char* name;
  Bounds bounds;
};
// The mean is of quantised weights, the largest of exact ones. bf16 and tf32: an output's rounding, and a tail of
// outputs that are large beside their root mean square; fp8: 3 bits of mantissa, 0.4 * 2^-4 of each weight and input;
// int8 and int4: half a step of the group's largest weight, some three times their root mean square, in 127 and 7.
constexpr Case kCases[] = {{Precision::kFp32, "fp32", {1e-5, 1e-4}},  {Precision::kTf32, "tf32", {1e-3, 1e-2}},
                           {Precision::kBf16, "bf16", {4e-3, 6e-2}},  {Precision::kFp8, "fp8", {6e-2, 0.5}},
                           {Precision::kInt8, "int8", {1.2e-2, 0.1}}, {Precision::kInt4, "int4", {0.2, 1.5}}};

class Twins : public TwinTest, public testing::WithParamInterface<Case> {
 protected:
  DType activations() const { return computes_in_f32(GetParam().precision) ? DType::kF32 : half_type(kDevice); }
  Bounds bounds(double mean = 1, double largest = 1) const {
    return {GetParam().bounds.mean * mean, GetParam().bounds.largest * largest};
  }

  // False where the chip has no such weights, which it has to say.
  bool refused(const Status& status) {
    if (status.ok()) return false;
    EXPECT_LT(tensor::cuda::device_info(0).capability(), 80) << status.error().message;
    EXPECT_NE(status.error().message.find("expected bf16 or fp32 on compute capability"), std::string::npos)
        << status.error().message;
    return true;
  }
};

INSTANTIATE_TEST_SUITE_P(Precisions, Twins, testing::ValuesIn(kCases),
                         [](const auto& info) { return std::string(info.param.name); });

constexpr int64_t kRows[] = {1, 2, 5, 16, 33, 64, 130, 515};

TEST_P(Twins, Products) {
  const Precision precision = GetParam().precision;
  for (const auto& [n, k] : {std::pair<int64_t, int64_t>{384, 256}, {1536, 1024}, {264, 2176}}) {
    const Tensor weight = numbers({n, k}, 1.0f / 16), bias = numbers({n});
    const WeightSource source{.weight = weight.view(), .scales = {}};
    auto here = pack_linear(source, Precision::kFp32, host_), there = pack_linear(source, precision, *stream_);
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
          compare(expected, read(y), bounds(),
                  std::to_string(rows) + " rows of " + std::to_string(n) + " x " + std::to_string(k) +
                      (biased ? ", bias" : "") + (type == DType::kF32 ? ", f32" : ""));
        }
      }
    }
  }
}

TEST_P(Twins, GatedProducts) {
  const Precision precision = GetParam().precision;
  constexpr int64_t kInner = 640, kWidth = 512;
  const Tensor gate = numbers({kInner, kWidth}, 1.0f / 16), up = numbers({kInner, kWidth}, 1.0f / 16);
  const WeightSource sources[] = {{.weight = gate.view(), .scales = {}}, {.weight = up.view(), .scales = {}}};
  auto here = pack_linear(sources, Precision::kFp32, host_), there = pack_linear(sources, precision, *stream_);
  ASSERT_TRUE(here.ok());
  if (refused(there.ok() ? Status{} : Status(there.error()))) return;
  for (const int64_t rows : kRows) {
    const Tensor x = numbers({rows, kWidth}), placed_x = placed(x, activations());
    Tensor work(DType::kF32, {rows, 2 * kInner}), expected(DType::kF32, {rows, kInner});
    gated_linear(x, *here, work, expected, host_);
    const Tensor placed_work = poisoned(activations(), {rows, 2 * kInner}), y = poisoned(activations(), {rows, kInner});
    gated_linear(placed_x, *there, placed_work, y, *stream_);
    compare(expected, read(y), bounds(2, 4), std::to_string(rows) + " rows");
  }
}

// A norm in front of a product, which some kernels take in and FP8 ones quantise with.
TEST_P(Twins, NormedProducts) {
  const Precision precision = GetParam().precision;
  constexpr int64_t kInner = 384, kWidth = 512;
  const Tensor gate = numbers({kInner, kWidth}, 1.0f / 16), up = numbers({kInner, kWidth}, 1.0f / 16),
               scale = numbers({kWidth});
  const WeightSource sources[] = {{.weight = gate.view(), .scales = {}}, {.weight = up.view(), .scales = {}}};
  auto here = pack_linear(sources, Precision::kFp32, host_), there = pack_linear(sources, precision, *stream_);
  ASSERT_TRUE(here.ok());
  if (refused(there.ok() ? Status{} : Status(there.error()))) return;
  const Tensor placed_scale = placed(scale, DType::kF32);
  for (const int64_t rows : kRows) {
    const Tensor x = numbers({rows, kWidth}, 4), placed_x = placed(x, DType::kF32);
    Tensor normed(DType::kF32, x.shape()), work(DType::kF32, {rows, 2 * kInner}), gated(DType::kF32, {rows, kInner});
    const Tensor placed_normed = poisoned(activations(), x.shape()), both = poisoned(activations(), work.shape());
    linear(x, *here, work, host_, {.norm = {scale, 1e-5f, normed}});
    linear(placed_x, *there, both, *stream_, {.norm = {placed_scale, 1e-5f, placed_normed}});
    // One rounding of each input more than without.
    compare(work, read(both), bounds(1.5, 1.5), std::to_string(rows) + " rows");
    gated_linear(x, *here, work, gated, host_, {scale, 1e-5f, normed});
    const Tensor placed_work = poisoned(activations(), work.shape()), y = poisoned(activations(), gated.shape());
    gated_linear(placed_x, *there, placed_work, y, *stream_, {placed_scale, 1e-5f, placed_normed});
    compare(gated, read(y), bounds(3, 6), std::to_string(rows) + " rows, gated");
  }
}

// A product that does the SwiGLU of what it reads, where there is one: on the CPU two calls.
TEST_P(Twins, ProductsOfGates) {
  const Precision precision = GetParam().precision;
  constexpr int64_t kInner = 640, kWidth = 512;
  const Tensor both = numbers({2 * kInner, kWidth}, 1.0f / 16), weight = numbers({kWidth, kInner}, 1.0f / 16);
  const WeightSource ups{.weight = both.view(), .scales = {}}, downs{.weight = weight.view(), .scales = {}};
  auto here = pack_linear(downs, Precision::kFp32, host_), there = pack_linear(downs, precision, *stream_);
  ASSERT_TRUE(here.ok());
  if (refused(there.ok() ? Status{} : Status(there.error()))) return;
  auto gate_up = pack_linear(ups, precision, *stream_);
  ASSERT_TRUE(gate_up.ok());
  for (const int64_t rows : kRows) {
    if (!takes_gates(*gate_up, *there, rows, *stream_)) continue;
    const Tensor x = numbers({rows, 2 * kInner}), begin = numbers({rows, kWidth});
    Tensor product(DType::kF32, {rows, kInner}), expected(DType::kF32, begin.shape());
    silu_mul(x, product, host_);
    std::memcpy(expected.view().data, begin.view().data, begin.bytes());
    linear(product, *here, expected, host_, {.accumulate = true});
    const Tensor y = placed(begin, DType::kF32), placed_x = placed(x, activations());
    linear(placed_x, *there, y, *stream_, {.accumulate = true, .gates = true});
    compare(expected, read(y), bounds(2, 4), std::to_string(rows) + " rows");
  }
}

TEST_P(Twins, Experts) {
  const Precision precision = GetParam().precision;
  if (precision == Precision::kInt8 || precision == Precision::kInt4) GTEST_SKIP() << "experts keep bf16 there";
  constexpr int kExperts = 12, kSlots = 3;
  constexpr int64_t kInner = 256, kWidth = 512;
  PackedExperts here, there;
  for (int e = 0; e < kExperts; ++e) {
    const Tensor gate = numbers({kInner, kWidth}, 1.0f / 16), up = numbers({kInner, kWidth}, 1.0f / 16),
                 down = numbers({kWidth, kInner}, 1.0f / 16);
    const WeightSource gates[] = {{.weight = gate.view(), .scales = {}}, {.weight = up.view(), .scales = {}}};
    const WeightSource downs{.weight = down.view(), .scales = {}};
    ASSERT_TRUE(add_expert(here, e, kExperts, gates, downs, Precision::kFp32, host_).ok());
    const auto added = add_expert(there, e, kExperts, gates, downs, precision, *stream_);
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
    expert_mlp(placed_x, sent(ids), placed(weights, DType::kF32), there, y, *stream_);
    compare(expected, read(y), bounds(2, 4), std::to_string(rows) + " tokens");
  }
}

TEST_P(Twins, RowOperations) {
  const bool wide = activations() == DType::kF32;
  const Bounds once = wide ? Bounds{1e-6, 1e-5} : Bounds{4e-3, 6e-2};
  constexpr int64_t kWidth = 1536;
  for (const int64_t rows : kRows) {
    const std::string what = std::to_string(rows) + " rows";
    const Tensor x = numbers({rows, kWidth}), scale = numbers({kWidth}), placed_x = placed(x, DType::kF32);
    Tensor expected(DType::kF32, {rows, kWidth});
    const Tensor normed = poisoned(activations(), {rows, kWidth});
    rms_norm(x, scale, 1e-5f, expected, host_);
    rms_norm(placed_x, placed(scale, DType::kF32), 1e-5f, normed, *stream_);
    compare(expected, read(normed), once, "norm of " + what);

    Tensor half(DType::kF32, {rows, kWidth / 2});
    const Tensor product = poisoned(activations(), {rows, kWidth / 2});
    silu_mul(x, half, host_);
    silu_mul(placed(x, activations()), product, *stream_);
    compare(half, read(product), {2 * once.mean, 4 * once.largest}, "SwiGLU of " + what);

    Tensor ids(DType::kI32, {rows});
    for (int64_t i = 0; i < rows; ++i) ids.as<int32_t>()[i] = int32_t(i * 7 % rows);
    const Tensor placed_ids = sent(ids);
    const Tensor gathered = poisoned(DType::kF32, {rows, kWidth}), embedded = poisoned(DType::kF32, {rows, kWidth});
    gather_rows(x, ids, expected, host_);
    gather_rows(placed_x, placed_ids, gathered, *stream_);
    compare(expected, read(gathered), {}, "rows gathered, " + what);
    embedding(placed(x, activations()), placed_ids, embedded, *stream_);
    compare(expected, read(embedded), {}, "embedding of " + what);
  }
}

}  // namespace
}  // namespace spillway::kernels::cuda
