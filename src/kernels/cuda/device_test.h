// What the tests of row kernels on the first GPU share; without one they are skipped.
#pragma once

#include <gtest/gtest.h>

#include <optional>
#include <random>
#include <vector>

#include "tensor/cuda/cuda.h"
#include "tensor/stream.h"

namespace spillway::kernels::cuda {

class DeviceTest : public testing::Test {
 protected:
  static constexpr tensor::Device kDevice{tensor::DeviceKind::kCuda, 0};

  void SetUp() override {
    const Status available = tensor::cuda::check_device(0);
    if (!available.ok()) GTEST_SKIP() << available.error().message;
    auto opened = tensor::Stream::open(kDevice, 2);
    ASSERT_TRUE(opened.ok());
    stream_.emplace(std::move(*opened));
  }
  std::vector<float> random(int64_t count, float factor = 1) {
    std::normal_distribution<float> normal(0, factor);
    std::vector<float> values(static_cast<size_t>(count));
    for (float& value : values) value = normal(random_);
    return values;
  }

  std::optional<tensor::Stream> stream_;
  std::mt19937 random_{7};
};

}  // namespace spillway::kernels::cuda
