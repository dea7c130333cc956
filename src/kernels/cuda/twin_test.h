// What the tests of operations on the first GPU against their CPU twins in float32 share: fresh random numbers,
// poisoned outputs, comparison by row. Numbers are such that bf16 and f16 both hold them, so that what differs is the
// kernels' own.
#pragma once

#include <cmath>
#include <cstdio>
#include <cstring>
#include <string>

#include "kernels/cuda/device_test.h"
#include "kernels/operations.h"
#include "tensor/tensor.h"

namespace spillway::kernels::cuda {

// An error's bounds, relative to the root mean square of what is compared with: of its own root mean square, and of the
// largest element's.
struct Bounds {
  double mean = 0, largest = 0;
};

// Half a unit in the last place: the most that a number changes, relative to itself, when it is rounded to the type.
// Its root mean square over numbers of all sizes is 0.4 of that.
inline double rounding_of(tensor::DType dtype) {
  return dtype == tensor::DType::kF32 ? 0x1p-24 : dtype == tensor::DType::kBF16 ? 0x1p-8 : 0x1p-11;
}

class TwinTest : public DeviceTest {
 protected:
  using DType = tensor::DType;
  using Shape = tensor::Shape;
  using Tensor = tensor::Tensor;
  using TensorView = tensor::TensorView;

  TwinTest() { random_.seed(seed_); }
  void TearDown() override {
    if (HasFailure()) std::printf("repeated by --gtest_random_seed=%u\n", seed_);
  }

  // Multiples of an eighth of `factor`, a power of two.
  Tensor numbers(Shape shape, float factor = 1) {
    Tensor out(DType::kF32, shape);
    for (int64_t i = 0; i < shape.elements(); ++i) out.as<float>()[i] = number() * factor;
    return out;
  }
  float number() { return std::round(eighths_(random_)) / 8; }
  int64_t below(int64_t end) { return int64_t(random_() % uint64_t(end)); }

  static void put(const Tensor& tensor, int64_t at, float value) {
    if (tensor.dtype() == DType::kF32) {
      tensor.raw<float>()[at] = value;
    } else {
      tensor.raw<uint16_t>()[at] =
          tensor.dtype() == DType::kBF16 ? tensor::float_to_bf16(value) : tensor::float_to_f16(value);
    }
  }
  static Tensor cast_to(DType dtype, const Tensor& host) {
    Tensor cast(dtype, host.shape());
    for (int64_t i = 0; i < host.shape().elements(); ++i) put(cast, i, host.as<float>()[i]);
    return cast;
  }
  static Tensor widened(const Tensor& raw) {
    Tensor out(DType::kF32, raw.shape());
    for (int64_t i = 0; i < out.shape().elements(); ++i) {
      out.as<float>()[i] = raw.dtype() == DType::kF32    ? raw.as<float>()[i]
                           : raw.dtype() == DType::kBF16 ? tensor::bf16_to_float(raw.raw<uint16_t>()[i])
                                                         : tensor::f16_to_float(raw.raw<uint16_t>()[i]);
    }
    return out;
  }
  // On the device as it is.
  Tensor sent(const Tensor& host) {
    Tensor out(host.dtype(), host.shape(), kDevice);
    stream_->upload(out.view().data, host.view().data, out.bytes());
    return out;
  }
  Tensor fetched(const Tensor& device) {
    Tensor out(device.dtype(), device.shape());
    stream_->download(out.view().data, device.view().data, device.bytes());
    return out;
  }
  Tensor placed(const Tensor& host, DType dtype) { return sent(cast_to(dtype, host)); }
  Tensor read(const Tensor& device) { return widened(fetched(device)); }
  Tensor poisoned(DType dtype, Shape shape) {
    Tensor out(dtype, shape, kDevice);
    stream_->cuda().fill(out.view().data, 0xff, out.bytes());
    return out;
  }

