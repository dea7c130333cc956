#include "text/grammar.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <boost/json/parse.hpp>
#include <fstream>
#include <iterator>
#include <random>

#include "text/json_schema_validate_test.h"

namespace spillway::text {
namespace {

namespace json = boost::json;

class GrammarWalk : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    std::ifstream in(SPILLWAY_SOURCE_DIR "/tests/golden/tokenizer_deepseek/tokenizer.json", std::ios::binary);
    const std::string bytes((std::istreambuf_iterator<char>(in)), {});
    tokenizer_ = Tokenizer::parse(bytes).value().release();
    trie_ = TokenTrie::build(*tokenizer_, kVocabulary, {kEnd});
  }
  static void TearDownTestSuite() {
    trie_.reset();
    delete tokenizer_;
  }

  static constexpr int kVocabulary = 600;  // padded, as models do
  static constexpr int32_t kEnd = 1;

  static std::vector<int32_t> allowed(GrammarState& state) {
    std::vector<uint64_t> words((kVocabulary + 63) / 64, ~uint64_t(0));
    state.allowed(words);
    std::vector<int32_t> out;
    for (int32_t t = 0; t < int32_t(words.size()) * 64; ++t) {
      if (words[size_t(t) / 64] >> (t % 64) & 1) out.push_back(t);
    }
    return out;
  }

  // The token that brings the output towards its end.
  static int32_t closing(const std::vector<int32_t>& tokens) {
    for (const std::string_view want : {"\"", "}", "]", "0", "n", "t", "f", "[", "{", ":", ",", "<"}) {
      for (const int32_t token : tokens) {
        if (tokenizer_->token_bytes(token) == want) return token;
      }
    }
    return tokens.back();
  }

  // Random tokens for a while, then whatever closes.
  static std::string walk(const std::shared_ptr<const Grammar>& grammar, uint32_t seed, int random_steps) {
    std::mt19937 random(seed);
    auto state = GrammarState::start(grammar, trie_);
    std::string text;
    for (int step = 0; step < 3000; ++step) {
      if (step % 7 == 3) state = state->clone();
      const std::vector<int32_t> tokens = allowed(*state);
      if (tokens.empty()) {
        ADD_FAILURE() << "nothing allowed after " << text;
        return text;
      }
      const bool may_end = std::find(tokens.begin(), tokens.end(), kEnd) != tokens.end();
      EXPECT_EQ(may_end, state->complete());
      if (may_end && (step >= random_steps || random() % 4 == 0)) return text;
      int32_t token = step < random_steps ? tokens[random() % tokens.size()] : closing(tokens);
      if (token == kEnd) return text;
      text += tokenizer_->token_bytes(token);
      state->accept(token);
    }
    ADD_FAILURE() << "no end: " << text.substr(0, 500);
    return text;
  }

  static inline const Tokenizer* tokenizer_ = nullptr;
  static inline std::shared_ptr<const TokenTrie> trie_;
};

json::value parse(const std::string& text) {
  boost::system::error_code error;
  json::parse_options options;
  options.max_depth = 200;
  json::value value = json::parse(text, error, {}, options);
  EXPECT_FALSE(error) << text;
  return value;
}

TEST_F(GrammarWalk, AnyJsonParses) {
  const auto value = Grammar::json_value().value();
  const auto object = Grammar::json_object().value();
  for (uint32_t seed = 0; seed < 60; ++seed) {
    parse(walk(value, seed, 40));
    EXPECT_TRUE(parse(walk(object, seed, 60)).is_object());
  }
}

