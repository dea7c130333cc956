#include "kernels/linear.h"

#include <cstring>
#include <thread>

#include "kernels/late_weight.h"
#include "kernels/pack_store.h"
#include "kernels/test_support.h"

namespace spillway::kernels {
namespace {

using namespace test;  // NOLINT: the vocabulary of the kernel tests

struct Weight {
  Tensor weight;
  Tensor scales;
  WeightSource source;
  std::vector<double> values;  // [N, K], scales applied
};

Weight make_weight(int64_t n, int64_t k, DType dtype, bool scaled, uint32_t seed) {
  Weight w;
  w.weight = stored_as(random_f32({n, k}, seed), dtype);
  w.source.weight = w.weight;
  const int64_t rows = (n + 127) / 128, columns = (k + 127) / 128;
  if (scaled) {
    w.scales = random_f32({rows, columns}, seed + 1);
    w.source.scales = w.scales;
  }
  for (int64_t i = 0; i < n; ++i) {
    for (int64_t j = 0; j < k; ++j) {
      const double scale = scaled ? static_cast<double>(w.scales.as<float>()[i / 128 * columns + j / 128]) : 1.0;
      w.values.push_back(scale * static_cast<double>(element(w.weight, i * k + j)));
    }
  }
  return w;
}

std::vector<double> reference(const Tensor& x, const std::vector<double>& w, int64_t n, int64_t k) {
  const int64_t m = x.shape().elements() / k;
  std::vector<double> y(static_cast<size_t>(m * n));
  for (int64_t i = 0; i < m; ++i) {
    for (int64_t j = 0; j < n; ++j) {
      double sum = 0;
      for (int64_t l = 0; l < k; ++l)
        sum += static_cast<double>(x.as<float>()[i * k + l]) * w[static_cast<size_t>(j * k + l)];
      y[static_cast<size_t>(i * n + j)] = sum;
    }
  }
  return y;
}

// Relative to the largest output; outputs of normal data are sums of K random products, so roundings of 2^-8 average
// out.
double tolerance(Precision precision) {
  return precision == Precision::kFp32 ? 2e-6 : precision == Precision::kBf16 ? 4e-3 : 1.2e-2;
}

class Linear : public EveryIsa {};
SW_EVERY_ISA(Linear);

TEST_P(Linear, AgreesWithTheReferenceForEveryTypeAndOddSizes) {
  struct Size {
    int64_t m, n, k;
  };
  for (const Size size :
       {Size{1, 1, 1}, Size{1, 64, 256}, Size{3, 33, 130}, Size{13, 70, 391}, Size{30, 100, 517}, Size{70, 64, 776}}) {
    const Tensor x = random_f32({size.m, size.k}, 7);
    for (const DType dtype : {DType::kF32, DType::kBF16, DType::kF16, DType::kF8E4M3}) {
      for (const bool scaled : {false, true}) {
        if (scaled && dtype != DType::kF8E4M3) continue;
        const Weight w = make_weight(size.n, size.k, dtype, scaled, 11);
        const auto expected = reference(x, w.values, size.n, size.k);
        for (const Precision precision : {Precision::kFp32, Precision::kBf16, Precision::kInt8}) {
          const auto packed = pack_linear(w.source, precision, stream_);
          ASSERT_TRUE(packed.ok()) << packed.error().message;
          const Tensor y = poisoned({size.m, size.n});
          linear(x, *packed, y, stream_);
          EXPECT_LT(relative_error(y, expected), tolerance(precision) * (size.k < 4 ? 2 : 1))
              << size.m << " x " << size.n << " x " << size.k << " " << name_of(dtype) << " scaled " << scaled
              << " precision " << static_cast<int>(precision);
        }
      }
    }
  }
}

TEST_P(Linear, Int8IsNearExactForWeightsOnItsGrid) {
  const int64_t n = 37, k = 300;
  Tensor w(DType::kF32, {n, k});
  std::vector<double> values;
  for (int64_t i = 0; i < n * k; ++i) {
    w.as<float>()[i] = i % k % 128 == 0 ? 127.0f : static_cast<float>((i * 7919) % 255 - 127);
    values.push_back(static_cast<double>(w.as<float>()[i]));
  }
  WeightSource source;
  source.weight = w;
  const Tensor x = random_f32({14, k}, 6), y = poisoned({14, n});
  linear(x, *pack_linear(source, Precision::kInt8, stream_), y, stream_);
  EXPECT_LT(relative_error(y, reference(x, values, n, k)), 5e-5);
}

TEST_P(Linear, ARowsBitsDoNotDependOnTheOthersNorOnThreads) {
  const int64_t n = 200, k = 700, rows = 600;
  const Tensor x = random_f32({rows, k}, 3);
  tensor::Stream alone(1);
  for (const DType dtype : {DType::kF32, DType::kBF16, DType::kF16, DType::kF8E4M3}) {
    const Weight w = make_weight(n, k, dtype, dtype == DType::kF8E4M3, 5);
    for (const Precision precision : {Precision::kFp32, Precision::kBf16, Precision::kInt8}) {
      const auto packed = pack_linear(w.source, precision, stream_);
      const Tensor whole = poisoned({rows, n});
      linear(x, *packed, whole, stream_);
      for (const int64_t m : {1, 2, 5, 11, 12, 13, 40, 599}) {
        const int64_t first = (m * 37) % (rows - m + 1);
        const Tensor part = poisoned({m, n});
        linear(x.view().rows(first, first + m), *packed, part, alone);
        EXPECT_TRUE(same_bits(part, whole.view().rows(first, first + m)))
            << m << " rows, " << name_of(dtype) << ", precision " << static_cast<int>(precision);
      }
    }
  }
}

// Small f8 weights are kept as bf16 (cpu/packing.cc), larger ones as they are stored.
TEST_P(Linear, F8KeptOrWidenedGivesTheSameBits) {
  const int64_t n = 200, small = 128, k = 1411, rows = 130;
  const Weight w = make_weight(n, k, DType::kF8E4M3, true, 5);
  WeightSource first = w.source;
  first.weight = w.weight.view().rows(0, small);
  first.scales = w.scales.view().rows(0, 1);
  const auto kept = pack_linear(w.source, Precision::kBf16, stream_);
  const auto widened = pack_linear(first, Precision::kBf16, stream_);
  ASSERT_EQ(kept->format, PackedFormat::kF8);
  ASSERT_EQ(widened->format, PackedFormat::kBf16);
  const Tensor x = random_f32({rows, k}, 3);
  const auto expected = reference(x, w.values, n, k);
  const Tensor whole = poisoned({rows, n}), left = poisoned({rows, small});
  linear(x, *kept, whole, stream_);
  EXPECT_LT(relative_error(whole, expected), tolerance(Precision::kBf16));
  for (const int64_t m : {1, 2, 5, 8, 9, 13, 30, 130}) {
    const Tensor part = poisoned({m, n});
    linear(x.view().rows(0, m), *kept, part, stream_);
    EXPECT_TRUE(same_bits(part, whole.view().rows(0, m))) << m << " rows";
    linear(x.view().rows(0, m), *widened, left.view().rows(0, m), stream_);
    for (int64_t i = 0; i < m; ++i) {
      EXPECT_EQ(std::memcmp(left.as<float>() + i * small, whole.as<float>() + i * n, small * sizeof(float)), 0)
          << "row " << i << " of " << m;
    }
  }
}

TEST_P(Linear, StacksSourcesAddsBiasAndAccumulates) {
  const int64_t k = 96;
  const Weight a = make_weight(40, k, DType::kBF16, false, 1);
  const Weight b = make_weight(7, k, DType::kBF16, false, 2);
  const WeightSource sources[] = {a.source, b.source};
  const auto packed = pack_linear(sources, Precision::kFp32, stream_);
  const Tensor x = random_f32({2, k}, 3), bias = random_f32({47}, 4), y = random_f32({2, 47}, 5);
  std::vector<double> stacked = a.values;
  stacked.insert(stacked.end(), b.values.begin(), b.values.end());
  auto expected = reference(x, stacked, 47, k);
  for (size_t i = 0; i < expected.size(); ++i) {
    expected[i] += static_cast<double>(bias.as<float>()[i % 47]) + static_cast<double>(y.as<float>()[i]);
  }
  linear(x, *packed, y, stream_, {.bias = bias, .accumulate = true});
  EXPECT_LT(relative_error(y, expected), 2e-6);
}

TEST_P(Linear, TakesTransposedWeights) {
  const int64_t n = 50, k = 24;
  const Tensor w = random_f32({k, n}, 1), x = random_f32({5, k}, 2), y = poisoned({5, n});
  std::vector<double> values;
  for (int64_t i = 0; i < n; ++i) {
    for (int64_t j = 0; j < k; ++j) values.push_back(static_cast<double>(w.as<float>()[j * n + i]));
  }
  WeightSource source;
  source.weight = w;
  source.transposed = true;
  linear(x, *pack_linear(source, Precision::kFp32, stream_), y, stream_);
  EXPECT_LT(relative_error(y, reference(x, values, n, k)), 2e-6);
}

TEST_P(Linear, ByHeadAndGated) {
  const int64_t heads = 3, n = 40, k = 20, tokens = 14;
  std::vector<PackedLinear> packed;
  std::vector<Weight> weights;
  for (int64_t h = 0; h < heads; ++h) {
    weights.push_back(make_weight(n, k, DType::kF32, false, static_cast<uint32_t>(h)));
    packed.push_back(*pack_linear(weights.back().source, Precision::kFp32, stream_));
  }
  const Tensor x = random_f32({tokens, heads, 32}, 9), y = poisoned({tokens, heads, n});
  linear_by_head(x, 8, packed, y, stream_);
  for (int64_t t = 0; t < tokens; ++t) {
    for (int64_t h = 0; h < heads; ++h) {
      Tensor row(DType::kF32, {1, k});
      std::memcpy(row.view().data, x.as<float>() + (t * heads + h) * 32 + 8, k * 4);
      const auto expected = reference(row, weights[static_cast<size_t>(h)].values, n, k);
      EXPECT_LT(relative_error(y.view().rows(t, t + 1).reshaped({heads, n}).rows(h, h + 1), expected), 2e-6);
    }
  }
  const Tensor in = random_f32({4, k}, 10), work = poisoned({4, n}), out = poisoned({4, n / 2});
  gated_linear(in, packed[0], work, out, stream_);
  const auto both = reference(in, weights[0].values, n, k);
  std::vector<double> expected;
  for (int64_t t = 0; t < 4; ++t) {
    for (int64_t i = 0; i < n / 2; ++i) {
      const double g = both[static_cast<size_t>(t * n + i)], u = both[static_cast<size_t>(t * n + n / 2 + i)];
      expected.push_back(g / (1 + std::exp(-g)) * u);
    }
  }
  EXPECT_LT(relative_error(out, expected), 4e-6);
}

TEST_P(Linear, EveryFiniteF8ValueIsExact) {
  Tensor w(DType::kF8E4M3, {256, 4});
  std::vector<double> values;
  for (int i = 0; i < 1024; ++i) {
    const int bits = i / 4;
    w.raw<uint8_t>()[i] = static_cast<uint8_t>((bits & 0x7f) == 0x7f || i % 4 != 1 ? 0 : bits);
    values.push_back(static_cast<double>(element(w, i)));
  }
  Tensor x = Tensor::zeros(DType::kF32, {1, 4});
  x.as<float>()[1] = 1.0f;
  WeightSource source;
  source.weight = w;
  for (const Precision precision : {Precision::kFp32, Precision::kBf16}) {
    const Tensor y = poisoned({1, 256});
    linear(x, *pack_linear(source, precision, stream_), y, stream_);
    EXPECT_EQ(relative_error(y, reference(x, values, 256, 4)), 0.0);
  }
}

// Weights of any memory, packed when the test says so.
class Later : public PackLater {
 public:
  bool take(const tensor::TensorView&) override { return stays; }
  void add(const PackRequest&, std::shared_ptr<LateWeight> weight) override { weights.push_back(std::move(weight)); }
  bool stays = true;
  std::vector<std::shared_ptr<LateWeight>> weights;
};

bool same_bits(const Tensor& a, const Tensor& b) {
  if (a.bytes() != b.bytes()) return false;
  return a.bytes() == 0 || std::memcmp(a.view().data, b.view().data, a.bytes()) == 0;
}

TEST_P(Linear, RowsGiveTheBitsOfPanelsBeforeAndAfterPacking) {
  tensor::Stream stream(2);
  struct Case {
    DType dtype;
    Precision precision;
    int64_t first, second, k;  // stacked outputs; sizes that neither panels, lines, blocks nor pairs divide
  };
  const Case cases[] = {
      {DType::kBF16, Precision::kBf16, 96, 64, 512},     {DType::kBF16, Precision::kBf16, 70, 45, 331},
      {DType::kBF16, Precision::kFp32, 70, 45, 331},     {DType::kF32, Precision::kFp32, 40, 60, 203},
      {DType::kF8E4M3, Precision::kBf16, 512, 256, 384}, {DType::kF8E4M3, Precision::kBf16, 300, 333, 523},
      {DType::kF8E4M3, Precision::kFp32, 150, 70, 331},  {DType::kF8E4M3, Precision::kFp32, 1, 2, 5},
      {DType::kBF16, Precision::kBf16, 5, 1, 1},         {DType::kF32, Precision::kFp32, 33, 31, 1030},
      {DType::kBF16, Precision::kInt8, 96, 64, 512},     {DType::kBF16, Precision::kInt8, 70, 45, 331},
      {DType::kF32, Precision::kInt8, 40, 60, 203},      {DType::kF16, Precision::kInt8, 33, 31, 1030},
      {DType::kBF16, Precision::kInt8, 5, 1, 1},
  };
  for (const Case& c : cases) {
    const bool f8 = c.dtype == DType::kF8E4M3;
    const Weight first = make_weight(c.first, c.k, c.dtype, f8, 1), second = make_weight(c.second, c.k, c.dtype, f8, 7);
    const WeightSource sources[] = {first.source, second.source};
    const int64_t n = c.first + c.second;
    Later later;
    const auto panels = pack_linear(sources, c.precision, stream);
    const auto rows = [&] {
      const PackScope scope(nullptr, &later);
      return pack_linear(sources, c.precision, stream);
    }();
    ASSERT_TRUE(panels.ok() && rows.ok());
    ASSERT_EQ(later.weights.size(), 1u);
    EXPECT_EQ(rows->bytes(), panels->bytes());
    const auto check = [&](const char* when) {
      for (const int64_t m : {1, 3, 13, 49, 600}) {
        const Tensor x = random_f32({m, c.k}, 3);
        Tensor expected(DType::kF32, {m, n}), y(DType::kF32, {m, n});
        linear(x, *panels, expected, stream);
        linear(x, *rows, y, stream);
        EXPECT_TRUE(same_bits(y, expected)) << when << ", " << tensor::name_of(c.dtype) << ", K " << c.k << ", M " << m;
      }
    };
    check("in rows");
    EXPECT_EQ(rows->late->panels(), nullptr);
    const auto packed = later.weights[0]->pack();
    ASSERT_EQ(packed.size(), panels->data.bytes());
    EXPECT_EQ(std::memcmp(packed.data(), panels->data.view().data, packed.size()), 0);
    EXPECT_EQ(rows->late->panels(), packed.data());
    EXPECT_TRUE(same_bits(rows->late->scales(), panels->scales));
    check("packed");
  }
}

TEST(PackLinear, IsLateOnlyWherePiecesCanBeMadeOfBytesThatStay) {
  tensor::Stream stream(1);
  const Weight bf16 = make_weight(40, 64, DType::kBF16, false, 1), f32 = make_weight(40, 64, DType::kF32, false, 1),
               f16 = make_weight(40, 64, DType::kF16, false, 1), f8 = make_weight(40, 64, DType::kF8E4M3, true, 1);
  WeightSource transposed = bf16.source;
  transposed.transposed = true;
  Later later;
  const PackScope scope(nullptr, &later);
  const auto late = [&](const WeightSource& source, Precision precision) {
    const auto packed = pack_linear(source, precision, stream);
    EXPECT_TRUE(packed.ok());
    return packed->late != nullptr;
  };
  EXPECT_TRUE(late(bf16.source, Precision::kBf16));
  EXPECT_TRUE(late(f8.source, Precision::kFp32));
  EXPECT_FALSE(late(f32.source, Precision::kBf16));  // rounded
  EXPECT_FALSE(late(f8.source, Precision::kBf16));   // small: widened
  EXPECT_TRUE(late(bf16.source, Precision::kInt8));
  EXPECT_TRUE(late(f16.source, Precision::kInt8));
  EXPECT_FALSE(late(bf16.source, Precision::kW8A8));  // its scales are of whole weights
  EXPECT_FALSE(late(f8.source, Precision::kInt8));    // of blocks
  EXPECT_FALSE(late(transposed, Precision::kInt8));
  EXPECT_FALSE(late(transposed, Precision::kBf16));
  EXPECT_FALSE(late(f16.source, Precision::kFp32));
  later.stays = false;
  EXPECT_FALSE(late(bf16.source, Precision::kBf16));
}

// Products run on one thread while the panels come on another; TSan looks on.
TEST(PackLinear, PanelsMayComeDuringProducts) {
  tensor::Stream stream(2);
  const Weight w = make_weight(640, 512, DType::kBF16, false, 1);
  const Tensor x = random_f32({5, 512}, 3);
  Tensor expected(DType::kF32, {5, 640}), y(DType::kF32, {5, 640});
  linear(x, *pack_linear(w.source, Precision::kBf16, stream), expected, stream);
  for (int round = 0; round < 20; ++round) {
    Later later;
    const PackScope scope(nullptr, &later);
    const auto packed = pack_linear(w.source, Precision::kBf16, stream);
    std::thread packer([&] { later.weights[0]->pack(); });
    for (int i = 0; i < 4; ++i) {
      linear(x, *packed, y, stream);
      EXPECT_TRUE(same_bits(y, expected));
    }
    packer.join();
    linear(x, *packed, y, stream);
    EXPECT_TRUE(same_bits(y, expected));
  }
}

TEST(PackLinear, RefusesWhatDoesNotFit) {
  tensor::Stream stream(1);
  const Tensor ints = Tensor::zeros(DType::kI32, {4, 4});
  const Tensor floats = Tensor::zeros(DType::kF32, {4, 4}), wide = Tensor::zeros(DType::kF32, {4, 8});
  const Tensor eighths = Tensor::zeros(DType::kF8E4M3, {200, 130}), scales = Tensor::zeros(DType::kF32, {2, 1});
  WeightSource a, b;
  a.weight = ints;
  EXPECT_NE(pack_linear(a, Precision::kFp32, stream).error().message.find("found i32"), std::string::npos);
  a.weight = floats;
  b.weight = wide;
  const WeightSource both[] = {a, b};
  EXPECT_FALSE(pack_linear(both, Precision::kFp32, stream).ok());
  a.weight = eighths;
  a.scales = scales;
  const auto refused = pack_linear(a, Precision::kBf16, stream);
  ASSERT_FALSE(refused.ok());
  EXPECT_NE(refused.error().message.find("expected scales f32[2, 2]"), std::string::npos) << refused.error().message;
}

}  // namespace
}  // namespace spillway::kernels
