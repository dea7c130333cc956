#include "api/completions.h"

#include <gmock/gmock.h>

#include <boost/json/parse.hpp>

namespace spillway::api {
namespace {

namespace json = boost::json;
using namespace std::string_view_literals;
using testing::ElementsAre;

std::vector<Prompt> prompts(const std::string& prompt) {
  auto request = parse_completion_request("{\"prompt\":" + prompt + "}");
  EXPECT_TRUE(request.ok()) << prompt << ": " << (request.ok() ? "" : request.error().message);
  return request.ok() ? request->prompts : std::vector<Prompt>{};
}

std::string param(const std::string& body) {
  const auto request = parse_completion_request(body);
  EXPECT_FALSE(request.ok()) << body;
  return request.ok() ? "" : request.error().param;
}

TEST(CompletionRequest, PromptForms) {
  EXPECT_THAT(prompts(R"("a")"), ElementsAre(Prompt("a")));
  EXPECT_THAT(prompts(R"(["a","b"])"), ElementsAre(Prompt("a"), Prompt("b")));
  EXPECT_THAT(prompts("[1,2,3]"), ElementsAre(Prompt(std::vector<int32_t>{1, 2, 3})));
  EXPECT_THAT(prompts("[[1],[2,3]]"), ElementsAre(Prompt(std::vector<int32_t>{1}), Prompt(std::vector<int32_t>{2, 3})));
  for (const std::string bad : {"{}", "5", "[]", "[[]]", "[-1]", "[1.5]", "[true]", "[{\"a\":1}]", "null"}) {
    EXPECT_EQ(param("{\"prompt\":" + bad + "}"), "prompt") << bad;
  }
  EXPECT_EQ(param("{}"), "prompt");
}

TEST(CompletionRequest, Fields) {
  auto request = parse_completion_request(
      R"({"model":"m","prompt":"a","suffix":null,"echo":true,"logprobs":5,"max_tokens":0,"temperature":0,"stop":["x"],"n":2,"best_of":2,
          "stream":true,"stream_options":{"include_usage":true},"add_special_tokens":false,"user":"u"})"sv);
  ASSERT_TRUE(request.ok()) << request.error().message;
  EXPECT_TRUE(request->echo);
  EXPECT_EQ(request->logprobs, 5);
  EXPECT_EQ(request->sampling.max_tokens, 0);
  EXPECT_FALSE(request->suffix.has_value());
  EXPECT_FALSE(request->add_special_tokens);
  EXPECT_TRUE(request->stream.include_usage);
  EXPECT_EQ(parse_completion_request(R"({"prompt":"a","suffix":"b"})"sv)->suffix, "b");
  EXPECT_EQ(param(R"({"prompt":"a","max_tokens":0})"), "max_tokens");
  EXPECT_EQ(param(R"({"prompt":"a","logprobs":21})"), "logprobs");
  EXPECT_EQ(param(R"({"prompt":"a","logprobs":true})"), "logprobs");
  EXPECT_EQ(param(R"({"prompt":"a","best_of":3})"), "best_of");
  EXPECT_EQ(param(R"({"prompt":"a","suffix":"b","echo":true})"), "echo");
}

const ResponseHead kHead{"cmpl-1", 5, "m", ""};
const Usage kUsage{3, 0, 2, 0, 0, 0};

TEST(CompletionResponse, WholeBodyWithLogprobs) {
  CompletionChoice choice;
  choice.text = "a b";
  choice.logprobs =
      std::vector<CompletionLogprob>{{{"a", 0, {}}, false, 0}, {{" b", -0.25f, {{" b", -0.25f}, {" c", -2}}}, true, 1}};
  choice.finish_reason = FinishReason::kLength;
  const json::value body = json::parse(completion_response(kHead, {choice}, kUsage));
  EXPECT_EQ(body.at("object"), "text_completion");
  EXPECT_EQ(body.at("choices"), json::parse(R"([{"index":0,"text":"a b","finish_reason":"length",
    "logprobs":{"tokens":["a"," b"],"token_logprobs":[null,-0.25],"top_logprobs":[null,{" b":-0.25," c":-2.0}],"text_offset":[0,1]}}])"));
  EXPECT_EQ(body.at("usage").at("total_tokens"), 5);
}

