// Every decoder family against its reference outputs, and against itself: the ways of computing one sequence agree.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <numeric>

#include "models/verify.h"

namespace spillway::models {
namespace {

constexpr int kPageTokens = 16;
constexpr int kPages = 64;
const std::string kGolden = SPILLWAY_SOURCE_DIR "/tests/golden/";

// A loaded golden with its own pages and the inputs of its expected outputs.
class Fixture {
 public:
  Fixture(const std::string& family, PrecisionChoice precision, const std::string& folder = kGolden) {
    auto loaded = load_model(
        {.path = folder + family, .precision = precision, .batch_tokens_max = 256, .device = {}, .progress = {}});
    EXPECT_TRUE(loaded.ok()) << loaded.error().message;
    model = std::move(*loaded);
    auto storage = nn::KvStorage::create(model->info().kv, kPageTokens, kPages, {});
    EXPECT_TRUE(storage.ok());
    kv.emplace(std::move(*storage));
    const auto expected = weights::open_safetensors(folder + family + "/expected.safetensors");
    if (!expected.ok()) return;
    const auto stored = (*expected)->open("input_ids", {}, {});
    ids.resize(size_t(stored->view().elements()));
    std::memcpy(ids.data(), stored->view().data, stored->view().bytes());
    tokens = int(stored->shape()[1]);
  }

  std::span<const int32_t> sequence(int s) const { return std::span(ids).subspan(size_t(s * tokens), size_t(tokens)); }

  // Logits [rows, vocab] of the batch, copied.
  std::vector<float> forward(std::vector<SequenceInput> batch) {
    const tensor::TensorView logits = model->forward(batch, *kv, stream);
    return {logits.as<float>(), logits.as<float>() + logits.elements()};
  }

  // Pages [first, first + 8) as a sequence's page list.
  static std::vector<int32_t> pages(int first) {
    std::vector<int32_t> list(8);
    std::iota(list.begin(), list.end(), first);
    return list;
  }

  std::vector<float> whole(std::span<const int32_t> prompt, const std::vector<int32_t>& page_list) {
    return forward({{.tokens = prompt, .position = 0, .pages = page_list, .logits_rows = int32_t(prompt.size())}});
  }

  std::unique_ptr<LanguageModel> model;
  std::optional<nn::KvStorage> kv;
  tensor::Stream stream{2};
  std::vector<int32_t> ids;
  int tokens = 0;
};

double difference(const std::vector<float>& a, const std::vector<float>& b) {
  EXPECT_EQ(a.size(), b.size());
  double largest = 0, apart = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    largest = std::max(largest, std::abs(double(a[i])));
    apart = std::max(apart, std::abs(double(a[i]) - double(b[i])));
  }
  return apart / largest;
}

void expect_same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  ASSERT_EQ(a.size(), b.size());
  EXPECT_EQ(std::memcmp(a.data(), b.data(), a.size() * sizeof(float)), 0) << "relative difference " << difference(a, b);
}

class Golden : public testing::TestWithParam<const char*> {};
INSTANTIATE_TEST_SUITE_P(Families, Golden, testing::Values("deepseek_v3", "deepseek_v3_fp8", "llama", "qwen2", "qwen3"),
                         [](const auto& info) { return std::string(info.param); });

void expect_verified(const std::string& family, PrecisionChoice precision, double tolerance) {
  const auto report = verify({.load = {.path = kGolden + family, .precision = precision, .device = {}, .progress = {}},
                              .expected_path = kGolden + family + "/expected.safetensors",
                              .tolerance = tolerance});
  ASSERT_TRUE(report.ok()) << report.error().message;
  ASSERT_FALSE(report->rows.empty());
  for (const VerifyRow& row : report->rows) {
    // Rounded weights may choose another token where two are near; the logits' tolerance is the statement then.
    if (precision != PrecisionChoice::kFp32 && row.name == "greedy") continue;
    EXPECT_TRUE(row.passed) << row.name << ": relative error " << row.max_rel << ", median of rows " << row.median_rel;
  }
}

TEST_P(Golden, LogitsAndGreedyTokensInFp32) { expect_verified(GetParam(), PrecisionChoice::kFp32, 1e-4); }
TEST_P(Golden, LogitsInBf16) { expect_verified(GetParam(), PrecisionChoice::kBf16, 0.03); }
TEST_P(Golden, LogitsInInt8) { expect_verified(GetParam(), PrecisionChoice::kInt8, 0.08); }

