// POST /v1/chat/completions over HTTP with a scripted engine: whole and streamed answers, exact forms.
#include <gmock/gmock.h>

#include "server/server_fixture_for_test.h"

namespace spillway::server {
namespace {

namespace json = boost::json;
using ::testing::HasSubstr;
using ::testing::StartsWith;

class ChatTest : public ServerTest {};

std::string with(const std::string& fields) { return kChat + "," + fields + "}"; }

TEST_F(ChatTest, AnswersWhole) {
  start();
  const Answer answer = post("/v1/chat/completions", kChat + "}");
  ASSERT_EQ(answer.status, 200) << answer.body;
  EXPECT_EQ(answer.headers.value_or("Content-Type", ""), "application/json");
  const json::value body = answer.json();
  EXPECT_EQ(body.at("object").as_string(), "chat.completion");
  EXPECT_EQ(body.at("model").as_string(), "tiny-r1");
  EXPECT_EQ(body.at("system_fingerprint").as_string(), "fp_test");
  EXPECT_THAT(std::string(body.at("id").as_string()), StartsWith("chatcmpl-"));
  const json::value& choice = body.at("choices").at(0);
  EXPECT_EQ(choice.at("message").at("role").as_string(), "assistant");
  EXPECT_EQ(choice.at("message").at("reasoning_content").as_string(), "thinking");
  EXPECT_THAT(std::string(choice.at("message").at("content").as_string()), HasSubstr("The answer is 42."));
  EXPECT_EQ(choice.at("finish_reason").as_string(), "stop");
  const json::value& usage = body.at("usage");
  const int64_t prompt = static_cast<int64_t>(model_.engine->request(0).request->prompt.size());
  EXPECT_EQ(usage.at("prompt_tokens").as_int64(), prompt);
  EXPECT_EQ(usage.at("total_tokens").as_int64(), prompt + usage.at("completion_tokens").as_int64());
  EXPECT_EQ(usage.at("prompt_cache_miss_tokens").as_int64(), prompt);
  EXPECT_EQ(usage.at("completion_tokens_details").at("reasoning_tokens").as_int64(),
            static_cast<int64_t>(model_.ids("thinking</think>").size()));
}

TEST_F(ChatTest, DeepseekPathsAndAliases) {
  start();
  const std::string body = R"({"model":"deepseek-reasoner","messages":[{"role":"user","content":"x"}]})";
  for (const char* path : {"/chat/completions", "/beta/chat/completions", "/v1/chat/completions"}) {
    const Answer answer = post(path, body);
    EXPECT_EQ(answer.status, 200) << path;
    EXPECT_EQ(answer.json().at("model").as_string(), "deepseek-reasoner");
  }
}

TEST_F(ChatTest, StreamsInDeepseeksForm) {
  start();
  const Answer answer = post("/v1/chat/completions", with(R"("stream":true)"));
  ASSERT_EQ(answer.status, 200) << answer.body;
  EXPECT_THAT(std::string(answer.headers.value_or("Content-Type", "")), StartsWith("text/event-stream"));
  const std::vector<net::SseEvent> all = events(answer.body);
  ASSERT_GT(all.size(), 4u);
  EXPECT_EQ(all.back().data, "[DONE]");
  const json::value first = json::parse(all.front().data);
  EXPECT_EQ(first.at("object").as_string(), "chat.completion.chunk");
  EXPECT_EQ(first.at("choices").at(0).at("delta").at("role").as_string(), "assistant");
  std::string reasoning, content;
  for (size_t i = 1; i + 2 < all.size(); ++i) {
    const json::value chunk = json::parse(all[i].data);
    EXPECT_EQ(chunk.at("id"), first.at("id"));
    EXPECT_EQ(chunk.at("created"), first.at("created"));
    const json::object& delta = chunk.at("choices").at(0).at("delta").as_object();
    const json::value* thought = delta.if_contains("reasoning_content");
    const json::value* said = delta.if_contains("content");
    EXPECT_FALSE(thought && thought->is_string() && said && said->is_string()) << all[i].data;
    if (thought && thought->is_string()) reasoning += thought->as_string();
    if (said && said->is_string()) content += said->as_string();
  }
  EXPECT_EQ(reasoning, "thinking");
  EXPECT_THAT(content, HasSubstr("The answer is 42."));
  const json::value last = json::parse(all[all.size() - 2].data);
  EXPECT_EQ(last.at("choices").at(0).at("finish_reason").as_string(), "stop");
  EXPECT_TRUE(last.at("usage").is_object());  // for clients that did not ask
}

TEST_F(ChatTest, UsageChunkWhenAskedFor) {
  start();
  const Answer answer = post("/v1/chat/completions", with(R"("stream":true,"stream_options":{"include_usage":true})"));
  const std::vector<net::SseEvent> all = events(answer.body);
  ASSERT_GT(all.size(), 3u);
  const json::value usage = json::parse(all[all.size() - 2].data);
  EXPECT_TRUE(usage.at("choices").as_array().empty());
  EXPECT_GT(usage.at("usage").at("completion_tokens").as_int64(), 0);
  const json::value finish = json::parse(all[all.size() - 3].data);
  EXPECT_EQ(finish.at("choices").at(0).at("finish_reason").as_string(), "stop");
  EXPECT_TRUE(finish.at("usage").is_null());
}

TEST_F(ChatTest, ManyChoicesShareOnePromptInUsage) {
  start();
  const Answer answer = post("/v1/chat/completions", with(R"("n":3,"seed":7)"));
  ASSERT_EQ(answer.status, 200) << answer.body;
  const json::value body = answer.json();
  EXPECT_EQ(body.at("choices").as_array().size(), 3u);
  EXPECT_EQ(body.at("choices").at(2).at("index").as_int64(), 2);
  EXPECT_EQ(body.at("usage").at("prompt_tokens").as_int64(),
            static_cast<int64_t>(model_.engine->request(0).request->prompt.size()));
  EXPECT_EQ(*model_.engine->request(0).request->sampling.seed, 7u);
  EXPECT_EQ(*model_.engine->request(2).request->sampling.seed, 9u);
}

TEST_F(ChatTest, SamplingFallsBackToTheModels) {
  start();
  post("/v1/chat/completions", kChat + "}");
  const engine::Request& plain = *model_.engine->request(0).request;
  EXPECT_FLOAT_EQ(plain.sampling.temperature, 0.6f);
  EXPECT_FLOAT_EQ(plain.sampling.top_p, 0.95f);
  EXPECT_EQ(plain.stop_tokens, std::vector<int32_t>{1});
  EXPECT_EQ(plain.max_tokens, 2048 - static_cast<int>(plain.prompt.size()));
  EXPECT_EQ(plain.deadline, TimePoint::max());
  post("/v1/chat/completions",
       with(R"("temperature":0,"top_p":0.5,"top_k":3,"max_tokens":5,"frequency_penalty":1,"logit_bias":{"7":-100})"));
  const engine::Request& asked = *model_.engine->request(1).request;
  EXPECT_FLOAT_EQ(asked.sampling.temperature, 0);
  EXPECT_FLOAT_EQ(asked.sampling.top_p, 0.5f);
  EXPECT_EQ(asked.sampling.top_k, 3);
  EXPECT_EQ(asked.max_tokens, 5);
  EXPECT_EQ(asked.sampling.logit_bias.at(0), (std::pair<int32_t, float>{7, -100.0f}));
}

TEST_F(ChatTest, StopStringEndsTheAnswerAndTheSequence) {
  model_ = make_model("12 is</think>\nWell, 12 is the answer, I am sure of it");
  start();
  const Answer answer = post("/v1/chat/completions", with(R"("stop":["answer"])"));
  const json::value choice = answer.json().at("choices").at(0);
  EXPECT_EQ(choice.at("finish_reason").as_string(), "stop");
  EXPECT_THAT(std::string(choice.at("message").at("content").as_string()), ::testing::EndsWith("Well, 12 is the "));
  EXPECT_EQ(choice.at("message").at("reasoning_content").as_string(), "12 is");
}

TEST_F(ChatTest, MaxTokensEndsWithLength) {
  start();
  const Answer answer = post("/v1/chat/completions", with(R"("max_tokens":2)"));
  const json::value body = answer.json();
  EXPECT_EQ(body.at("choices").at(0).at("finish_reason").as_string(), "length");
  EXPECT_EQ(body.at("usage").at("completion_tokens").as_int64(), 2);
}

TEST_F(ChatTest, LogprobsTravelWithTheirText) {
  start();
  const Answer answer = post("/v1/chat/completions", with(R"("logprobs":true,"top_logprobs":2)"));
  ASSERT_EQ(answer.status, 200) << answer.body;
  const json::value choice = answer.json().at("choices").at(0);
  std::string joined;
  for (const json::value& token : choice.at("logprobs").at("content").as_array()) {
    joined += token.at("token").as_string();
    EXPECT_EQ(token.at("top_logprobs").as_array().size(), 2u);
    EXPECT_LT(token.at("logprob").to_number<double>(), 0);
  }
  EXPECT_THAT(joined, HasSubstr("The answer is 42."));
  EXPECT_THAT(joined, ::testing::Not(HasSubstr("thinking")));
}

TEST_F(ChatTest, JsonModeConstrainsTheAnswerButNotTheReasoning) {
  model_ = make_model("so</think>nonsense");
  start();
  const Answer answer =
      post("/v1/chat/completions", with(R"("response_format":{"type":"json_object"},"max_tokens":200)"));
  ASSERT_EQ(answer.status, 200) << answer.body;
  const json::value choice = answer.json().at("choices").at(0);
  EXPECT_EQ(choice.at("message").at("reasoning_content").as_string(), "so");
  EXPECT_EQ(std::string(choice.at("message").at("content").as_string()).find("nonsense"), std::string::npos);
}

TEST_F(ChatTest, JsonModeGoesOnWithWhatTheClientBegan) {
  model_ = make_model("1}");
  start();
  const auto ask = [&](const std::string& begun, const std::string& more = "") {
    return post(
        "/v1/chat/completions",
        R"({"model":"tiny-r1","response_format":{"type":"json_object"},"messages":[{"role":"user","content":"?"},
                    {"role":"assistant","prefix":true,"content":)" +
            json::serialize(json::string(begun)) + "}]" + more + "}");
  };
  const Answer answer = ask("\n{\"a\": ");
  ASSERT_EQ(answer.status, 200) << answer.body;
  EXPECT_EQ(answer.json().at("choices").at(0).at("message").at("content").as_string(), "1}");
  const Answer refused = ask("Here is the JSON: {");
  EXPECT_EQ(refused.status, 400);
  EXPECT_THAT(refused.body, HasSubstr("does not begin as response_format asks"));
  const Answer forced = ask("Let me look it up: ",
                            R"(,"tool_choice":"required","tools":[{"type":"function","function":{"name":"look_up"}}])");
  EXPECT_EQ(forced.status, 200) << forced.body << ": the call is no part of what was begun";
}

TEST_F(ChatTest, PromptThatDoesNotFit) {
  start();
  std::string many;
  for (int i = 0; i < 3000; ++i) many += "7 ";
  const Answer answer =
      post("/v1/chat/completions", R"({"model":"tiny-r1","messages":[{"role":"user","content":")" + many + R"("}]})");
  EXPECT_EQ(answer.status, 400);
  const json::value error = answer.json().at("error");
  EXPECT_EQ(error.at("code").as_string(), "context_length_exceeded");
  EXPECT_THAT(std::string(error.at("message").as_string()), HasSubstr("maximum context length is 2048 tokens"));
}

TEST_F(ChatTest, EngineFailureIsToldInBand) {
  model_.engine->hold = true;
  start();
  auto client = open("/v1/chat/completions", with(R"("stream":true)"));
  eventually([&] { return model_.engine->live() == 1; });
  model_.engine->release(2);
  client->read_until("reasoning_content");
  model_.engine->finish_all(engine::FinishReason::kFailed);
  EXPECT_THAT(client->read_until("[DONE]"), HasSubstr("insufficient_system_resource"));
}

TEST_F(ChatTest, EngineFailureBeforeAnythingIsAnError) {
  model_.engine->hold = true;
  start();
  auto client = open("/v1/chat/completions", with(R"("stream":true)"));
  eventually([&] { return model_.engine->live() == 1; });
  model_.engine->finish_all(engine::FinishReason::kFailed);
  EXPECT_THAT(client->read_response(), StartsWith("HTTP/1.1 503"));
}

}  // namespace
}  // namespace spillway::server
