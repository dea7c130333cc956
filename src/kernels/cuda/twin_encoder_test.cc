// The small operations of encoders and vision models on the first GPU that encoder_test.cc meets only inside others,
// against their CPU twins, or where the CPU has none against their definition. Results are rounded once; what float32
// adds is the 4e-6 of kernels/encoder.h, of a row's largest value.
#include "kernels/cuda/twin_test.h"

namespace spillway::kernels::cuda {
namespace {

using tensor::DType;
using tensor::Tensor;
using tensor::TensorView;

class EncoderTwins : public TwinTest, public testing::WithParamInterface<DType> {
 protected:
  void SetUp() override {
    TwinTest::SetUp();
    if (!stream_) return;
    const DeviceNumbers numbers = GetParam() == DType::kF32    ? DeviceNumbers::kFp32
                                  : GetParam() == DType::kBF16 ? DeviceNumbers::kBf16
                                                               : DeviceNumbers::kFp16;
    const Status computes = check_device_numbers(numbers, kDevice);
    if (!computes.ok()) GTEST_SKIP() << computes.error().message;
  }
  // Rows whose vectors are whole, ragged ones, and more than a block's.
  static constexpr std::pair<int64_t, int64_t> kShapes[] = {{1, 40}, {3, 7}, {5, 384}, {130, 1029}, {700, 512}};

  void compare_once(const Tensor& expected, const Tensor& found, const std::string& what) {
    compare_rounded(expected, found, GetParam(), 2e-5, what);
  }
};

INSTANTIATE_TEST_SUITE_P(Types, EncoderTwins, testing::Values(DType::kF32, DType::kBF16, DType::kF16),
                         [](const auto& info) {
                           return info.param == DType::kF32 ? "fp32" : info.param == DType::kBF16 ? "bf16" : "fp16";
                         });

TEST_P(EncoderTwins, Activations) {
  for (const auto& [rows, width] : kShapes) {
    for (const Activation activation : {Activation::kNone, Activation::kGelu, Activation::kGeluTanh, Activation::kRelu,
                                        Activation::kSilu, Activation::kTanh}) {
      const Tensor x = numbers({rows, width}), there = placed(x, GetParam());
      const std::string what = std::to_string(int(activation)) + " of " + to_string(x.shape());
      kernels::activate(x, activation, host_);
      kernels::device_activate(there, activation, *stream_);
      compare_once(x, read(there), "activation " + what);

      const Tensor both = numbers({rows, 2 * width}), y = poisoned(GetParam(), {rows, width});
      Tensor expected(DType::kF32, {rows, width});
      kernels::gated_activation(both, activation, expected, host_);
      kernels::device_gate(placed(both, GetParam()), activation, y, *stream_);
      compare_once(expected, read(y), "gate " + what);
    }
  }
}

TEST_P(EncoderTwins, Sums) {
  for (const auto& [rows, width] : kShapes) {
    const Tensor x = numbers({rows, width}), y = numbers({rows, width}), bias = numbers({width});
    const std::string what = to_string(x.shape());
    const Tensor there = placed(x, GetParam());
    kernels::add(x, y, host_);
    kernels::device_add(there, placed(y, GetParam()), *stream_);
    compare_once(x, read(there), "sum of " + what);
    for (const DType of_bias : {DType::kF32, GetParam()}) {
      const Tensor z = numbers({rows, width}), placed_z = placed(z, GetParam());
      kernels::add_bias(z, bias, host_);
      kernels::device_add_bias(placed_z, placed(bias, of_bias), *stream_);
      compare_once(z, read(placed_z), "bias of " + what);
    }
    const Tensor scale = numbers({width}), shift = numbers({width}), z = numbers({rows, width}),
                 affine = placed(z, GetParam());
    for (int64_t i = 0; i < rows * width; ++i) {
      float& value = z.as<float>()[i];
      value = value * scale.as<float>()[i % width] + shift.as<float>()[i % width];
    }
    kernels::device_affine(affine, sent(scale), sent(shift), *stream_);
    compare_once(z, read(affine), "scale and shift of " + what);
  }
}

TEST_P(EncoderTwins, Conversions) {
  for (const auto& [rows, width] : kShapes) {
    const Tensor x = numbers({rows, width});  // held by every type
    const Tensor there = placed(x, GetParam());
    for (const auto& [from, to] : {std::pair{GetParam(), DType::kF32}, {DType::kF32, GetParam()}}) {
      const Tensor y = poisoned(to, x.shape());
      kernels::device_convert(from == GetParam() ? there.view() : sent(x).view(), y, *stream_);
      compare(x, read(y), {}, "conversion of " + to_string(x.shape()));
    }
  }
}

TEST_P(EncoderTwins, LengthsAndLogarithms) {
  if (GetParam() != DType::kF32) GTEST_SKIP() << "float32 alone";
  for (const auto& [rows, width] : kShapes) {
    const Tensor x = numbers({rows, width});
    if (rows > 2) std::fill_n(x.as<float>() + width, width, 0.0f);  // no length: stays
    const Tensor there = sent(x), before = sent(x);
    Tensor logs(DType::kF32, x.shape());
    for (int64_t i = 0; i < rows * width; ++i) {
      x.as<float>()[i] = std::abs(x.as<float>()[i]);
      logs.as<float>()[i] = float(std::log1p(double(x.as<float>()[i])));
    }
    const Tensor positive = sent(x);
    kernels::device_log1p(positive, *stream_);
    compare_once(logs, read(positive), "log(1 + x) of " + to_string(x.shape()));
    const Tensor given = read(before);
    for (int64_t r = 0; r < rows; ++r) {
      double sum = 0;
      for (int64_t i = r * width; i < (r + 1) * width; ++i) sum += double(given.as<float>()[i]) * given.as<float>()[i];
      const double length = std::max(std::sqrt(sum), 1e-12);
      for (int64_t i = r * width; i < (r + 1) * width; ++i) given.as<float>()[i] /= float(length);
    }
    kernels::device_normalize(there, *stream_);
    compare_once(given, read(there), "rows of length 1, " + to_string(x.shape()));
  }
}

TEST_P(EncoderTwins, LargestOfSequences) {
  if (GetParam() != DType::kF32) GTEST_SKIP() << "float32 alone";
  for (const auto& [rows, width] : kShapes) {
    constexpr int64_t kSequences = 9;
    const Tensor logits = numbers({rows, width}), best = numbers({kSequences, width});
    Tensor sequence(DType::kI32, {rows});
    for (int64_t i = 0; i < best.shape().elements(); ++i) best.as<float>()[i] = std::max(best.as<float>()[i], 0.0f);
    const int64_t used = rows - below(rows / 4 + 1);
    for (int64_t r = 0; r < rows; ++r) sequence.as<int32_t>()[r] = r < used ? int32_t(r * kSequences / rows) : -1;
    const Tensor there = sent(best);
    kernels::device_row_maxima(sent(logits), sent(sequence), there, *stream_);
    for (int64_t r = 0; r < rows; ++r) {
      const int64_t s = sequence.as<int32_t>()[r];
      if (s < 0) continue;
      for (int64_t v = 0; v < width; ++v) {
        float& value = best.as<float>()[s * width + v];
        value = std::max(value, logits.as<float>()[r * width + v]);
      }
    }
    compare(best, read(there), {}, "largest of " + to_string(logits.shape()));
  }
}

}  // namespace
}  // namespace spillway::kernels::cuda
