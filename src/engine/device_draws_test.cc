// Tokens drawn on the first GPU against their CPU twin, sample(): greedy, temperature, top_k, top_p, min_p and all of
// them together, seeds and positions, ties, padding of the head, rows left out and rows without a finite logit.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>

#include "engine/sampler.h"
#include "kernels/sampling.h"
#include "tensor/cuda/cuda.h"
#include "tensor/stream.h"

namespace spillway::engine {
namespace {

using tensor::DType;
using tensor::Tensor;

constexpr tensor::Device kDevice{tensor::DeviceKind::kCuda, 0};
constexpr int32_t kPoison = 0x77777777;

struct Drawn {
  SamplingParams params;
  uint64_t seed = 0;
  int64_t position = 0;
};

class DeviceDraws : public testing::Test {
 protected:
  DeviceDraws() { random_.seed(seed_); }
  void SetUp() override {
    const Status available = tensor::cuda::check_device(0);
    if (!available.ok()) GTEST_SKIP() << available.error().message;
    auto opened = tensor::Stream::open(kDevice, 2);
    ASSERT_TRUE(opened.ok());
    stream_.emplace(std::move(*opened));
  }
  void TearDown() override {
    if (HasFailure()) std::printf("repeated by --gtest_random_seed=%u\n", seed_);
  }

  Drawn random_draw() {
    const auto pick = [&](std::initializer_list<double> of) { return of.begin()[random_() % of.size()]; };
    Drawn drawn;
    drawn.params.temperature = float(pick({0, 0.3, 0.7, 1, 1, 2.5}));
    drawn.params.top_p = float(pick({1, 1, 0.5, 0.9, 0.95, 0.999}));
    drawn.params.top_k = int(pick({0, 0, 1, 5, 40, 1000, 300000}));
    drawn.params.min_p = float(pick({0, 0, 0, 0.05, 0.3}));
    drawn.seed = random_();
    drawn.position = int64_t(random_() % 200000);
    return drawn;
  }

  Tensor random_logits(int rows, int stride, int vocab, float spread, bool ties) {
    Tensor logits(DType::kF32, {rows, stride});
    std::normal_distribution<float> normal(0, spread);
    for (int64_t r = 0; r < rows; ++r) {
      for (int i = 0; i < stride; ++i) {
        float value = i < vocab ? normal(random_) : 1e30f;  // padding must never win
        if (ties && i < vocab) value = std::round(value * 4) / 4;
        if (i < vocab && random_() % 50 == 0) value = -std::numeric_limits<float>::infinity();
        logits.as<float>()[r * stride + i] = value;
      }
    }
    return logits;
  }

  std::vector<int32_t> draw(const Tensor& logits, std::span<const Drawn> draws, int vocab, int left_out) {
    std::vector<kernels::RowDraw> rows;
    for (const Drawn& d : draws) {
      const uint64_t key = noise_key(d.seed, d.position);
      rows.push_back({.temperature = d.params.temperature,
                      .top_p = d.params.top_p,
                      .min_p = d.params.min_p,
                      .top_k = d.params.top_k,
                      .key_low = uint32_t(key),
                      .key_high = uint32_t(key >> 32),
                      .vocab = int(rows.size()) == left_out ? 0 : vocab});
    }
    const int64_t count = int64_t(rows.size());
    std::vector<int32_t> found(rows.size(), kPoison);
    const Tensor there(DType::kF32, logits.shape(), kDevice), tokens(DType::kI32, {count}, kDevice),
        placed(DType::kI32, {count, int64_t(sizeof(kernels::RowDraw)) / 4}, kDevice);
    stream_->upload(there.view().data, logits.view().data, logits.bytes());
    stream_->upload(placed.view().data, rows.data(), placed.bytes());
    stream_->upload(tokens.view().data, found.data(), tokens.bytes());
    kernels::draw_rows(there, placed.raw<kernels::RowDraw>(), tokens, *stream_);
    stream_->download(found.data(), tokens.view().data, tokens.bytes());
    return found;
  }

  std::optional<int32_t> here(std::span<const float> row, const Drawn& d, int vocab) {
    return sample(row, {.params = &d.params, .seed = d.seed, .position = d.position, .vocab_limit = vocab}, scratch_);
  }

