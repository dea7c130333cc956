#include "tensor/tensor.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <cmath>
#include <string>
#include <thread>
#include <vector>

#include "tensor/arena.h"
#include "tensor/cuda/cuda.h"
#include "tensor/stream.h"

namespace spillway::tensor {
namespace {

TEST(DType, ParsesBothSpellings) {
  EXPECT_EQ(parse_dtype("BF16").value(), DType::kBF16);
  EXPECT_EQ(parse_dtype("f8e4m3").value(), DType::kF8E4M3);
  EXPECT_FALSE(parse_dtype("F9").ok());
  EXPECT_EQ(size_of(DType::kI64), 8u);
  EXPECT_EQ(name_of(DType::kBool), "bool");
}

TEST(DType, EverySmallFloatSurvivesTheWayThroughFloat32) {
  for (int bits = 0; bits < 65536; ++bits) {
    const auto half = static_cast<uint16_t>(bits);
    if (!std::isnan(f16_to_float(half))) {
      EXPECT_EQ(float_to_f16(f16_to_float(half)), half);
    }
    if (!std::isnan(bf16_to_float(half))) {
      EXPECT_EQ(float_to_bf16(bf16_to_float(half)), half);
    }
  }
  for (int bits = 0; bits < 256; ++bits) {
    const auto eighth = static_cast<uint8_t>(bits);
    if (!std::isnan(f8e4m3_to_float(eighth))) {
      EXPECT_EQ(float_to_f8e4m3(f8e4m3_to_float(eighth)), eighth);
    }
  }
}

TEST(DType, RoundsToNearestEven) {
  EXPECT_EQ(bf16_to_float(float_to_bf16(1.0f + 1.0f / 256)), 1.0f);
  EXPECT_EQ(bf16_to_float(float_to_bf16(1.0f + 3.0f / 256)), 1.0f + 2.0f / 128);
  EXPECT_EQ(f8e4m3_to_float(float_to_f8e4m3(17.0f)), 16.0f);
  EXPECT_EQ(f8e4m3_to_float(float_to_f8e4m3(19.0f)), 20.0f);
  EXPECT_EQ(f8e4m3_to_float(float_to_f8e4m3(1e9f)), 448.0f);
  EXPECT_EQ(f16_to_float(float_to_f16(70000.0f)), INFINITY);
}

TEST(Device, ParsesAndExplains) {
  EXPECT_EQ(parse_device("cuda:3").value(), (Device{DeviceKind::kCuda, 3}));
  EXPECT_EQ(to_string(parse_device("cpu").value()), "cpu");
  EXPECT_FALSE(parse_device("cuda:x").ok());
  EXPECT_FALSE(parse_device("cuda:-1").ok());
  const auto stream = Stream::open(Device{DeviceKind::kCuda, 0});
  ASSERT_FALSE(stream.ok());
  EXPECT_NE(stream.error().message.find("use device \"cpu\""), std::string::npos);
}

TEST(Device, RunsTheNewestCodeThatTheBuildHasForIt) {
  const std::vector<int> machine = {75, 80, 90}, portable = {80};
  EXPECT_EQ(cuda::code_for(75, machine, {}), 75);
  EXPECT_EQ(cuda::code_for(86, machine, {}), 80);
  EXPECT_EQ(cuda::code_for(90, machine, portable), 90);
  EXPECT_EQ(cuda::code_for(120, machine, {}), 0);
  EXPECT_EQ(cuda::code_for(120, machine, portable), 80);
  EXPECT_EQ(cuda::code_for(70, machine, portable), 0);
  EXPECT_NE(cuda::precision_tier(90).find("FP8 blocks natively"), std::string::npos);
  EXPECT_NE(cuda::precision_tier(80).find("FP8 weights are widened"), std::string::npos);
  EXPECT_NE(cuda::precision_tier(75).find("fp16"), std::string::npos);
}

TEST(Tensor, ViewsRowsAndShapes) {
  Tensor tensor = Tensor::zeros(DType::kF32, {4, 3});
  tensor.as<float>()[2 * 3 + 1] = 5.0f;
  const TensorView row = tensor.view().rows(2, 3);
  EXPECT_EQ(row.as<float>()[1], 5.0f);
  EXPECT_EQ(row.shape, (Shape{1, 3}));
  EXPECT_EQ(tensor.view().reshaped({2, 6}).shape[-1], 6);
  EXPECT_EQ(to_string(tensor.shape()), "[4, 3]");
  const Tensor moved = std::move(tensor);
  EXPECT_TRUE(tensor.empty());  // NOLINT: a moved-from tensor is empty by contract
  EXPECT_EQ(moved.bytes(), 48u);
  const Tensor large(DType::kU8, {9 << 20});
  EXPECT_EQ(reinterpret_cast<uintptr_t>(large.view().data) % (2 << 20), 0u);
}

TEST(Arena, BumpsRewindsAndRemembersItsPeak) {
  Arena arena(1 << 12);
  const TensorView a = arena.f32({3});
  const size_t mark = arena.mark();
  const TensorView b = arena.f32({5, 5});
  EXPECT_EQ(b.data - a.data, 256);
  arena.rewind(mark);
  EXPECT_EQ(arena.f32({1}).data, b.data);
  EXPECT_EQ(arena.peak_bytes(), 256 + Arena::footprint(DType::kF32, {5, 5}));
  arena.reset();
  EXPECT_EQ(arena.used_bytes(), 0u);
  EXPECT_DEATH(arena.f32({5000}), "full");
}

TEST(Stream, EveryIndexOnce) {
  for (const int threads : {1, 2, 5}) {
    Stream stream(threads);
    for (const int64_t count : {0, 1, 7, 1000}) {
      std::vector<std::atomic<int>> seen(static_cast<size_t>(count));
      for (int repeat = 1; repeat <= 50; ++repeat) {
        stream.parallel_for(count, 2, [&](int64_t begin, int64_t end, int thread) {
          EXPECT_LT(thread, threads);
          for (int64_t i = begin; i < end; ++i) seen[static_cast<size_t>(i)]++;
        });
        stream.parallel_tasks(count, [&](int64_t i, int) { seen[static_cast<size_t>(i)]++; });
        for (const auto& times : seen) ASSERT_EQ(times.load(), 2 * repeat);
      }
    }
  }
}

TEST(Stream, WorkersWakeAfterSleeping) {
  Stream stream(3);
  std::atomic<int> parts{0};
  stream.parallel_tasks(100, [&](int64_t, int) { parts++; });
  std::this_thread::sleep_for(std::chrono::milliseconds(50));
  stream.parallel_tasks(100, [&](int64_t, int) { parts++; });
  EXPECT_EQ(parts.load(), 200);
}

TEST(Tensor, BorrowsBytesThatItDoesNotFree) {
  float values[6] = {0, 1, 2, 3, 4, 5};
  Tensor borrowed = Tensor::borrow(TensorView(values, DType::kF32, {2, 3}));
  const Tensor moved = std::move(borrowed);
  EXPECT_TRUE(borrowed.empty());
  EXPECT_EQ(moved.as<float>(), values);
  borrowed = Tensor::zeros(DType::kF32, {4});
  EXPECT_EQ(borrowed.as<float>()[3], 0);
}

}  // namespace
}  // namespace spillway::tensor