class Ways : public testing::TestWithParam<std::tuple<const char*, PrecisionChoice>> {
 protected:
  Ways() : fixture(std::get<0>(GetParam()), std::get<1>(GetParam())) {}
  Fixture fixture;
};
INSTANTIATE_TEST_SUITE_P(Families, Ways,
                         testing::Combine(testing::Values("deepseek_v3", "deepseek_v3_fp8", "llama", "qwen2", "qwen3"),
                                          testing::Values(PrecisionChoice::kFp32, PrecisionChoice::kBf16,
                                                          PrecisionChoice::kInt8)),
                         [](const auto& info) {
                           return std::string(std::get<0>(info.param)) + "_" +
                                  std::to_string(int(std::get<1>(info.param)));
                         });

TEST_P(Ways, TokenByTokenIsTheWholePrompt) {
  const auto prompt = fixture.sequence(0);
  const std::vector<float> whole = fixture.whole(prompt, Fixture::pages(0));
  const auto pages = Fixture::pages(16);
  std::vector<float> steps;
  for (int32_t i = 0; i < int32_t(prompt.size()); ++i) {
    const auto row =
        fixture.forward({{.tokens = prompt.subspan(size_t(i), 1), .position = i, .pages = pages, .logits_rows = 1}});
    steps.insert(steps.end(), row.begin(), row.end());
  }
  expect_same_bits(whole, steps);
}

TEST_P(Ways, ChunksAreTheWholePrompt) {
  const auto prompt = fixture.sequence(1);
  const std::vector<float> whole = fixture.whole(prompt, Fixture::pages(0));
  const auto pages = Fixture::pages(16);
  std::vector<float> chunks;
  int32_t position = 0;
  for (const int32_t size : {7, 16, 1, 3, 13}) {
    const auto rows = fixture.forward({{.tokens = prompt.subspan(size_t(position), size_t(size)),
                                        .position = position,
                                        .pages = pages,
                                        .logits_rows = size}});
    chunks.insert(chunks.end(), rows.begin(), rows.end());
    position += size;
  }
  ASSERT_EQ(position, fixture.tokens);
  expect_same_bits(whole, chunks);
}

TEST_P(Ways, ABatchIsEachAlone) {
  const std::vector<float> first = fixture.whole(fixture.sequence(0), Fixture::pages(0));
  const std::vector<float> second = fixture.whole(fixture.sequence(1), Fixture::pages(8));
  const auto a = Fixture::pages(24), b = Fixture::pages(32), c = Fixture::pages(40);
  // A third sequence decodes in the same batch, from a cache of its own.
  fixture.forward({{.tokens = fixture.sequence(0).first(20), .position = 0, .pages = c, .logits_rows = 0}});
  const auto both =
      fixture.forward({{.tokens = fixture.sequence(0), .position = 0, .pages = a, .logits_rows = fixture.tokens},
                       {.tokens = fixture.sequence(0).subspan(20, 1), .position = 20, .pages = c, .logits_rows = 0},
                       {.tokens = fixture.sequence(1), .position = 0, .pages = b, .logits_rows = fixture.tokens}});
  std::vector<float> expected = first;
  expected.insert(expected.end(), second.begin(), second.end());
  expect_same_bits(expected, both);
}

TEST_P(Ways, ASharedPrefixIsAPrefixOfOnesOwn) {
  const auto prompt = fixture.sequence(0);
  const auto owner = Fixture::pages(0);
  const std::vector<float> whole = fixture.whole(prompt, owner);
  std::vector<int32_t> pages = Fixture::pages(16);
  pages[0] = owner[0];  // the first 32 tokens are the owner's
  pages[1] = owner[1];
  const auto rest = fixture.forward(
      {{.tokens = prompt.subspan(32), .position = 32, .pages = pages, .logits_rows = fixture.tokens - 32}});
  const size_t vocab = size_t(fixture.model->info().vocab_size);
  expect_same_bits({whole.begin() + long(32 * vocab), whole.end()}, rest);
}

}  // namespace
}  // namespace spillway::models
