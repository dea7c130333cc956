#include "text/tokenizer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <boost/json/parse.hpp>
#include <boost/json/serialize.hpp>
#include <fstream>
#include <iterator>

#include "text/tokenizer_verify.h"

namespace spillway::text {
namespace {

namespace json = boost::json;

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

// One component after the other, against the reference: normalizers, split behaviours, decoders, added-token options,
// ...
TEST(TokenizerGolden, Components) {
  const json::value file = json::parse(read_file("tokenizer_components/cases.json"));
  const json::array& cases = file.at("cases").as_array();
  EXPECT_GE(cases.size(), 80u);
  for (const json::value& one : cases) {
    json::value tokenizer = file.at("bases").at(one.at("base").as_string());
    for (const auto& item : one.at("override").as_object()) tokenizer.as_object()[item.key()] = item.value();
    for (const auto& item : one.at("model").as_object()) tokenizer.at("model").as_object()[item.key()] = item.value();
    const auto report = verify_tokenizer(json::serialize(tokenizer), json::serialize(one.at("expected")));
    ASSERT_TRUE(report.ok()) << one.at("name") << report.error().message;
    for (const auto& text : report->cases) {
      for (const auto& failure : text.failures)
        ADD_FAILURE() << one.at("name") << " \"" << text.text << "\": " << failure;
    }
  }
}

std::unique_ptr<Tokenizer> deepseek() {
  auto tokenizer = Tokenizer::parse(read_file("tokenizer_deepseek/tokenizer.json"));
  EXPECT_TRUE(tokenizer.ok()) << tokenizer.error().message;
  return std::move(tokenizer).value();
}

TEST(Tokenizer, AddedTokensOfUsersAreText) {
  const auto tokenizer = deepseek();
  const std::string text = "<think>x</think>";
  EXPECT_EQ(tokenizer->encode(text).ids.front(), tokenizer->id_of("<think>"));
  const auto plain = tokenizer->encode(text, {.parse_added_tokens = false}).ids;
  for (const int32_t id : plain) EXPECT_FALSE(tokenizer->is_added(id));
  EXPECT_EQ(tokenizer->decode(plain, true), text);
}

TEST(Tokenizer, KnowsItsTokens) {
  const auto tokenizer = deepseek();
  EXPECT_EQ(tokenizer->token_bytes(*tokenizer->id_of("\u0120t")), " t");
  EXPECT_EQ(tokenizer->token_bytes(*tokenizer->id_of("<think>")), "<think>");
  EXPECT_EQ(tokenizer->token_bytes(-1), "");
  EXPECT_EQ(tokenizer->token_bytes(1'000'000), "");
  EXPECT_EQ(tokenizer->id_of("not a token"), std::nullopt);
  EXPECT_EQ(tokenizer->decode({-1, 1'000'000}, false), "");
  EXPECT_EQ(tokenizer->vocab_size(), 578);
  EXPECT_TRUE(tokenizer->is_special(0));
  EXPECT_FALSE(tokenizer->is_special(40));
}

TEST(Tokenizer, BadUtf8IsRepaired) {
  const auto tokenizer = deepseek();
  const auto ids = tokenizer->encode("a\xFF\xE4\xBD z").ids;
  EXPECT_EQ(tokenizer->decode(ids, true), "a\uFFFD\uFFFD z");
}

TEST(Tokenizer, LongPiecesMergeAsShortOnes) {
  const auto tokenizer = deepseek();
  std::string text;
  for (int i = 0; i < 20'000; ++i) text += "the";
  const auto ids = tokenizer->encode(text).ids;
  EXPECT_EQ(tokenizer->decode(ids, true), text);
  const auto brief = tokenizer->encode("thethethe").ids;
  EXPECT_TRUE(std::equal(brief.begin(), brief.end() - 1, ids.begin()));
}

TEST(Tokenizer, ErrorsNameTheirPlace) {
  const auto message = [](const std::string& text) {
    auto result = Tokenizer::parse(text);
    return result.ok() ? std::string("parsed") : result.error().message;
  };
  EXPECT_EQ(message("[]"), "expected an object at $, found an array");
  EXPECT_THAT(message("{\"model\": {"), testing::HasSubstr("expected JSON, found a fault at byte"));
  EXPECT_EQ(message("{}"), "expected an object at $.model, found nothing");
  EXPECT_THAT(message(R"({"model":{"type":"Unigram"}})"), testing::HasSubstr("at $.model.type, found \"Unigram\""));
  EXPECT_THAT(message(R"({"normalizer":{"type":"Sequence","normalizers":[{"type":"Precompiled"}]},"model":{}})"),
              testing::HasSubstr("at $.normalizer.normalizers[0].type, found \"Precompiled\""));
  EXPECT_EQ(message(R"({"model":{"type":"BPE","vocab":{"a":0,"b":-1},"merges":[]}})"),
            "expected an id of its own below 4194304 at $.model.vocab.b, found -1");
  EXPECT_EQ(message(R"({"model":{"type":"BPE","vocab":{"a":0,"b":1},"merges":["a b"]}})"),
            "expected tokens of the vocabulary at $.model.merges[0], found \"ab\"");
  EXPECT_THAT(
      message(R"({"pre_tokenizer":{"type":"Split","pattern":{"Regex":"(a"},"behavior":"Isolated"},"model":{}})"),
      testing::HasSubstr("$.pre_tokenizer.pattern.Regex: regex: "));
}

std::string stream(const Tokenizer& tokenizer, const std::vector<int32_t>& ids,
                   std::vector<std::string>* parts = nullptr) {
  Detokenizer detokenizer(tokenizer, true);
  std::string out;
  for (const int32_t id : ids) {
    const std::string part = detokenizer.push(id);
    if (parts) parts->push_back(part);
    out += part;
  }
  return out + detokenizer.finish();
}

TEST(Detokenizer, GivesWholeCharacters) {
  const auto tokenizer = deepseek();
  const auto ids = tokenizer->encode("a\u6570b", {.add_special_tokens = false}).ids;
  ASSERT_EQ(ids.size(), 5u);  // the character is three tokens
  std::vector<std::string> parts;
  EXPECT_EQ(stream(*tokenizer, ids, &parts), "a\u6570b");
  EXPECT_THAT(parts, testing::ElementsAre("a", "", "", "\u6570", "b"));
  EXPECT_EQ(stream(*tokenizer, {ids[0], ids[1], ids[2]}), "a\uFFFD");
  EXPECT_EQ(stream(*tokenizer, {ids[1], ids[0], 0, ids[4]}), "\uFFFDab");
}

TEST(Detokenizer, EqualsDecodeOnAnyIds) {
  const auto tokenizer = deepseek();
  uint32_t random = 1;
  for (int round = 0; round < 2000; ++round) {
    std::vector<int32_t> ids(1 + random % 12);
    for (int32_t& id : ids) {
      random = random * 1664525u + 1013904223u;
      id = int32_t((random >> 8) % 600) - 5;
    }
    EXPECT_EQ(stream(*tokenizer, ids), tokenizer->decode(ids, true));
  }
}

}  // namespace
}  // namespace spillway::text