const char* const kSchemas[] = {
    R"({"type":"object","properties":{"a":{"type":"string"},"b":{"type":"integer"}},"required":["a","b"],"additionalProperties":false})",
    R"({"type":"object","properties":{"a":{"type":"string"},"b":{"type":"integer"},"c":{"type":"boolean"}},"required":["b"]})",
    R"({"type":"object","properties":{"ab":{"type":"integer"},"b":{"type":"null"}},"additionalProperties":{"type":"string"}})",
    R"({"type":"object","additionalProperties":{"type":"array","items":{"type":"number"}}})",
    R"({"type":"array","items":{"type":"string","minLength":2,"maxLength":5},"minItems":1,"maxItems":3})",
    R"({"type":"array","prefixItems":[{"type":"string"},{"type":"integer"}],"items":{"type":"null"},"minItems":1})",
    R"({"type":"array","items":{"enum":["x","y",1,null,{"k":[1]}]},"minItems":2})",
    R"({"type":["string","null"]})",
    R"({"type":"integer","minimum":-12,"maximum":345})",
    R"({"type":"integer","exclusiveMinimum":0})",
    R"({"type":"number","minimum":0,"maximum":1})",
    R"({"type":"number","exclusiveMinimum":-3,"exclusiveMaximum":10})",
    R"({"type":"number","exclusiveMaximum":-7})",
    R"({"type":"string","pattern":"^[A-Z]{2,3}-\\d+(foo|ba[rz])?$"})",
    R"({"type":"string","pattern":"^a.c\\\\[^x\"]$"})",
    R"({"type":"string","pattern":"a?\\}"})",
    R"({"type":"string","format":"date-time"})",
    R"({"const":{"a":[true,"x"]}})",
    R"({"anyOf":[{"type":"integer"},{"type":"object","properties":{"k":{"const":1}},"required":["k"]}]})",
    R"({"type":"object","oneOf":[{"properties":{"p":{"const":"a"}},"required":["p"]},{"properties":{"q":{"type":"integer"}},"required":["q"]}]})",
    R"({"allOf":[{"type":"object","properties":{"a":{"type":"integer"}},"required":["a"]},{"properties":{"b":{"type":"string"}},"required":["b"]}]})",
    R"({"$defs":{"n":{"type":"object","properties":{"v":{"type":"integer"},"next":{"anyOf":[{"$ref":"#/$defs/n"},{"type":"null"}]}},"required":["v","next"]}},"$ref":"#/$defs/n"})",
    R"({"type":"object","properties":{"children":{"type":"array","items":{"$ref":"#"}}},"required":["children"]})",
    R"({"type":"object","properties":{"x":{"type":"string","nullable":true},"y":{}},"required":["x","y"]})",
    R"({"type":"object","required":["z"]})",
    R"({"minItems":2,"maxItems":2,"items":{"type":"boolean"}})",
};

TEST_F(GrammarWalk, SchemasConform) {
  for (const char* const text : kSchemas) {
    const json::value schema = json::parse(text);
    const auto grammar = Grammar::json_schema(schema);
    ASSERT_TRUE(grammar.ok()) << text << ": " << grammar.error().message;
    for (uint32_t seed = 0; seed < 25; ++seed) {
      const std::string out = walk(*grammar, seed, int(seed) * 3);
      EXPECT_TRUE(conforms(parse(out), schema, schema)) << text << "\n" << out;
      EXPECT_TRUE((*grammar)->matches(out)) << out;
    }
  }
}

const char* const kTools = R"([
  {"type":"function","function":{"name":"weather","parameters":{"type":"object","properties":{"city":{"type":"string"}},"required":["city"]}}},
  {"type":"function","function":{"name":"now"}}])";

TEST_F(GrammarWalk, ToolCallsAreWhatTheParserReads) {
  const json::value tools = json::parse(kTools);
  const auto make = [&](ToolStyle style, const char* name) {
    return Grammar::tool_calls(style, tools, {.name = name, .parallel = true}).value();
  };
  EXPECT_TRUE(make(ToolStyle::kHermes, "")
                  ->matches("<tool_call>\n{\"name\": \"weather\", \"arguments\": {\"city\": \"Rome\"}}\n</tool_call>\n"
                            "<tool_call>\n{\"name\": \"now\", \"arguments\": {}}\n</tool_call>"));
  EXPECT_FALSE(
      make(ToolStyle::kHermes, "now")
          ->matches("<tool_call>\n{\"name\": \"weather\", \"arguments\": {\"city\": \"Rome\"}}\n</tool_call>"));
  // A function without parameters takes none.
  EXPECT_TRUE(make(ToolStyle::kLlama, "now")->matches("{\"name\": \"now\", \"parameters\": {}}"));
  EXPECT_FALSE(make(ToolStyle::kLlama, "now")->matches("{\"name\": \"now\", \"parameters\": {\"a\": 1}}"));
  EXPECT_TRUE(make(ToolStyle::kLlama, "")->matches("{\"name\": \"weather\", \"parameters\": {\"city\":\"Rome\"}}"));
  EXPECT_FALSE(make(ToolStyle::kLlama, "")->matches("{\"name\": \"weather\", \"parameters\": {\"town\":\"Rome\"}}"));
  EXPECT_TRUE(make(ToolStyle::kDeepseek, "")
                  ->matches("<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>weather\n```json\n{"
                            "\"city\": \"Rome\"}\n```"
                            "<｜tool▁call▁end｜><｜tool▁calls▁end｜>"));
  for (const ToolStyle style : {ToolStyle::kHermes, ToolStyle::kDeepseek, ToolStyle::kLlama}) {
    const auto grammar = make(style, "weather");
    for (uint32_t seed = 0; seed < 10; ++seed) EXPECT_TRUE(grammar->matches(walk(grammar, seed, 200)));
  }
  EXPECT_EQ(Grammar::tool_calls(ToolStyle::kLlama, tools, {.name = "x"}).error().message,
            "expected a tool named \"x\" at tools, found none");
  EXPECT_EQ(Grammar::tool_calls(ToolStyle::kLlama, json::array(), {}).error().message,
            "expected a tool at tools, found none");
}

