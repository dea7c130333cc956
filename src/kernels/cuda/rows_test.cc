// The row kernels that take many rows at once: against float64, and against those that take few.
#include <gtest/gtest.h>

#include <cmath>
#include <numeric>

#include "kernels/cuda/device_test.h"
#include "kernels/cuda/layers.h"

namespace spillway::kernels::cuda {
namespace {

using tensor::DType;
using tensor::Tensor;

class ManyRows : public DeviceTest {
 protected:
  static constexpr int kRows = 300;
  template <class T>
  Tensor placed(DType dtype, const std::vector<T>& values) {
    Tensor out(dtype, {int64_t(values.size())}, kDevice);
    stream_->upload(out.view().data, values.data(), out.bytes());
    return out;
  }
  Tensor poisoned(int64_t count) {
    Tensor out(DType::kF32, {count}, kDevice);
    stream_->cuda().fill(out.view().data, 0xff, out.bytes());
    return out;
  }
  std::vector<float> read(const Tensor& device) {
    std::vector<float> values(device.bytes() / 4);
    stream_->download(values.data(), device.view().data, device.bytes());
    return values;
  }
};

TEST_F(ManyRows, Norm) {
  for (const int64_t width : {8, 1544, 3584, 4096}) {
    const auto x = random(kRows * width), weight = random(width);
    const Tensor from = placed(DType::kF32, x), scales = placed(DType::kF32, weight), to = poisoned(kRows * width);
    norm_slices({.x = from.view().data,
                 .x_stride = width,
                 .weight = scales.as<float>(),
                 .eps = 1e-5f,
                 .y = to.view().data,
                 .y_stride = width,
                 .rows = kRows,
                 .width = width},
                *stream_);
    const auto found = read(to);
    for (int64_t r = 0; r < kRows; ++r) {
      double sum = 0;
      for (int64_t i = 0; i < width; ++i) sum += double(x[size_t(r * width + i)]) * x[size_t(r * width + i)];
      const double factor = 1 / std::sqrt(sum / double(width) + 1e-5);
      for (int64_t i = 0; i < width; ++i) {
        const double expected = x[size_t(r * width + i)] * factor * weight[size_t(i)];
        ASSERT_NEAR(found[size_t(r * width + i)], expected, 1e-5 * (1 + std::abs(expected))) << width << ", row " << r;
      }
    }
  }
}

struct Heads {
  int heads, kv_heads, dim;
  bool normed, biased;
};

class ManyRowsOfHeads : public ManyRows, public testing::WithParamInterface<Heads> {};

// Together and in halves, which the kernel for few rows takes.
TEST_P(ManyRowsOfHeads, KeysAndValues) {
  const Heads& shape = GetParam();
  constexpr int kPageTokens = 64, kPages = 7;
  const int all = shape.heads + 2 * shape.kv_heads;
  const int64_t row = int64_t{all} * shape.dim, page = 2 * int64_t{shape.kv_heads} * kPageTokens * shape.dim;
  const auto values = random(kRows * row), bias = random(row), norms = random(2 * shape.dim);
  const Tensor biases = placed(DType::kF32, bias), norm = placed(DType::kF32, norms),
               angles = placed(DType::kF32, random(kRows * shape.dim));
  std::vector<int32_t> positions(kRows);
  std::iota(positions.begin(), positions.end(), 0);
  const Tensor places = placed(DType::kI32, positions), sequence = placed(DType::kI32, std::vector<int32_t>(kRows, 0)),
               table = placed(DType::kI32, std::vector<int32_t>{3, 6, 0, 5, 2});
  std::vector<float> found[2][2];
  for (const int parts : {1, 2}) {
    const Tensor qkv = placed(DType::kF32, values), pages = poisoned(kPages * page);
    for (int part = 0; part < parts; ++part) {
      const int rows = kRows / parts, first = part * rows;
      GroupedAttentionArgs args;
      args.qkv = {qkv.view().data + first * row * 4, DType::kF32, {rows, row}};
      if (shape.biased) args.qkv_bias = biases.view();
      args.heads = shape.heads;
      if (shape.normed) {
        args.query_norm = {norm.view().data, DType::kF32, {shape.dim}};
        args.key_norm = {norm.view().data + shape.dim * 4, DType::kF32, {shape.dim}};
      }
      args.norm_epsilon = 1e-5f;
      args.cos_sin = angles.view();
      args.pages = {pages.view().data, page * 4, DType::kF32, kPageTokens, shape.kv_heads, shape.dim, shape.dim};
      Batch batch;
      batch.rows = rows;
      batch.sequences = 1;
      batch.pages_max = 5;
      batch.page_table = table.as<int32_t>();
      batch.positions = places.as<int32_t>() + first;
      batch.row_sequence = sequence.as<int32_t>();
      store_keys_values(args, batch, *stream_);
    }
    found[parts - 1][0] = read(qkv), found[parts - 1][1] = read(pages);
  }
  int64_t written = 0;
  for (int what = 0; what < 2; ++what) {
    for (size_t i = 0; i < found[0][what].size(); ++i) {
      const float together = found[0][what][i], apart = found[1][what][i];
      ASSERT_EQ(std::isnan(together), std::isnan(apart)) << what << ": " << i;
      if (std::isnan(together)) continue;
      written += what;
      ASSERT_NEAR(together, apart, 1e-5f * (1 + std::abs(apart))) << what << ": " << i;
    }
  }
  EXPECT_EQ(written, 2 * int64_t{kRows} * shape.kv_heads * shape.dim);
}

INSTANTIATE_TEST_SUITE_P(Heads, ManyRowsOfHeads,
                         testing::Values(Heads{28, 4, 128, false, true}, Heads{5, 1, 64, true, false},
                                         Heads{8, 8, 32, true, true}, Heads{2, 2, 8, false, false}));

}  // namespace
}  // namespace spillway::kernels::cuda