TEST(CompletionResponse, TopLogprobsNameEveryTokenAndTheOneItself) {
  CompletionChoice choice;
  choice.logprobs = std::vector<CompletionLogprob>{
      {{"\xE2\x82", -9, {{"\xF0", -0.5f}, {"\xF1", -1}}}, true, 0},  // parts of characters
      {{"x", -3, {}}, true, 0},                                      // logprobs: 0
  };
  const json::value body = json::parse(completion_response(kHead, {choice}, kUsage));
  EXPECT_EQ(body.at("choices").at(0).at("logprobs").at("tokens"), json::parse(R"(["bytes:\\xe2\\x82","x"])"));
  EXPECT_EQ(body.at("choices").at(0).at("logprobs").at("top_logprobs"),
            json::parse(R"([{"bytes:\\xf0":-0.5,"bytes:\\xf1":-1.0,"bytes:\\xe2\\x82":-9.0},{"x":-3.0}])"));
}

TEST(CompletionResponse, Chunks) {
  EXPECT_EQ(json::parse(completion_chunk(kHead, 1, "x\n", nullptr, true)),
            json::parse(R"({"id":"cmpl-1","object":"text_completion","created":5,"model":"m",
              "choices":[{"index":1,"text":"x\n","logprobs":null,"finish_reason":null}],"usage":null})"));
  const json::value last = json::parse(completion_finish_chunk(kHead, 0, FinishReason::kStop, &kUsage, false));
  EXPECT_EQ(last.at("choices").at(0).at("finish_reason"), "stop");
  EXPECT_EQ(last.at("usage").at("completion_tokens"), 2);
  EXPECT_TRUE(json::parse(completion_usage_chunk(kHead, kUsage)).at("choices").as_array().empty());
}

TEST(Models, ListAndEntry) {
  const ModelEntry alias{"deepseek-reasoner", 7, "deepseek", "tiny-r1", 2048};
  EXPECT_EQ(
      json::parse(models_response({alias, {"m", 1, "spillway", "", 0}})),
      json::parse(
          R"({"object":"list","data":[{"id":"deepseek-reasoner","object":"model","created":7,"owned_by":"deepseek",
              "root":"tiny-r1","max_model_len":2048},{"id":"m","object":"model","created":1,"owned_by":"spillway"}]})"));
  EXPECT_EQ(json::parse(model_response(alias)).at("id"), "deepseek-reasoner");
  const json::value claude = json::parse(models_response({alias}, ModelsDialect::kAnthropic));
  EXPECT_EQ(claude, json::parse(R"({"has_more":false,"first_id":"deepseek-reasoner","last_id":"deepseek-reasoner",
      "data":[{"type":"model","id":"deepseek-reasoner","display_name":"deepseek-reasoner","lifecycle":"active",
               "created_at":"1970-01-01T00:00:07Z","max_input_tokens":2048}]})"));
}

TEST(Tokenize, RequestsAndResponses) {
  auto text = parse_tokenize_request(R"({"prompt":"a","add_special_tokens":false,"return_token_strs":true})");
  ASSERT_TRUE(text.ok());
  EXPECT_EQ(text->prompt, "a");
  EXPECT_TRUE(text->return_token_strs);
  auto chat = parse_tokenize_request(R"({"messages":[{"role":"user","content":"hi"}],"add_generation_prompt":false})");
  ASSERT_TRUE(chat.ok());
  EXPECT_FALSE(chat->chat->add_generation_prompt);
  EXPECT_FALSE(parse_tokenize_request("{}").ok());
  EXPECT_FALSE(parse_tokenize_request(R"({"prompt":5})").ok());
  const std::vector<std::string> strings{"a", "\xE4"};
  EXPECT_EQ(json::parse(tokenize_response({1, 2}, 100, &strings)),
            json::parse(R"({"count":2,"max_model_len":100,"tokens":[1,2],"token_strs":["a","\uFFFD"]})"));
  EXPECT_THAT(parse_detokenize_request(R"({"tokens":[3,4]})")->tokens, ElementsAre(3, 4));
  EXPECT_FALSE(parse_detokenize_request(R"({"tokens":["x"]})").ok());
  EXPECT_FALSE(parse_detokenize_request("{}").ok());
  EXPECT_EQ(detokenize_response("a\"b"), R"({"prompt":"a\"b"})");
}

}  // namespace
}  // namespace spillway::api