  // What sample() itself draws when a bound lies a hundred-thousandth apart: float32's sums over a row do not say more.
  bool nearly(int32_t token, std::span<const float> row, const Drawn& drawn, int vocab) {
    for (const float by : {0.99999f, 0.999999f, 1.000001f, 1.00001f}) {
      for (const int which : {0, 1, 2}) {
        Drawn d = drawn;
        float& value = which == 0 ? d.params.temperature : which == 1 ? d.params.top_p : d.params.min_p;
        value = which == 1 ? std::min(value * by, std::nextafter(1.0f, 0.0f)) : value * by;
        if (here(row, d, vocab) == token) return true;
      }
    }
    return false;
  }

  void run(int rows, int vocab, int stride, float spread, bool ties) {
    const Tensor logits = random_logits(rows, stride, vocab, spread, ties);
    const int broken = rows > 3 ? 1 : -1, left_out = rows > 3 ? 2 : -1;
    if (broken >= 0) {
      std::fill_n(logits.as<float>() + int64_t{broken} * stride, vocab, -std::numeric_limits<float>::infinity());
    }
    std::vector<Drawn> draws;
    for (int r = 0; r < rows; ++r) draws.push_back(random_draw());
    const auto found = draw(logits, draws, vocab, left_out);
    int near = 0;
    for (int r = 0; r < rows; ++r) {
      const std::span<const float> row(logits.as<float>() + int64_t{r} * stride, size_t(stride));
      const Drawn& d = draws[size_t(r)];
      const int32_t expected = r == left_out ? kPoison : here(row, d, vocab).value_or(-1), token = found[size_t(r)];
      if (token == expected) continue;
      ++near;
      EXPECT_TRUE(r != left_out && nearly(token, row, d, vocab))
          << "row " << r << " of " << rows << " x " << vocab << ": " << token << ", expected " << expected
          << " (temperature " << d.params.temperature << ", top_p " << d.params.top_p << ", top_k " << d.params.top_k
          << ", min_p " << d.params.min_p << ")";
    }
    EXPECT_LE(near, 1 + rows / 20) << rows << " x " << vocab;
  }

  const uint32_t seed_ =
      GTEST_FLAG_GET(random_seed) != 0 ? uint32_t(GTEST_FLAG_GET(random_seed)) : std::random_device{}() % 99999 + 1;
  std::mt19937_64 random_;
  std::optional<tensor::Stream> stream_;
  SampleScratch scratch_;
};

TEST_F(DeviceDraws, AreTheSamplers) {
  run(5, 1000, 1000, 3, false);
  run(64, 777, 780, 2, true);
  run(32, 151936, 152064, 3, false);
  run(64, 32000, 32000, 1.5f, true);
  run(1, 262144, 262144, 4, false);
  run(24, 151936, 151936, 0.2f, false);  // more candidates than a block keeps
  run(200, 5000, 5000, 3, false);
}

// Seed and position alone fix the noise, whatever the row's place.
TEST_F(DeviceDraws, DependOnSeedAndPositionAlone) {
  constexpr int kRows = 40, kVocab = 1000;
  const Tensor one = random_logits(1, kVocab, kVocab, 1, false);
  Tensor logits(DType::kF32, {kRows, kVocab});
  for (int64_t i = 0; i < logits.shape().elements(); ++i) logits.as<float>()[i] = one.as<float>()[i % kVocab];
  std::vector<Drawn> draws(kRows, random_draw());
  for (size_t i = 0; i < draws.size(); ++i) {
    draws[i].params = {};
    if (i >= kRows / 2) draws[i].position += int64_t(i);
  }
  const auto found = draw(logits, draws, kVocab, -1);
  int others = 0;
  for (size_t i = 0; i < found.size(); ++i) {
    if (i < kRows / 2) EXPECT_EQ(found[i], found[0]);
    others += found[i] != found[0];
    EXPECT_EQ(found[i], here({one.as<float>(), kVocab}, draws[i], kVocab));
  }
  EXPECT_GT(others, 5);
}

}  // namespace
}  // namespace spillway::engine
