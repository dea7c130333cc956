// tiny-r1's multi-token-prediction layer: how often it says the token that the model then takes, over its own greedy
// output.
#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>

#include "models/loader.h"

namespace spillway::models {
namespace {

// One question of evaluation.json a task, as tokenizer.json and the chat template give it.
const std::vector<std::vector<int32_t>> kPrompts = {
    {0, 3, 39, 359, 227, 26, 303, 227, 29, 31, 20, 4, 5, 205},
    {0, 3, 309, 298, 227, 30, 23, 30, 28, 28, 281, 227, 30, 28, 26, 27, 37, 4, 5, 205},
    {0, 3, 28, 28, 301, 227, 26, 29, 282, 227, 37, 4, 5, 205},
    {0, 3, 31, 27, 20, 31, 168, 247, 241, 24, 20, 27, 29, 168, 248, 110, 416, 474, 37, 4, 5, 205},
    {0, 3, 321, 323, 424, 480, 336, 300, 227, 8, 89, 294, 92, 294, 8, 37, 4, 5, 205},
    {0, 3, 56, 75, 92, 294, 89, 75, 354, 429, 74, 275, 90, 459, 378, 385, 20, 4, 5, 205},
    {0,  3,  406, 407, 300, 386, 340, 32, 227, 23, 30, 23, 18, 227, 23,
     28, 24, 18,  227, 23,  22,  31,  18, 227, 23, 26, 29, 4,  5,   205},
    {0,   3,   47,  92, 95,  452, 227, 27,  304, 78, 351, 89, 303, 344,
     318, 285, 227, 24, 451, 20,  363, 323, 453, 37, 4,   5,  205},
    {0, 3, 309, 343, 298, 227, 24, 30, 420, 450, 227, 468, 37, 4, 5, 205},
    {0, 3, 167, 128, 261, 169, 253, 114, 171, 115, 230, 37, 4, 5, 205},
};
constexpr int32_t kEos = 1;

struct Agreement {
  int drafts = 0;
  int agreed = 0;
  std::vector<int32_t> tokens;
};

class TinyR1 : public testing::TestWithParam<PrecisionChoice> {
 protected:
  TinyR1() {
    auto loaded = load_model(
        {.path = SPILLWAY_SOURCE_DIR "/models/tiny-r1", .precision = GetParam(), .device = {}, .progress = {}});
    EXPECT_TRUE(loaded.ok()) << loaded.error().message;
    model_ = std::move(*loaded);
    auto kv = nn::KvStorage::create(model_->info().kv, 16, 64, {});
    EXPECT_TRUE(kv.ok());
    kv_.emplace(std::move(*kv));
    pages_.resize(64);
    std::iota(pages_.begin(), pages_.end(), 0);
  }

  int32_t best(tensor::TensorView logits, int row = 0) const {
    const float* values = logits.as<float>() + int64_t(row) * model_->info().vocab_size;
    return int32_t(std::max_element(values, values + model_->info().vocab_size) - values);
  }

  // Greedy decoding, with a draft after each step that is only compared.
  Agreement decode(std::vector<int32_t> tokens) {
    Agreement result;
    int32_t position = 0, drafted = -1;
    while (tokens.size() < 400 && tokens.back() != kEos) {
      const auto slice = std::span(std::as_const(tokens)).subspan(size_t(position));
      const SequenceInput input{.tokens = slice, .position = position, .pages = pages_, .logits_rows = 1};
      const int32_t next = best(model_->forward(std::span(&input, 1), *kv_, stream_));
      result.drafts += drafted >= 0;
      result.agreed += drafted == next;
      std::vector<int32_t> followers(slice.begin() + 1, slice.end());
      followers.push_back(next);
      const DraftInput draft{.sequence = 0, .next_tokens = followers, .logits = true};
      drafted = best(model_->draft(std::span(&draft, 1), *kv_, stream_));
      position = int32_t(tokens.size());
      tokens.push_back(next);
    }
    result.tokens = std::move(tokens);
    return result;
  }

  // The same tokens by verifying each draft in the step that follows it, as an engine does.
  std::vector<int32_t> decode_speculatively(std::vector<int32_t> tokens) {
    int32_t position = 0;
    std::vector<int32_t> slice = tokens;
    bool has_draft = false;
    while (tokens.size() < 400 && tokens.back() != kEos) {
      const SequenceInput input{
          .tokens = slice, .position = position, .pages = pages_, .logits_rows = has_draft ? 2 : 1};
      const tensor::TensorView logits = model_->forward(std::span(&input, 1), *kv_, stream_);
      std::vector<int32_t> accepted = {best(logits)};
      if (has_draft && accepted[0] == slice.back() && accepted[0] != kEos) accepted.push_back(best(logits, 1));
      // Rows that hold: all but a refused draft's.
      const size_t used = slice.size() - (has_draft && accepted.size() == 1 ? 1 : 0);
      std::vector<int32_t> followers(slice.begin() + 1, slice.begin() + long(used));
      followers.push_back(accepted.back());
      const DraftInput draft{.sequence = 0, .next_tokens = followers, .logits = true};
      const int32_t drafted = best(model_->draft(std::span(&draft, 1), *kv_, stream_));
      tokens.insert(tokens.end(), accepted.begin(), accepted.end());
      position = int32_t(tokens.size()) - 1;
      slice = {tokens.back(), drafted};
      has_draft = true;
    }
    return tokens;
  }

  std::unique_ptr<LanguageModel> model_;
  std::optional<nn::KvStorage> kv_;
  tensor::Stream stream_{2};
  std::vector<int32_t> pages_;
};

INSTANTIATE_TEST_SUITE_P(Precisions, TinyR1,
                         testing::Values(PrecisionChoice::kFp32, PrecisionChoice::kBf16, PrecisionChoice::kInt8),
                         [](const auto& info) { return std::to_string(int(info.param)); });

TEST_P(TinyR1, DraftsAreWhatTheModelThenSays) {
  ASSERT_EQ(model_->info().draft_tokens_max, 1);
  int drafts = 0, agreed = 0;
  for (const auto& prompt : kPrompts) {
    const Agreement result = decode(prompt);
    EXPECT_EQ(result.tokens.back(), kEos);
    drafts += result.drafts;
    agreed += result.agreed;
  }
  EXPECT_GT(drafts, 300);
  EXPECT_GE(agreed, 0.95 * drafts) << agreed << " of " << drafts;
}

TEST_P(TinyR1, VerifiedDraftsGiveTheSameTokens) {
  for (const auto& prompt : std::span(kPrompts).first(3)) {
    const std::vector<int32_t> expected = decode(prompt).tokens, found = decode_speculatively(prompt);
    EXPECT_EQ(found, expected);
  }
}

}  // namespace
}  // namespace spillway::models
