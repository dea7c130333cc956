// POST /v1/completions and /v1/messages over HTTP with a scripted engine.
#include <gmock/gmock.h>

#include "server/server_fixture_for_test.h"

namespace spillway::server {
namespace {

namespace json = boost::json;
using ::testing::HasSubstr;
using ::testing::StartsWith;

class CompletionsTest : public ServerTest {
 protected:
  CompletionsTest() { model_ = make_model("one two three"); }
};

TEST_F(CompletionsTest, RawTextWithoutParsing) {
  model_ = make_model("<think>a</think>b");
  start();
  const Answer answer = post("/v1/completions", R"({"model":"tiny-r1","prompt":"x","max_tokens":50})");
  ASSERT_EQ(answer.status, 200) << answer.body;
  const json::value body = answer.json();
  EXPECT_EQ(body.at("object").as_string(), "text_completion");
  EXPECT_EQ(body.at("choices").at(0).at("text").as_string(), "<think>a</think>b");
  EXPECT_EQ(body.at("choices").at(0).at("finish_reason").as_string(), "stop");
}

TEST_F(CompletionsTest, DefaultsToSixteenTokensOnOpenAisPathOnly) {
  start();
  post("/v1/completions", R"({"model":"tiny-r1","prompt":"x"})");
  EXPECT_EQ(model_.engine->request(0).request->max_tokens, 16);
  post("/beta/completions", R"({"model":"tiny-r1","prompt":"x"})");
  EXPECT_GT(model_.engine->request(1).request->max_tokens, 1000);
}

TEST_F(CompletionsTest, EchoWithLogprobsHasOneEntryAToken) {
  start();
  const std::vector<int32_t> prompt = model_.ids("What is");
  json::array ids(prompt.begin(), prompt.end());
  const Answer answer =
      post("/v1/completions",
           R"({"model":"tiny-r1","echo":true,"logprobs":1,"max_tokens":1,"prompt":)" + json::serialize(ids) + "}");
  ASSERT_EQ(answer.status, 200) << answer.body;
  const json::value choice = answer.json().at("choices").at(0);
  const json::value& logprobs = choice.at("logprobs");
  EXPECT_EQ(logprobs.at("tokens").as_array().size(), prompt.size() + 1);
  EXPECT_EQ(logprobs.at("token_logprobs").as_array().size(), prompt.size() + 1);
  EXPECT_TRUE(logprobs.at("token_logprobs").at(0).is_null());
  EXPECT_TRUE(logprobs.at("token_logprobs").at(1).is_number());
  EXPECT_TRUE(logprobs.at("top_logprobs").at(1).is_object());
  EXPECT_EQ(logprobs.at("text_offset").as_array().back().as_int64(), 7);
  EXPECT_THAT(std::string(choice.at("text").as_string()), StartsWith("What is"));
}

// lm-evaluation-harness asks for one token after the prompt and drops the last entry.
TEST_F(CompletionsTest, LogprobsTellOfTheEndTokenAsWell) {
  model_ = make_model("ab");
  start();
  const std::string body = R"({"model":"tiny-r1","echo":true,"logprobs":1,"max_tokens":5,"prompt":"What is")";
  const Answer answer = post("/v1/completions", body + "}");
  ASSERT_EQ(answer.status, 200) << answer.body;
  const json::value choice = answer.json().at("choices").at(0);
  EXPECT_EQ(choice.at("finish_reason").as_string(), "stop");
  EXPECT_EQ(choice.at("text").as_string(), "What isab");
  const json::array tokens = choice.at("logprobs").at("tokens").as_array();
  EXPECT_EQ(static_cast<int64_t>(tokens.size()), answer.json().at("usage").at("total_tokens").as_int64());
  EXPECT_EQ(tokens.back().as_string(), "<｜end▁of▁sentence｜>");
  EXPECT_EQ(choice.at("logprobs").at("text_offset").as_array().back().as_int64(), 9);

  json::array streamed;
  for (const net::SseEvent& event : events(post("/v1/completions", body + R"(,"stream":true})").body)) {
    if (event.data == "[DONE]") continue;
    const json::value chunk = json::parse(event.data).at("choices").at(0);
    if (chunk.at("logprobs").is_null()) continue;
    for (const json::value& token : chunk.at("logprobs").at("tokens").as_array()) streamed.push_back(token);
  }
  EXPECT_EQ(streamed, tokens);
}

TEST_F(CompletionsTest, PromptLogprobsAlone) {
  start();
  const Answer answer =
      post("/v1/completions", R"({"model":"tiny-r1","echo":true,"logprobs":0,"max_tokens":0,"prompt":"What is"})");
  ASSERT_EQ(answer.status, 200) << answer.body;
  EXPECT_EQ(answer.json().at("choices").at(0).at("text").as_string(), "What is");
  EXPECT_EQ(answer.json().at("choices").at(0).at("finish_reason").as_string(), "length");
}

TEST_F(CompletionsTest, ManyPromptsAndChoices) {
  start();
  const Answer answer = post("/v1/completions", R"({"model":"tiny-r1","prompt":["a","b"],"n":2,"max_tokens":50})");
  ASSERT_EQ(answer.status, 200) << answer.body;
  const json::value body = answer.json();
  ASSERT_EQ(body.at("choices").as_array().size(), 4u);
  EXPECT_EQ(body.at("choices").at(3).at("index").as_int64(), 3);
  EXPECT_EQ(model_.engine->request(0).request->prompt, model_.engine->request(1).request->prompt);
  EXPECT_NE(model_.engine->request(1).request->prompt, model_.engine->request(2).request->prompt);
}

TEST_F(CompletionsTest, Streams) {
  start();
  const Answer answer =
      post("/v1/completions", R"({"model":"tiny-r1","prompt":"x","stream":true,"echo":true,"max_tokens":50})");
  const std::vector<net::SseEvent> all = events(answer.body);
  ASSERT_GT(all.size(), 3u);
  std::string text;
  for (size_t i = 0; i + 1 < all.size(); ++i)
    text += json::parse(all[i].data).at("choices").at(0).at("text").as_string();
  EXPECT_EQ(text, "xone two three");
  EXPECT_EQ(all.back().data, "[DONE]");
}

TEST_F(CompletionsTest, SuffixWithoutTokensIs400) {
  start();
  EXPECT_EQ(post("/beta/completions", R"({"model":"tiny-r1","prompt":"x","suffix":"y"})").status, 400);
}

TEST_F(CompletionsTest, TokenIdsOutsideTheVocabulary) {
  start();
  EXPECT_EQ(post("/v1/completions", R"({"model":"tiny-r1","prompt":[1,512]})").status, 400);
}

class MessagesTest : public ServerTest {
 protected:
  static inline const std::string kBody =
      R"({"model":"claude-sonnet","max_tokens":100,"system":"Be brief.","messages":[{"role":"user","content":"What is 1?"}])";
};

TEST_F(MessagesTest, Whole) {
  start();
  const Answer answer = post("/v1/messages", kBody + "}");
  ASSERT_EQ(answer.status, 200) << answer.body;
  const json::value body = answer.json();
  EXPECT_EQ(body.at("type").as_string(), "message");
  EXPECT_THAT(std::string(body.at("id").as_string()), StartsWith("msg_"));
  EXPECT_EQ(body.at("content").at(0).at("type").as_string(), "thinking");
  EXPECT_EQ(body.at("content").at(1).at("type").as_string(), "text");
  EXPECT_EQ(body.at("stop_reason").as_string(), "end_turn");
  EXPECT_GT(body.at("usage").at("output_tokens").as_int64(), 0);
  EXPECT_TRUE(answer.headers.contains("request-id"));
}

TEST_F(MessagesTest, Streamed) {
  start();
  const std::vector<net::SseEvent> all = events(post("/anthropic/v1/messages", kBody + R"(,"stream":true})").body);
  ASSERT_GT(all.size(), 6u);
  EXPECT_EQ(all.front().event, "message_start");
  EXPECT_EQ(all.back().event, "message_stop");
  EXPECT_EQ(all[all.size() - 2].event, "message_delta");
  std::string text, thinking;
  for (const net::SseEvent& event : all) {
    const json::value data = json::parse(event.data);
    EXPECT_EQ(data.at("type").as_string(), event.event);
    if (event.event != "content_block_delta") continue;
    const json::object& delta = data.at("delta").as_object();
    if (delta.contains("text")) text += delta.at("text").as_string();
    if (delta.contains("thinking")) thinking += delta.at("thinking").as_string();
  }
  EXPECT_EQ(thinking, "thinking");
  EXPECT_THAT(text, HasSubstr("The answer is 42."));
}

TEST_F(MessagesTest, StopSequenceIsNamed) {
  start();
  const json::value body = post("/v1/messages", kBody + R"(,"stop_sequences":["is 42"]})").json();
  EXPECT_EQ(body.at("stop_reason").as_string(), "stop_sequence");
  EXPECT_EQ(body.at("stop_sequence").as_string(), "is 42");
}

TEST_F(MessagesTest, CountTokens) {
  start();
  const Answer answer =
      post("/v1/messages/count_tokens", R"({"model":"tiny-r1","messages":[{"role":"user","content":"x"}]})");
  ASSERT_EQ(answer.status, 200) << answer.body;
  const auto expected = model_.ids("<｜begin▁of▁sentence｜><｜User｜>x<｜Assistant｜><think>\n").size();
  EXPECT_EQ(answer.json().at("input_tokens").as_int64(), static_cast<int64_t>(expected));
}

TEST_F(MessagesTest, ErrorsInItsDialect) {
  start();
  const Answer answer = post("/v1/messages", R"({"model":"tiny-r1","messages":[]})");
  EXPECT_EQ(answer.status, 400);
  EXPECT_EQ(answer.json().at("type").as_string(), "error");
  EXPECT_EQ(answer.json().at("error").at("type").as_string(), "invalid_request_error");
  EXPECT_EQ(post("/v1/messages", kBody + R"(,"temperature":3})").status, 400);  // 422 elsewhere
}

}  // namespace
}  // namespace spillway::server