TEST(GrammarTools, StrictOnesKeepTheirSchemasWhereCallsAreNotRequired) {
  const json::value tools = json::parse(
      R"([{"type":"function","function":{"name":"f","strict":true,"parameters":{"type":"object","additionalProperties":false,)"
      R"("properties":{"a":{"type":"integer"}},"required":["a"]}}},)"
      R"({"type":"function","function":{"name":"g","parameters":{"type":"object","minProperties":1}}}])");
  const auto grammar = [&](ToolStyle style) {
    return Grammar::tool_calls(style, tools, {.name = "", .parallel = true, .required = false}).value();
  };
  const auto hermes = grammar(ToolStyle::kHermes);
  const std::string good = "<tool_call>\n{\"name\": \"f\", \"arguments\": {\"a\": 1}}\n</tool_call>";
  const std::string other = "<tool_call>\n{\"name\": \"g\", \"arguments\": {\"any\": []}}\n</tool_call>";
  for (const std::string& text :
       {std::string(), std::string("It is <b>5</b> <tool_cal"), "Well. " + good, good + "\n" + other})
    EXPECT_TRUE(hermes->matches(text)) << text;
  for (const std::string& text :
       {good.substr(0, 20), std::string("<tool_call>\n{\"name\": \"f\", \"arguments\": {}}\n</tool_call>"),
        good + " and"})
    EXPECT_FALSE(hermes->matches(text)) << text;
  const auto deepseek = grammar(ToolStyle::kDeepseek);
  const std::string begin = "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>f\n```json\n";
  const std::string end = "\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>";
  EXPECT_TRUE(deepseek->matches("text"));
  EXPECT_TRUE(deepseek->matches("text" + begin + "{\"a\": 1}" + end));
  EXPECT_FALSE(deepseek->matches("text" + begin + "{\"a\": \"1\"}" + end));
  const auto llama = grammar(ToolStyle::kLlama);
  for (const char* const text :
       {"", "Hello {", " {\"name\": \"f\", \"parameters\": {\"a\": 1}}", "{\"name\": \"g\", \"parameters\": {}}",
        "<|python_tag|>{\"name\": \"f\", \"parameters\": {\"a\": 1}}"})
    EXPECT_TRUE(llama->matches(text)) << text;
  for (const char* const text : {"{", "{\"name\": \"f\", \"parameters\": {}}", "{\"x\": 1}"})
    EXPECT_FALSE(llama->matches(text)) << text;
}

TEST_F(GrammarWalk, ConstrainsAfterTheMarker) {
  const auto grammar = Grammar::after_marker(Grammar::json_object().value(), "</think>");
  EXPECT_TRUE(grammar->matches("any <text> </thin</think>\n\n{}"));
  EXPECT_TRUE(grammar->matches("</think>{\"a\": 1}"));
  EXPECT_FALSE(grammar->matches("</think>x{}"));
  EXPECT_FALSE(grammar->matches("{}"));
  auto state = GrammarState::start(grammar, trie_);
  EXPECT_EQ(int(allowed(*state).size()), tokenizer_->vocab_size() - 2);  // all but the end and the byte no text has
  state->accept(*tokenizer_->id_of("</think>"));                         // a special token
  for (const int32_t token : allowed(*state)) {
    EXPECT_THAT(std::string(tokenizer_->token_bytes(token)), testing::MatchesRegex("[ \n{\"]+.*"));
  }
}

TEST_F(GrammarWalk, SpecialTokensStayOutOfStrings) {
  auto state = GrammarState::start(Grammar::json_value().value(), trie_);
  state->accept(*tokenizer_->id_of("\""));
  for (const int32_t token : allowed(*state)) EXPECT_FALSE(tokenizer_->is_special(token));
}

// Byte-level vocabularies have a token for the byte 0xFF, which stands before special tokens in the trie.
TEST_F(GrammarWalk, TheByteOfNoTextIsNotHalfASpecialToken) {
  const std::optional<int32_t> stray = tokenizer_->id_of("ÿ");  // as byte-level BPE writes 0xFF
  ASSERT_TRUE(stray);
  ASSERT_EQ(tokenizer_->token_bytes(*stray), "\xFF");
  const json::value tools =
      json::parse(R"([{"type":"function","function":{"name":"f","parameters":{"type":"object"}}}])");
  for (const ToolStyle style : {ToolStyle::kDeepseek, ToolStyle::kHermes}) {
    auto state = GrammarState::start(Grammar::tool_calls(style, tools, {}).value(), trie_);
    EXPECT_THAT(allowed(*state), testing::Not(testing::Contains(*stray)));
  }
}

}  // namespace
}  // namespace spillway::text
