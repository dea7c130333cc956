#include "kernels/elementwise.h"

#include "kernels/rope.h"
#include "kernels/test_support.h"

namespace spillway::kernels {
namespace {

using namespace test;  // NOLINT: the vocabulary of the kernel tests

class Elementwise : public EveryIsa {};
SW_EVERY_ISA(Elementwise);

double at(const Tensor& t, int64_t i) { return static_cast<double>(t.as<float>()[i]); }

std::vector<double> normed(const std::vector<double>& x, const Tensor& weight, double eps) {
  const auto width = static_cast<size_t>(weight.shape()[0]);
  std::vector<double> y;
  for (size_t row = 0; row < x.size(); row += width) {
    double squares = 0;
    for (size_t i = 0; i < width; ++i) squares += x[row + i] * x[row + i];
    const double inverse = 1 / std::sqrt(squares / static_cast<double>(width) + eps);
    for (size_t i = 0; i < width; ++i) y.push_back(x[row + i] * inverse * at(weight, static_cast<int64_t>(i)));
  }
  return y;
}

TEST_P(Elementwise, Norms) {
  for (const int64_t width : {1, 5, 64, 131, 1536}) {
    const int64_t rows = 7;
    const Tensor x = random_f32({rows, width}, 1), residual = random_f32({rows, width}, 2),
                 weight = random_f32({width}, 3);
    std::vector<double> plain, sum;
    for (int64_t i = 0; i < rows * width; ++i) {
      plain.push_back(at(x, i));
      sum.push_back(static_cast<double>(x.as<float>()[i] + residual.as<float>()[i]));
    }
    const Tensor y = poisoned({rows, width});
    rms_norm(x, weight, 1e-5f, y, stream_);
    EXPECT_LT(relative_error(y, normed(plain, weight, 1e-5)), 2e-6) << width;
    add_rms_norm(residual, x, weight, 1e-5f, y, stream_);
    EXPECT_LT(relative_error(y, normed(sum, weight, 1e-5)), 2e-6) << width;
    EXPECT_EQ(relative_error(residual, sum), 0.0) << width;
  }
}

TEST_P(Elementwise, NormOfASlice) {
  const Tensor x = random_f32({3, 50}, 1), weight = random_f32({33}, 2), y = poisoned({3, 33}),
               copy = poisoned({3, 33});
  rms_norm_slice(x, 9, weight, 1e-6f, y, stream_);
  copy_slice(x, 9, copy, stream_);
  std::vector<double> slice;
  for (int64_t t = 0; t < 3; ++t) {
    for (int64_t i = 0; i < 33; ++i) slice.push_back(at(x, t * 50 + 9 + i));
  }
  EXPECT_EQ(relative_error(copy, slice), 0.0);
  EXPECT_LT(relative_error(y, normed(slice, weight, 1e-6)), 2e-6);
}

TEST_P(Elementwise, SiluOverTheWholeRange) {
  for (const int64_t width : {1, 19, 512}) {
    Tensor x = random_f32({4, 2 * width}, 5, 20.0f);
    x.as<float>()[0] = -200.0f;
    x.as<float>()[2 * width] = 200.0f;
    std::vector<double> expected;
    for (int64_t t = 0; t < 4; ++t) {
      for (int64_t i = 0; i < width; ++i) {
        const double g = at(x, 2 * t * width + i);
        expected.push_back(g / (1 + std::exp(-g)) * at(x, (2 * t + 1) * width + i));
      }
    }
    const Tensor y = poisoned({4, width});
    silu_mul(x, y, stream_);
    EXPECT_LT(relative_error(y, expected), 2e-6) << width;
  }
}

TEST_P(Elementwise, AddEmbeddingGather) {
  const Tensor table = random_f32({9, 21}, 1);
  Tensor ids(DType::kI32, {3});
  const int32_t wanted[] = {8, 0, 8};
  std::memcpy(ids.view().data, wanted, sizeof(wanted));
  for (const DType dtype : {DType::kF32, DType::kBF16, DType::kF16}) {
    const Tensor stored = stored_as(table, dtype), y = poisoned({3, 21});
    embedding(stored, ids, y, stream_);
    for (int64_t i = 0; i < 63; ++i) EXPECT_EQ(y.as<float>()[i], element(stored, wanted[i / 21] * 21 + i % 21));
  }
  const Tensor y = poisoned({3, 21}), rows = random_f32({3, 21}, 2);
  gather_rows(table, ids, y, stream_);
  add(y, rows, stream_);
  for (int64_t i = 0; i < 63; ++i) {
    EXPECT_EQ(y.as<float>()[i], table.as<float>()[wanted[i / 21] * 21 + i % 21] + rows.as<float>()[i]);
  }
}

TEST_P(Elementwise, RopeTurnsBothKindsOfPairs) {
  const int64_t tokens = 5, heads = 3, head_dim = 28, pairs = 11, offset = 4, row = 100, x_offset = 10;
  Tensor inv_freq = random_f32({pairs}, 1), table = poisoned({40, 2, pairs}), positions(DType::kI32, {tokens});
  fill_rope_table(inv_freq, 1.25f, table, stream_);
  for (int32_t t = 0; t < tokens; ++t) positions.as<int32_t>()[t] = 39 - 7 * t;
  for (const RopePairs kind : {RopePairs::kHalves, RopePairs::kInterleaved}) {
    const Tensor x = random_f32({tokens, row}, 2), before = random_f32({tokens, row}, 2);
    RopeArgs args;
    args.x = x;
    args.cos_sin = table;
    args.positions = positions;
    args.pairs = kind;
    args.x_offset = x_offset;
    args.heads = static_cast<int>(heads);
    args.head_dim = static_cast<int>(head_dim);
    args.offset = static_cast<int>(offset);
    rope(args, stream_);
    std::vector<double> expected;
    for (int64_t i = 0; i < tokens * row; ++i) expected.push_back(at(before, i));
    for (int64_t t = 0; t < tokens; ++t) {
      for (int64_t h = 0; h < heads; ++h) {
        for (int64_t i = 0; i < pairs; ++i) {
          const int64_t base = t * row + x_offset + h * head_dim + offset;
          const int64_t a = base + (kind == RopePairs::kHalves ? i : 2 * i);
          const int64_t b = base + (kind == RopePairs::kHalves ? i + pairs : 2 * i + 1);
          const double angle = (39.0 - 7.0 * static_cast<double>(t)) * at(inv_freq, i);
          const double c = 1.25 * std::cos(angle), s = 1.25 * std::sin(angle);
          expected[static_cast<size_t>(a)] = at(before, a) * c - at(before, b) * s;
          expected[static_cast<size_t>(b)] = at(before, b) * c + at(before, a) * s;
        }
      }
    }
    EXPECT_LT(relative_error(x, expected), 1e-6);
  }
}

}  // namespace
}  // namespace spillway::kernels
