// Encoders and vision models against their reference outputs, and against themselves: an input's bits do not depend on
// what else is in the batch, and fusions change the order of operations only.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <numeric>
#include <random>

#include "models/one_shot_loader.h"
#include "models/verify.h"

namespace spillway::models {
namespace {

const std::string kGolden = SPILLWAY_SOURCE_DIR "/tests/golden/";

LoadOptions options_of(const std::string& name, PrecisionChoice precision) {
  return {.path = kGolden + name,
          .precision = precision,
          .batch_tokens_max = 256,
          .device = {},
          .threads = 2,
          .progress = {}};
}

void expect_verified(const std::string& name, PrecisionChoice precision, double tolerance) {
  const auto report = verify({.load = options_of(name, precision),
                              .expected_path = kGolden + name + "/expected.safetensors",
                              .tolerance = tolerance});
  ASSERT_TRUE(report.ok()) << report.error().message;
  ASSERT_FALSE(report->rows.empty());
  for (const VerifyRow& row : report->rows)
    EXPECT_TRUE(row.passed) << row.name << ": relative error " << row.max_rel << ", median of rows " << row.median_rel;
}

class OneShotGolden : public testing::TestWithParam<const char*> {};
INSTANTIATE_TEST_SUITE_P(Models, OneShotGolden,
                         testing::Values("bert", "bert_classifier", "bert_sparse", "distilbert",
                                         "distilbert_classifier", "distilbert_sparse", "roberta", "roberta_sparse",
                                         "xlm_roberta_reranker", "modernbert", "modernbert_classifier",
                                         "modernbert_sparse", "nomic_bert", "nomic_bert_classifier",
                                         "nomic_bert_sparse", "sentence_dense", "resnet", "resnet_torchvision"),
                         [](const auto& info) { return std::string(info.param); });

TEST_P(OneShotGolden, Fp32) { expect_verified(GetParam(), PrecisionChoice::kFp32, 1e-4); }
TEST_P(OneShotGolden, Bf16) { expect_verified(GetParam(), PrecisionChoice::kBf16, 0.05); }
TEST_P(OneShotGolden, Int8) { expect_verified(GetParam(), PrecisionChoice::kInt8, 0.15); }

std::vector<int32_t> random_tokens(int count, int vocabulary, uint32_t seed) {
  std::mt19937 random(seed);
  std::vector<int32_t> tokens;
  for (int i = 0; i < count; ++i) tokens.push_back(int32_t(random() % uint32_t(vocabulary)));
  return tokens;
}

std::vector<std::vector<float>> run(OneShotModel& model, const std::vector<OneShotInput>& batch, int threads = 2) {
  tensor::Stream stream(threads);
  std::vector<std::vector<float>> values;
  for (const tensor::TensorView& view : model.run(batch, stream))
    values.emplace_back(view.as<float>(), view.as<float>() + view.elements());
  return values;
}

class OneShotWays : public testing::TestWithParam<PrecisionChoice> {};
INSTANTIATE_TEST_SUITE_P(Precisions, OneShotWays,
                         testing::Values(PrecisionChoice::kFp32, PrecisionChoice::kBf16, PrecisionChoice::kInt8));

TEST_P(OneShotWays, ABatchIsEachAlone) {
  auto model = load_one_shot_model(options_of("bert", GetParam()));
  ASSERT_TRUE(model.ok()) << model.error().message;
  std::vector<std::vector<int32_t>> texts;
  for (const int length : {1, 7, 40, 13, 100, 64}) texts.push_back(random_tokens(length, 400, uint32_t(length)));
  for (const OneShotOutput output : {OneShotOutput::kEmbedding, OneShotOutput::kTokenVectors, OneShotOutput::kPooled}) {
    std::vector<OneShotInput> batch;
    for (const auto& text : texts) batch.push_back({.tokens = text, .types = {}, .pixels = {}, .output = output});
    const auto together = run(**model, batch);
    for (size_t i = 0; i < batch.size(); ++i) {
      const auto alone = run(**model, {batch[i]}, 1);
      EXPECT_EQ(alone[0], together[i]) << "text of " << texts[i].size() << " tokens";
    }
  }
}

// Asked for what comes from first tokens alone, the last layer leaves the other rows out: the same bits.
TEST_P(OneShotWays, FirstRowsAloneAreTheSame) {
  const std::pair<const char*, OneShotOutput> outputs[] = {{"bert", OneShotOutput::kPooled},
                                                           {"xlm_roberta_reranker", OneShotOutput::kScores},
                                                           {"modernbert_classifier", OneShotOutput::kScores}};
  for (const auto& [name, output] : outputs) {
    LoadOptions options = options_of(name, GetParam());
    options.batch_tokens_max = 2048;  // several blocks
    auto model = load_one_shot_model(options);
    ASSERT_TRUE(model.ok()) << model.error().message;
    std::vector<std::vector<int32_t>> texts;
    for (const int length : {1, 7, 300, 13, 400, 64, 200, 1}) {
      const int most = std::min(length, (*model)->info().tokens_max);
      texts.push_back(random_tokens(most, (*model)->info().vocab_size, uint32_t(length)));
    }
    std::vector<OneShotInput> batch;
    for (const auto& text : texts) batch.push_back({.tokens = text, .types = {}, .pixels = {}, .output = output});
    const auto firsts = run(**model, batch);
    batch.push_back({.tokens = texts[1], .types = {}, .pixels = {}, .output = OneShotOutput::kTokenVectors});
    const auto all = run(**model, batch);
    for (size_t i = 0; i < texts.size(); ++i) EXPECT_EQ(firsts[i], all[i]) << name << ", text " << i;
  }
}

TEST_P(OneShotWays, ImagesOfABatchAreEachAlone) {
  auto model = load_one_shot_model(options_of("resnet", GetParam()));
  ASSERT_TRUE(model.ok()) << model.error().message;
  std::mt19937 random(3);
  std::normal_distribution<float> normal;
  std::vector<float> pixels(3 * 61 * 40);
  for (float& value : pixels) value = normal(random);
  const OneShotInput wide{
      .tokens = {}, .types = {}, .pixels = pixels, .height = 40, .width = 61, .output = OneShotOutput::kScores};
  const OneShotInput small{.tokens = {},
                           .types = {},
                           .pixels = std::span(pixels).first(3 * 32 * 32),
                           .height = 32,
                           .width = 32,
                           .output = OneShotOutput::kEmbedding};
  const auto together = run(**model, {wide, small, wide});
  EXPECT_EQ(together[0], together[2]);
  EXPECT_EQ(together[0], run(**model, {wide}, 1)[0]);
  EXPECT_EQ(together[1], run(**model, {small}, 1)[0]);
  EXPECT_EQ(together[0].size(), 7u);
  EXPECT_EQ(together[1].size(), 64u);
}

TEST(OneShotFusions, EachAloneGivesTheSameWithFewerLaunches) {
  const auto tokens = random_tokens(50, 400, 5);
  const std::vector<OneShotInput> text = {{.tokens = tokens, .types = {}, .pixels = {}}};
  std::vector<float> pixels(3 * 64 * 64, 0.5f);
  for (size_t i = 0; i < pixels.size(); ++i) pixels[i] = float(i % 97) / 97.0f;
  const std::vector<OneShotInput> image = {
      {.tokens = {}, .types = {}, .pixels = pixels, .height = 64, .width = 64, .output = OneShotOutput::kScores}};
  using Switch = bool nn::Fusions::*;
  const std::pair<const char*, std::vector<Switch>> models[] = {
      {"bert", {&nn::Fusions::qkv, &nn::Fusions::epilogue, &nn::Fusions::residual_norm, &nn::Fusions::embedding_norm}},
      {"resnet", {&nn::Fusions::convolution}}};
  for (const auto& [name, switches] : models) {
    const auto& input = name == std::string("bert") ? text : image;
    auto fused = load_one_shot_model(options_of(name, PrecisionChoice::kFp32));
    ASSERT_TRUE(fused.ok()) << fused.error().message;
    const auto expected = run(**fused, input)[0];
    for (const Switch one : switches) {
      nn::Fusions fusions;
      fusions.*one = false;
      auto plain = load_one_shot_model(options_of(name, PrecisionChoice::kFp32), fusions);
      ASSERT_TRUE(plain.ok()) << plain.error().message;
      const auto found = run(**plain, input)[0];
      EXPECT_GT((*plain)->launches(), (*fused)->launches());
      float largest = 0, apart = 0;
      for (size_t i = 0; i < found.size(); ++i) {
        largest = std::max(largest, std::abs(expected[i]));
        apart = std::max(apart, std::abs(expected[i] - found[i]));
      }
      EXPECT_LT(apart, 1e-5f * largest);
    }
  }
}

TEST(OneShotInputs, WhatTheModelCannotTakeIsRefused) {
  auto model = load_one_shot_model(options_of("bert", PrecisionChoice::kFp32));
  ASSERT_TRUE(model.ok());
  const OneShotInfo& info = (*model)->info();
  const std::vector<int32_t> fine = {1, 2, 3}, outside = {1, 400}, negative = {-1}, two = {0, 2, 0};
  const std::vector<int32_t> longer(size_t(info.tokens_max) + 1, 1);
  EXPECT_TRUE(check_input(info, {.tokens = fine, .types = {}, .pixels = {}}).ok());
  for (const auto& tokens : {outside, negative, longer, std::vector<int32_t>()})
    EXPECT_FALSE(check_input(info, {.tokens = tokens, .types = {}, .pixels = {}}).ok());
  EXPECT_FALSE(check_input(info, {.tokens = fine, .types = two, .pixels = {}}).ok());
  EXPECT_FALSE(check_input(info, {.tokens = fine, .types = std::span(two).first(2), .pixels = {}}).ok());
  EXPECT_FALSE(check_input(info, {.tokens = fine, .types = {}, .pixels = {}, .output = OneShotOutput::kScores}).ok());
}

}  // namespace
}  // namespace spillway::models
