// Products and experts of weights that a checkpoint stores as e4m3 in scaled blocks, on the first GPU against the CPU,
// which multiplies by them as they are.
//
// Bounds: where the blocks stay and a row's inputs are rounded to e4m3 (2^-4 at most, 0.4 of that in the mean: 2.5e-2),
// the products of independent roundings are held to 4e-2 of an output's root mean square and to ten times that at most;
// elsewhere the weights are exact in 16 bits, and the bounds are twin_test.cc's.
#include <cstring>

#include "kernels/cuda/twin_test.h"

namespace spillway::kernels::cuda {
namespace {

using tensor::DType;
using tensor::Shape;
using tensor::Tensor;

class StoredFp8 : public TwinTest, public testing::WithParamInterface<Precision> {
 protected:
  // Scales are powers of two, so that 16 bits hold the weights.
  struct Stored {
    Tensor weight, scales;
    WeightSource source() const { return {.weight = weight.view(), .scales = scales.view()}; }
  };
  Stored stored(int64_t n, int64_t k) {
    Stored out{Tensor(DType::kF8E4M3, {n, k}), Tensor(DType::kF32, {(n + 127) / 128, (k + 127) / 128})};
    for (int64_t i = 0; i < n * k; ++i) out.weight.raw<uint8_t>()[i] = tensor::float_to_f8e4m3(number());
    for (int64_t i = 0; i < out.scales.shape().elements(); ++i)
      out.scales.as<float>()[i] = std::ldexp(1.0f, int(below(3)) - 5);
    return out;
  }
  bool keeps_blocks() const { return !computes_in_f32(GetParam()) && tensor::cuda::device_info(0).capability() >= 80; }
  DType activations() const { return computes_in_f32(GetParam()) ? DType::kF32 : half_type(kDevice); }
  Bounds bounds() const {
    return GetParam() == Precision::kFp32   ? Bounds{1e-5, 1e-4}
           : GetParam() == Precision::kTf32 ? Bounds{1e-3, 1e-2}
           : keeps_blocks()                 ? Bounds{4e-2, 0.4}
                                            : Bounds{4e-3, 6e-2};
  }
  void SetUp() override {
    TwinTest::SetUp();
    if (stream_ && GetParam() == Precision::kFp8 && tensor::cuda::device_info(0).capability() < 80)
      GTEST_SKIP() << "refused below 8.0";
  }
};

INSTANTIATE_TEST_SUITE_P(Precisions, StoredFp8,
                         testing::Values(Precision::kFp32, Precision::kTf32, Precision::kBf16, Precision::kFp8),
                         [](const auto& info) {
                           return info.param == Precision::kFp32   ? "fp32"
                                  : info.param == Precision::kTf32 ? "tf32"
                                  : info.param == Precision::kBf16 ? "bf16"
                                                                   : "fp8";
                         });

constexpr int64_t kRows[] = {1, 2, 5, 9, 33, 64, 130, 300, 515};

TEST_P(StoredFp8, Products) {
  for (const auto& [n, k] : {std::pair<int64_t, int64_t>{384, 256}, {1536, 1024}, {576, 2176}}) {
    const Stored weight = stored(n, k);
    auto here = pack_linear(weight.source(), Precision::kFp32, host_),
         there = pack_linear(weight.source(), GetParam(), *stream_);
    ASSERT_TRUE(here.ok() && there.ok());
    EXPECT_EQ(there->format == PackedFormat::kF8, keeps_blocks());
    for (const int64_t rows : kRows) {
      const Tensor x = numbers({rows, k}), begin = numbers({rows, n}), placed_x = placed(x, activations());
      const std::string what = std::to_string(rows) + " rows of " + std::to_string(n) + " x " + std::to_string(k);
      Tensor expected(DType::kF32, {rows, n});
      const Tensor y = poisoned(activations(), {rows, n}), sum = placed(begin, DType::kF32);
      linear(x, *here, expected, host_);
      linear(placed_x, *there, y, *stream_);
      compare(expected, read(y), bounds(), what);
      std::memcpy(expected.view().data, begin.view().data, begin.bytes());
      linear(x, *here, expected, host_, {.accumulate = true});
      linear(placed_x, *there, sum, *stream_, {.accumulate = true});
      compare(expected, read(sum), bounds(), what + ", added");
    }
  }
}

TEST_P(StoredFp8, Experts) {
  constexpr int kExperts = 10, kSlots = 3;
  constexpr int64_t kInner = 256, kWidth = 512;
  PackedExperts here, there;
  for (int e = 0; e < kExperts; ++e) {
    const Stored gate = stored(kInner, kWidth), up = stored(kInner, kWidth), down = stored(kWidth, kInner);
    const WeightSource gates[] = {gate.source(), up.source()};
    ASSERT_TRUE(add_expert(here, e, kExperts, gates, down.source(), Precision::kFp32, host_).ok());
    ASSERT_TRUE(add_expert(there, e, kExperts, gates, down.source(), GetParam(), *stream_).ok());
  }
  for (const int64_t rows : kRows) {
    const Tensor x = numbers({rows, kWidth}), begin = numbers({rows, kWidth}), placed_x = placed(x, activations());
    Tensor ids(DType::kI32, {rows, kSlots}), weights(DType::kF32, {rows, kSlots}), expected(DType::kF32, begin.shape());
    for (int64_t t = 0; t < rows; ++t) {
      const int64_t first = below(kExperts), step = 1 + 2 * below(2);  // no expert twice
      for (int64_t s = 0; s < kSlots; ++s) {
        ids.as<int32_t>()[t * kSlots + s] = int32_t((first + s * step) % kExperts);
        weights.as<float>()[t * kSlots + s] = 0.25f * float(1 + below(4));
      }
    }
    std::memcpy(expected.view().data, begin.view().data, begin.bytes());
    expert_mlp(x, ids, weights, here, expected, host_);
    const Tensor y = placed(begin, DType::kF32);
    expert_mlp(placed_x, sent(ids), placed(weights, DType::kF32), there, y, *stream_);
    // Gate and up are multiplied, and their product is rounded before the second product.
    compare(expected, read(y), {2 * bounds().mean, 4 * bounds().largest}, std::to_string(rows) + " tokens");
  }
}

}  // namespace
}  // namespace spillway::kernels::cuda
