#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <numeric>
#include <random>

#include "nn/kv_storage.h"
#include "nn/mla.h"
#include "nn/rope.h"

namespace spillway::nn {
namespace {

RopeScaling deepseek_yarn() {
  return {.kind = RopeScaling::Kind::kYarn,
          .factor = 40,
          .original_max_position = 4096,
          .beta_fast = 32,
          .beta_slow = 1,
          .mscale = 1,
          .mscale_all_dim = 1};
}

TEST(Rope, YarnAsDeepseekPublishesIt) {
  const std::vector<double> f = rope_frequencies(64, 10000, deepseek_yarn());
  ASSERT_EQ(f.size(), 32u);
  const std::pair<size_t, double> expected[] = {{0, 1.0},         {9, 0.0749894},  {10, 0.0562341},
                                                {11, 0.0390069},  {13, 0.0183781}, {22, 1.77828e-4},
                                                {23, 3.33380e-5}, {24, 2.5e-5},    {31, 3.33380e-6}};
  for (const auto& [i, value] : expected) EXPECT_NEAR(f[i] / value, 1, 1e-5) << i;
  EXPECT_DOUBLE_EQ(rope_magnitude(deepseek_yarn()), 1);
  EXPECT_NEAR(std::pow(yarn_mscale(40, 1), 2) / std::sqrt(192.0), 0.13523378, 1e-8);
}

TEST(Rope, YarnWithoutMscaleScalesCosines) {
  RopeScaling scaling{.kind = RopeScaling::Kind::kYarn, .factor = 4, .original_max_position = 32768};
  EXPECT_NEAR(rope_magnitude(scaling), 0.1 * std::log(4.0) + 1, 1e-12);
  scaling.attention_factor = 1.5;
  EXPECT_EQ(rope_magnitude(scaling), 1.5);
}

TEST(Rope, Llama3KeepsShortWavesAndStretchesLongOnes) {
  const RopeScaling scaling{.kind = RopeScaling::Kind::kLlama3,
                            .factor = 8,
                            .original_max_position = 8192,
                            .low_freq_factor = 1,
                            .high_freq_factor = 4};
  const std::vector<double> plain = rope_frequencies(128, 500000, {}), scaled = rope_frequencies(128, 500000, scaling);
  EXPECT_EQ(scaled[0], plain[0]);
  EXPECT_NEAR(scaled[63], plain[63] / 8, 1e-15);
  for (size_t i = 0; i < plain.size(); ++i) {
    EXPECT_LE(scaled[i], plain[i]);
    EXPECT_GE(scaled[i], plain[i] / 8 - 1e-15);
  }
}

TEST(Rope, TableGrowsWithoutChangingItsRows) {
  tensor::Stream stream(1);
  RopeTable table(16, 10000, {}, 5000);
  const tensor::TensorView first = table.rows(3, stream);
  const std::vector<float> before(first.as<float>(), first.as<float>() + 1024 * 16);
  const tensor::TensorView second = table.rows(4999, stream);
  EXPECT_TRUE(std::equal(before.begin(), before.end(), second.as<float>()));
  EXPECT_NEAR(second.as<float>()[4998 * 16], std::cos(4998.0), 1e-6);
}

TEST(KvStorage, LaysOutAllLayersOfAPage) {
  auto storage = KvStorage::create({.layer_widths = {80, 40}, .dtype = tensor::DType::kBF16}, 16, 10, {});
  ASSERT_TRUE(storage.ok());
  EXPECT_EQ(storage->page_stride_bytes(1), (80 + 40) * 16 * 2);
  EXPECT_EQ(storage->layer_base(1) - storage->layer_base(0), 80 * 16 * 2);
  EXPECT_EQ(storage->bytes(), 10 * storage->page_stride_bytes(0));
  EXPECT_THAT(KvStorage::create({}, 20, 10, {}).error().message, testing::HasSubstr("multiple of 16, found 20"));
  EXPECT_FALSE(KvStorage::create({}, 16, 0, {}).ok());
}

struct MlaCase {
  int q_lora;
  bool fp8;
  int position;
};

class MlaForms : public testing::TestWithParam<MlaCase> {};
INSTANTIATE_TEST_SUITE_P(Shapes, MlaForms,
                         testing::Values(MlaCase{96, false, 0}, MlaCase{0, false, 0}, MlaCase{96, true, 0},
                                         MlaCase{96, false, 37}));

// The same input through both forms, over a context of which `position` tokens are cached.
TEST_P(MlaForms, NaiveIsAbsorbed) {
  tensor::Stream stream(2);
  const auto source = weights::random_weights({.dtype = tensor::DType::kF32, .fp8_blocks = GetParam().fp8, .seed = 3});
  LoadContext context{.precision = kernels::Precision::kFp32, .stream = stream};
  const MlaShape shape{.hidden = 128,
                       .heads = 4,
                       .q_lora = GetParam().q_lora,
                       .kv_lora = 64,
                       .nope_dim = 32,
                       .rope_dim = 16,
                       .value_dim = 32,
                       .softmax_scale = 0.3};
  const auto mla = Mla::load(weights::WeightScope(*source).scope("self_attn"), shape, 0, context);
  ASSERT_TRUE(mla.ok()) << mla.error().message;
  auto kv = KvStorage::create({.layer_widths = {shape.kv_width()}, .dtype = tensor::DType::kF32}, 16, 8, {});
  RopeTable rope(shape.rope_dim, 10000, {}, 256);
  tensor::Arena arena(mla->workspace_bytes(64));
  std::mt19937 random(5);
  std::normal_distribution<float> normal;
  std::vector<int32_t> pages(8);
  std::iota(pages.begin(), pages.end(), 0);
  const auto run = [&](const std::vector<float>& input, int position, MlaForm form) {
    const int64_t rows = int64_t(input.size()) / shape.hidden;
    std::vector<int32_t> positions(static_cast<size_t>(rows));
    std::iota(positions.begin(), positions.end(), position);
    std::vector<float> x = input, y(input.size());
    const kernels::SequenceRows sequence{.row_begin = 0, .rows = int32_t(rows), .position = position, .pages = pages};
    const Step step{
        .rows = {.sequences = std::span(&sequence, 1), .positions = {positions.data(), tensor::DType::kI32, {rows}}},
        .rope = rope.rows(256, stream),
        .kv = *kv,
        .arena = arena,
        .stream = stream};
    mla->add_to({x.data(), tensor::DType::kF32, {rows, shape.hidden}}, {},
                {y.data(), tensor::DType::kF32, {rows, shape.hidden}}, step, form);
    return y;
  };
  const auto values = [&](int rows) {
    std::vector<float> list(size_t(rows) * size_t(shape.hidden));
    for (float& value : list) value = normal(random);
    return list;
  };
  if (GetParam().position > 0) run(values(GetParam().position), 0, MlaForm::kAbsorbed);
  const std::vector<float> input = values(40);
  const auto absorbed = run(input, GetParam().position, MlaForm::kAbsorbed),
             naive = run(input, GetParam().position, MlaForm::kNaive);
  double largest = 0;
  for (const float value : absorbed) largest = std::max(largest, std::abs(double(value)));
  ASSERT_GT(largest, 0);
  for (size_t i = 0; i < naive.size(); ++i) ASSERT_NEAR(naive[i], absorbed[i], 1e-5 * largest) << i;
}

}  // namespace
}  // namespace spillway::nn