  // Rows apart: each against its own root mean square, so that a large row hides no small one's error.
  void compare_rows(TensorView expected, TensorView found, Bounds bounds, const std::string& what) {
    const int64_t rows = expected.shape[0], width = expected.elements() / rows;
    ASSERT_EQ(found.elements(), expected.elements()) << what;
    double mean = 0, largest = 0;
    for (int64_t r = 0; r < rows; ++r) {
      double squares = 0, errors = 0, most = 0;
      for (int64_t i = r * width; i < (r + 1) * width; ++i) {
        const double e = expected.as<float>()[i], error = std::abs(found.as<float>()[i] - e);
        ASSERT_TRUE(std::isfinite(error)) << what << ", row " << r << ", element " << i - r * width << ": "
                                          << found.as<float>()[i] << ", expected " << e;
        squares += e * e, errors += error * error, most = std::max(most, error);
      }
      const double size = std::sqrt(squares / double(width)) + 1e-30;
      mean = std::max(mean, std::sqrt(errors / double(width)) / size), largest = std::max(largest, most / size);
    }
    EXPECT_LE(mean, bounds.mean) << what;
    EXPECT_LE(largest, bounds.largest) << what;
  }
  // Of [T, heads * dim]: heads apart, for one that attends to few tokens is larger than its row; the row's mean
  // besides.
  void compare_heads(TensorView expected, TensorView found, int heads, double row_mean, Bounds bounds,
                     const std::string& what) {
    compare_rows(expected, found, {row_mean, INFINITY}, what);
    const Shape apart{expected.shape[0] * heads, expected.shape[1] / heads};
    compare_rows(expected.reshaped(apart), found.reshaped(apart), bounds, "heads of " + what);
  }
  // What float32 rounded once to the type: each element within half a unit of its own last place, and `wide` of its
  // row's root mean square for float32's own sums.
  void compare_rounded(TensorView expected, TensorView found, DType dtype, double wide, const std::string& what) {
    const int64_t rows = expected.shape[0], width = expected.elements() / rows;
    ASSERT_EQ(found.elements(), expected.elements()) << what;
    const double u = dtype == DType::kF32 ? 0 : rounding_of(dtype);
    for (int64_t r = 0; r < rows; ++r) {
      double squares = 0;
      for (int64_t i = r * width; i < (r + 1) * width; ++i) squares += std::pow(double(expected.as<float>()[i]), 2);
      const double size = std::sqrt(squares / double(width)) + 1e-30;
      for (int64_t i = r * width; i < (r + 1) * width; ++i) {
        const double e = expected.as<float>()[i], error = std::abs(found.as<float>()[i] - e);
        ASSERT_LE(error, u * std::abs(e) + wide * size) << what << ", row " << r << ", element " << i - r * width
                                                        << ": " << found.as<float>()[i] << ", expected " << e;
      }
    }
  }
  // Elements that nobody was to write are as they were, bit by bit.
  void expect_untouched(const Tensor& before, const Tensor& after, const std::vector<bool>& written,
                        const std::string& what) {
    const size_t size = tensor::size_of(before.dtype());
    for (size_t i = 0; i < written.size(); ++i) {
      ASSERT_TRUE(written[i] || std::memcmp(before.view().data + i * size, after.view().data + i * size, size) == 0)
          << what << ": element " << i << " was overwritten";
    }
  }
  // All elements as one row.
  void compare(const Tensor& expected, const Tensor& found, Bounds bounds, const std::string& what) {
    const auto flat = [](const Tensor& t) { return t.view().reshaped({1, t.shape().elements()}); };
    compare_rows(flat(expected), flat(found), bounds, what);
  }

  const uint32_t seed_ =
      GTEST_FLAG_GET(random_seed) != 0 ? uint32_t(GTEST_FLAG_GET(random_seed)) : std::random_device{}() % 99999 + 1;
  std::normal_distribution<float> eighths_{0, 8};
  tensor::Stream host_{2};
};

}  // namespace spillway::kernels::cuda
