#include "gateway/policies/prompt_scan.h"

#include <gtest/gtest.h>

#include <algorithm>

namespace spillway::gateway {
namespace {

RequestFeatures scan(std::initializer_list<std::pair<std::string, std::string>> pieces, uint64_t salt = 0) {
  PromptScan scan(salt);
  for (const auto& [role, text] : pieces) scan.add(role, text);
  RequestFeatures features;
  scan.finish(features);
  return features;
}

std::string repeat(std::string_view text, int times) {
  std::string all;
  for (int i = 0; i < times; ++i) all += text;
  return all;
}

TEST(PromptScan, TokensAreAboutRightInEveryScript) {
  // The tokens that DeepSeek-V3's tokenizer gives these texts, within a third.
  EXPECT_NEAR(
      static_cast<double>(scan({{"user", repeat("The quick brown fox jumps over the lazy dog. ", 100)}}).prompt_tokens),
      1001, 450);
  EXPECT_NEAR(static_cast<double>(scan({{"user", repeat("今天天气很好，我们去公园散步吧。", 100)}}).prompt_tokens),
              1000, 334);
  EXPECT_EQ(scan({}).prompt_tokens, 0);
  EXPECT_EQ(scan({{"user", ""}}).prompt_tokens, 4);
}

TEST(PromptScan, LanguageByScript) {
  EXPECT_EQ(scan({}).language, "");
  EXPECT_EQ(scan({{"user", "Hello, what is the naïve answer to the café question?"}}).language, "latin");
  EXPECT_EQ(scan({{"user", "今天天气很好，我们去公园散步吧。"}}).language, "zh");
  EXPECT_EQ(scan({{"user", "Please translate: 今天天气很好我们去公园"}}).language, "zh");
  EXPECT_EQ(scan({{"user", "きょうはとてもいい天気ですね。公園へ行きましょう。"}}).language, "ja");
  EXPECT_EQ(scan({{"user", "오늘 날씨가 아주 좋네요. 공원에 갑시다."}}).language, "ko");
  EXPECT_EQ(scan({{"user", "Сегодня очень хорошая погода, пойдём в парк."}}).language, "ru");
  EXPECT_EQ(scan({{"user", "الطقس جميل جدا اليوم"}}).language, "ar");
  EXPECT_EQ(scan({{"user", "שלום עולם, מה שלומך היום"}}).language, "other");
}

TEST(PromptScan, EqualBeginningsHaveEqualBlocks) {
  const std::string system = repeat("You are a helpful assistant that answers briefly. ", 60);
  const auto a = scan({{"system", system}, {"user", repeat("first question ", 100)}}).prefix_blocks;
  const auto b = scan({{"system", system}, {"user", repeat("second question ", 100)}}).prefix_blocks;
  ASSERT_GT(a.size(), system.size() / kPrefixBlockBytes);
  const auto differ = std::mismatch(a.begin(), a.end(), b.begin()).first - a.begin();
  EXPECT_EQ(static_cast<size_t>(differ), (system.size() + 8) / kPrefixBlockBytes);
  // Once they differ they differ to the end, and other models' blocks are others from the first on.
  for (size_t i = static_cast<size_t>(differ); i < std::min(a.size(), b.size()); ++i) EXPECT_NE(a[i], b[i]);
  EXPECT_NE(scan({{"system", system}}, prefix_salt("m2")).prefix_blocks[0],
            scan({{"system", system}}, prefix_salt("m1")).prefix_blocks[0]);
}

TEST(PromptScan, PiecesDoNotRunTogether) {
  const std::string long_text = repeat("x", 4000);
  const auto one = scan({{"user", long_text + long_text}}).prefix_blocks;
  const auto two = scan({{"user", long_text}, {"user", long_text}}).prefix_blocks;
  EXPECT_NE(one.back(), two.back());
  const auto system = scan({{"system", long_text}}).prefix_blocks, user = scan({{"user", long_text}}).prefix_blocks;
  EXPECT_NE(system[0], user[0]);
}

TEST(PromptScan, BlocksAreBounded) {
  const auto features = scan({{"user", std::string(8 << 20, 'a')}});
  EXPECT_EQ(features.prefix_blocks.size(), kPrefixBlocksMax);
  EXPECT_NEAR(features.tokens_per_block, 0.3 * kPrefixBlockBytes, 1);
}

}  // namespace
}  // namespace spillway::gateway
