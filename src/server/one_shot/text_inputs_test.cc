#include "server/one_shot/text_inputs.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>

namespace spillway::server {
namespace {

std::unique_ptr<text::Tokenizer> bert_tokenizer() {
  std::ifstream file(SPILLWAY_SOURCE_DIR "/tests/golden/tokenizer_bert/tokenizer.json", std::ios::binary);
  auto parsed = text::Tokenizer::parse(std::string(std::istreambuf_iterator<char>(file), {}));
  SW_CHECK(parsed.ok(), parsed.error().message);
  return std::move(parsed).value();
}

class TextInputsTest : public ::testing::Test {
 protected:
  void SetUp() override {
    folder_ =
        std::filesystem::path(::testing::TempDir()) / ::testing::UnitTest::GetInstance()->current_test_info()->name();
    std::filesystem::create_directories(folder_);
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  void write(const char* name, const char* text) { std::ofstream(folder_ / name) << text; }
  Result<std::unique_ptr<const TextInputs>> make(int tokens_max = 16) {
    return TextInputs::make(*tokenizer_, folder_.string(), tokens_max, 266);
  }

  std::unique_ptr<text::Tokenizer> tokenizer_ = bert_tokenizer();
  std::filesystem::path folder_;
};

std::string words(int count) {
  std::string text;
  for (int i = 0; i < count; ++i) text += "a ";
  return text;
}

TEST_F(TextInputsTest, GivesWhatTheTokenizersTemplateGives) {
  auto inputs = make();
  ASSERT_TRUE(inputs.ok()) << inputs.error().message;
  const auto one = (*inputs)->one("a 1", {});
  const text::Encoding expected = tokenizer_->encode("a 1");
  EXPECT_EQ(one->ids, expected.ids);
  EXPECT_EQ(one->type_ids, expected.type_ids);
  const auto pair = (*inputs)->pair("a 1", "2 2", {});
  const text::Encoding both = tokenizer_->encode_pair("a 1", "2 2");
  EXPECT_EQ(pair->ids, both.ids);
  EXPECT_EQ(pair->type_ids, both.type_ids);
}

TEST_F(TextInputsTest, CutsFromEitherSideAndKeepsTheSpecialTokens) {
  auto inputs = make(6);
  ASSERT_TRUE(inputs.ok());
  const auto ids = tokenizer_->encode("1 2 3 4 5 6", {.add_special_tokens = false}).ids;
  ASSERT_EQ(ids.size(), 6u);
  EXPECT_EQ((*inputs)->one("1 2 3 4 5 6", {}).error().code, "context_length_exceeded");
  const auto right = (*inputs)->one("1 2 3 4 5 6", {.cut = true});
  EXPECT_EQ(right->ids, (std::vector<int32_t>{2, ids[0], ids[1], ids[2], ids[3], 3}));
  const auto left = (*inputs)->one("1 2 3 4 5 6", {.cut = true, .from_left = true});
  EXPECT_EQ(left->ids, (std::vector<int32_t>{2, ids[2], ids[3], ids[4], ids[5], 3}));
  const auto shorter = (*inputs)->one("1 2 3 4 5 6", {.cut = true, .tokens_max = 4});
  EXPECT_EQ(shorter->ids, (std::vector<int32_t>{2, ids[0], ids[1], 3}));
}

TEST_F(TextInputsTest, OfAPairTheLongerTextLosesFirst) {
  auto inputs = make(11);  // room for 8 beside the three special tokens
  ASSERT_TRUE(inputs.ok());
  const auto lengths = [&](int first, int second) {
    const auto pair = (*inputs)->pair(words(first), words(second), {.cut = true});
    const auto types = pair->type_ids;
    const int of_second = int(std::count(types.begin(), types.end(), 1)) - 1;
    return std::pair(int(types.size()) - of_second - 3, of_second);
  };
  EXPECT_EQ(lengths(3, 4), (std::pair(3, 4)));
  EXPECT_EQ(lengths(2, 50), (std::pair(2, 6)));
  EXPECT_EQ(lengths(50, 2), (std::pair(6, 2)));
  EXPECT_EQ(lengths(50, 60), (std::pair(4, 4)));
  EXPECT_EQ((*inputs)->pair(words(50), words(1), {}).error().code, "context_length_exceeded");
}

TEST_F(TextInputsTest, SpecialTokensInATextAreText) {
  auto inputs = make();
  ASSERT_TRUE(inputs.ok());
  const auto ids = (*inputs)->one("[SEP]", {})->ids;
  EXPECT_EQ(std::count(ids.begin(), ids.end(), 3), 1);
}

TEST_F(TextInputsTest, ReadsPromptsAndLengths) {
  write("config_sentence_transformers.json",
        R"({"prompts": {"query": "q: ", "passage": "p: "}, "default_prompt_name": "query"})");
  write("sentence_bert_config.json", R"({"max_seq_length": 12, "do_lower_case": false})");
  write("tokenizer_config.json", R"({"model_max_length": 1000000000000000019884624838656})");
  auto inputs = make();
  ASSERT_TRUE(inputs.ok()) << inputs.error().message;
  EXPECT_EQ((*inputs)->tokens_max(), 12);
  EXPECT_EQ(*(*inputs)->prompt(""), "q: ");
  EXPECT_EQ(*(*inputs)->prompt("passage"), "p: ");
  EXPECT_NE((*inputs)->prompt("other").error().message.find("(passage, query), found \"other\""), std::string::npos);
  EXPECT_EQ((*inputs)->any(std::string("1"), "2 ", {})->ids, tokenizer_->encode("2 1").ids);
  write("config_sentence_transformers.json", R"({"prompts": {}, "default_prompt_name": "query"})");
  EXPECT_FALSE(make().ok());
}

}  // namespace
}  // namespace spillway::server
