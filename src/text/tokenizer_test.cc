#include "text/tokenizer.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <fstream>
#include <iterator>

#include "text/tokenizer_verify.h"

namespace spillway::text {
namespace {

std::string read_file(const std::string& path) {
  std::ifstream in(std::string(SPILLWAY_SOURCE_DIR "/tests/golden/") + path, std::ios::binary);
  std::string bytes((std::istreambuf_iterator<char>(in)), {});
  EXPECT_FALSE(bytes.empty()) << path;
  return bytes;
}

void expect_golden(const std::string& folder, int checks_a_case) {
  const auto report = verify_tokenizer(read_file(folder + "/tokenizer.json"), read_file(folder + "/expected.json"));
  ASSERT_TRUE(report.ok()) << report.error().message;
  EXPECT_GE(report->cases.size(), 30u);
  EXPECT_EQ(report->checks, checks_a_case * int(report->cases.size()));
  for (const auto& one : report->cases) {
    for (const auto& failure : one.failures) ADD_FAILURE() << folder << " \"" << one.text << "\": " << failure;
  }
}

TEST(TokenizerGolden, Bert) { expect_golden("tokenizer_bert", 4); }
TEST(TokenizerGolden, Deepseek) { expect_golden("tokenizer_deepseek", 4); }
TEST(TokenizerGolden, Qwen2) { expect_golden("tokenizer_qwen2", 4); }

}  // namespace
}  // namespace spillway::text
