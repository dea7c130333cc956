#include "api/chat.h"

#include <gmock/gmock.h>

#include <boost/json/parse.hpp>
#include <boost/json/serialize.hpp>

namespace spillway::api {
namespace {

namespace json = boost::json;
using namespace std::string_view_literals;
using testing::ElementsAre;
using testing::HasSubstr;

constexpr std::string_view kHi = R"("messages":[{"role":"user","content":"hi"}])";

ChatRequest parsed(const std::string& fields) {
  auto request = parse_chat_request("{" + std::string(kHi) + (fields.empty() ? "" : "," + fields) + "}");
  EXPECT_TRUE(request.ok()) << fields << ": " << (request.ok() ? "" : request.error().message);
  return request.ok() ? *request : ChatRequest{};
}

ApiError refused(const std::string& body) {
  const auto request = parse_chat_request(body);
  EXPECT_FALSE(request.ok()) << body;
  return request.ok() ? ApiError{} : request.error();
}

ApiError refused_field(const std::string& fields) { return refused("{" + std::string(kHi) + "," + fields + "}"); }

TEST(ChatRequest, Defaults) {
  const ChatRequest request = parsed("");
  ASSERT_EQ(request.messages.size(), 1u);
  EXPECT_EQ(request.messages[0].role, Role::kUser);
  EXPECT_EQ(request.messages[0].content, "hi");
  EXPECT_FALSE(request.sampling.temperature || request.sampling.max_tokens || request.sampling.seed);
  EXPECT_EQ(request.sampling.n, 1);
  EXPECT_FALSE(request.stream.stream);
  EXPECT_EQ(request.tool_choice.kind, ToolChoice::Kind::kNone);
  EXPECT_FALSE(request.thinking.has_value());
}

TEST(ChatRequest, SamplingFields) {
  const ChatRequest request = parsed(
      R"("model":"m","temperature":0.6,"top_p":0.95,"top_k":-1,"min_p":0.1,"frequency_penalty":-2,"presence_penalty":2,
         "repetition_penalty":1.1,"seed":-1,"max_tokens":5,"max_completion_tokens":7.0,"min_tokens":2,"ignore_eos":true,"n":3,
         "stop":["a","b"],"stop_token_ids":[1,2],"logit_bias":{"50":-100,"7":1.5},"logprobs":true,"top_logprobs":20,
         "priority":"high","user":"u","metadata":{"k":"v"},"stream":true,"stream_options":{"include_usage":true},"unknown":{"x":1})");
  EXPECT_EQ(request.model, "m");
  EXPECT_FLOAT_EQ(*request.sampling.temperature, 0.6f);
  EXPECT_EQ(request.sampling.top_k, 0);
  EXPECT_EQ(request.sampling.seed, UINT64_MAX);
  EXPECT_EQ(request.sampling.max_tokens, 7);
  EXPECT_EQ(request.sampling.min_tokens, 2);
  EXPECT_TRUE(request.sampling.ignore_eos);
  EXPECT_EQ(request.sampling.n, 3);
  EXPECT_THAT(request.sampling.stop, ElementsAre("a", "b"));
  EXPECT_THAT(request.sampling.stop_token_ids, ElementsAre(1, 2));
  EXPECT_THAT(request.sampling.logit_bias, ElementsAre(testing::Pair(50, -100.f), testing::Pair(7, 1.5f)));
  EXPECT_TRUE(request.logprobs);
  EXPECT_EQ(request.top_logprobs, 20);
  EXPECT_EQ(request.priority, RequestPriority::kHigh);
  EXPECT_TRUE(request.stream.include_usage);
  EXPECT_THAT(parsed(R"("stop":"x")").sampling.stop, ElementsAre("x"));
  EXPECT_EQ(parsed(R"("priority":-3)").priority, RequestPriority::kLow);
}

TEST(ChatRequest, NullIsAbsent) {
  const ChatRequest request = parsed(
      R"("temperature":null,"top_p":null,"max_tokens":null,"stop":null,"stream":null,"stream_options":null,"tools":null,
         "tool_choice":null,"response_format":null,"logprobs":null,"top_logprobs":null,"seed":null,"n":null,"logit_bias":null,
         "user":null,"thinking":null,"priority":null)");
  EXPECT_FALSE(request.sampling.temperature.has_value());
  EXPECT_EQ(request.sampling.n, 1);
}

TEST(ChatRequest, MalformedBodiesAre400) {
  for (const std::string body : {"", "{", "[]", "3", "{\"messages\":[}", "{}x", "nul"})
    EXPECT_EQ(refused(body).http_status(), 400) << body;
  std::string deep = "{\"metadata\":";
  for (int i = 0; i < 1000; ++i) deep += "{\"a\":";
  EXPECT_EQ(refused(deep).http_status(), 400);
}

TEST(ChatRequest, WrongTypesAre400AndNameTheField) {
  const std::pair<std::string, std::string> cases[] = {
      {R"("temperature":"hot")", "temperature"},
      {R"("max_tokens":1.5)", "max_tokens"},
      {R"("stop":5)", "stop"},
      {R"("stop":["a",5])", "stop"},
      {R"("stream":"yes")", "stream"},
      {R"("logit_bias":{"x":1})", "logit_bias"},
      {R"("tools":{})", "tools"},
      {R"("tools":[5])", "tools[0]"},
      {R"("response_format":"json")", "response_format"},
      {R"("user":5)", "user"},
      {R"("seed":"x")", "seed"},
      {R"("metadata":[])", "metadata"},
  };
  for (const auto& [field, param] : cases) {
    const ApiError error = refused_field(field);
    EXPECT_EQ(error.http_status(), 400) << field;
    EXPECT_EQ(error.param, param) << field;
    EXPECT_THAT(error.message, HasSubstr("expected")) << field;
  }
}

TEST(ChatRequest, ValuesOutOfRangeAre422) {
  const std::pair<std::string, std::string> cases[] = {
      {R"("temperature":2.1)", "temperature"},
      {R"("temperature":-0.1)", "temperature"},
      {R"("top_p":0)", "top_p"},
      {R"("top_p":1.01)", "top_p"},
      {R"("max_tokens":0)", "max_tokens"},
      {R"("n":0)", "n"},
      {R"("n":129)", "n"},
      {R"("top_k":-2)", "top_k"},
      {R"("min_p":2)", "min_p"},
      {R"("frequency_penalty":3)", "frequency_penalty"},
      {R"("top_logprobs":21,"logprobs":true)", "top_logprobs"},
      {R"("top_logprobs":3)", "top_logprobs"},
      {R"("logit_bias":{"5":101})", "logit_bias"},
      {R"("stop":[""])", "stop"},
      {R"("stream_options":{})", "stream_options"},
      {R"("stop":["1","2","3","4","5","6","7","8","9","10","11","12","13","14","15","16","17"])", "stop"},
      {R"("response_format":{"type":"xml"})", "response_format.type"},
      {R"("tool_choice":"required")", "tool_choice"},
      {R"("priority":"urgent")", "priority"},
      {R"("best_of":4)", "best_of"},
      {R"("tools":[{"type":"function","function":{"name":"bad name"}}])", "tools[0].function.name"},
      {R"("thinking":{"type":"maybe"})", "thinking.type"},
  };
  for (const auto& [field, param] : cases) {
    const ApiError error = refused_field(field);
    EXPECT_EQ(error.http_status(), 422) << field << ": " << error.message;
    EXPECT_EQ(error.param, param) << field;
  }
}

TEST(ChatRequest, MessageContracts) {
  const std::pair<std::string, std::string> cases[] = {
      {R"([])", "messages"},
      {R"([5])", "messages[0]"},
      {R"([{"content":"x"}])", "messages[0].role"},
      {R"([{"role":"user"}])", "messages[0].content"},
      {R"([{"role":"user","content":null}])", "messages[0].content"},
      {R"([{"role":"assistant","content":null}])", "messages[0].content"},
      {R"([{"role":"tool","content":"x"}])", "messages[0].tool_call_id"},
      {R"([{"role":"user","content":"a"},{"role":"user","content":"b","prefix":true}])", "messages[1].prefix"},
      {R"([{"role":"assistant","content":"b","prefix":true},{"role":"user","content":"a"}])", "messages[0].prefix"},
      {R"([{"role":"user","content":[{"type":"image_url","image_url":{"url":"x"}}]}])", "messages[0].content"},
      {R"([{"role":"user","content":5}])", "messages[0].content"},
      {R"([{"role":"assistant","tool_calls":[{"id":"a","function":{"arguments":"{}"}}]}])",
       "messages[0].tool_calls[0].function.name"},
      {R"([{"role":"user","content":"a","tool_calls":[{"id":"a","function":{"name":"f"}}]}])",
       "messages[0].tool_calls"},
  };
  for (const auto& [messages, param] : cases) {
    const ApiError error = refused("{\"messages\":" + messages + "}");
    EXPECT_EQ(error.param, param) << messages << ": " << error.message;
  }
  EXPECT_EQ(refused("{}").param, "messages");
  EXPECT_EQ(refused(R"({"messages":[{"role":"wizard","content":"x"}]})").param, "messages[0].role");
}

TEST(ChatRequest, ReasoningContentInMessages) {
  const std::string body =
      R"({"messages":[{"role":"user","content":"a"},{"role":"assistant","content":"b","reasoning_content":"r"},
                              {"role":"user","content":"c"}]})";
  auto request = parse_chat_request(body);
  ASSERT_TRUE(request.ok());
  EXPECT_EQ(request->messages[1].reasoning_content, "r");
  const auto strict = parse_chat_request(body, {.strict_reasoning_content = true});
  ASSERT_FALSE(strict.ok());
  EXPECT_EQ(strict.error().http_status(), 400);
  EXPECT_EQ(strict.error().param, "messages[1].reasoning_content");
}

TEST(ChatRequest, PrefixContinuesTheLastMessage) {
  auto request = parse_chat_request(
      R"({"messages":[{"role":"user","content":"a"},{"role":"assistant","content":"One,","prefix":true}]})"sv);
  ASSERT_TRUE(request.ok());
  EXPECT_TRUE(request->continue_final_message);
  const boost::json::array shown = template_messages(*request, false);
  EXPECT_FALSE(shown[0].as_object().contains("prefix"));
  EXPECT_EQ(shown[1].at("prefix"), true) << "published templates look for it";
  EXPECT_EQ(refused_field(R"("continue_final_message":true)").param, "continue_final_message");
}

TEST(ChatRequest, AllowedToolsAreTheOnlyOnes) {
  const std::string tools =
      R"("tools":[{"type":"function","function":{"name":"f"}},{"type":"function","function":{"name":"g"}}])";
  const auto choice = [&](const std::string& mode, const std::string& name) {
    return tools + R"(,"tool_choice":{"type":"allowed_tools","allowed_tools":{"mode":")" + mode +
           R"(","tools":[{"type":"function","function":{"name":")" + name + R"("}}]}})";
  };
  const ChatRequest request = parsed(choice("required", "g"));
  ASSERT_EQ(request.tools.size(), 1u);
  EXPECT_EQ(request.tools[0].name, "g");
  EXPECT_EQ(request.tool_choice.kind, ToolChoice::Kind::kRequired);
  EXPECT_EQ(parsed(choice("auto", "f")).tool_choice.kind, ToolChoice::Kind::kAuto);
  EXPECT_EQ(refused_field(choice("auto", "h")).http_status(), 422);
  EXPECT_EQ(refused_field(choice("maybe", "f")).param, "tool_choice.allowed_tools.mode");
}

TEST(ChatRequest, OtherNamesOfConstraintsAreNotPassedOver) {
  const ChatRequest request = parsed(R"("guided_json":{"type":"integer"})");
  EXPECT_EQ(request.format.kind, ResponseFormat::Kind::kJsonSchema);
  EXPECT_EQ(request.format.schema.at("type"), "integer");
  EXPECT_EQ(refused_field(R"("guided_choice":["a","b"])").param, "guided_choice");
  EXPECT_EQ(refused_field(R"("structured_outputs":{"regex":"a"})").param, "structured_outputs");
  EXPECT_EQ(refused_field(R"("guided_regex":"a","response_format":{"type":"text"})").param, "guided_regex");
  EXPECT_EQ(refused_field(R"("guided_json":{},"response_format":{"type":"json_object"})").param, "guided_json");
  EXPECT_EQ(refused_field(R"("functions":[{"name":"f"}],"function_call":"auto")").param, "functions");
  EXPECT_EQ(refused_field(R"("modalities":["text","audio"])").param, "modalities");
  EXPECT_EQ(refused_field(R"("web_search_options":{})").param, "web_search_options");
  parsed(R"("functions":[],"modalities":["text"],"audio":null)");
  EXPECT_EQ(parsed(R"("reasoning_effort":"none")").thinking, false);
  EXPECT_FALSE(parsed(R"("reasoning_effort":"low")").thinking.has_value());
}

TEST(ChatRequest, ARefusalSentBackIsText) {
  const auto request = parse_chat_request(
      R"({"messages":[{"role":"assistant","content":[{"type":"refusal","refusal":"No."}]},{"role":"user","content":"?"}]})"sv);
  ASSERT_TRUE(request.ok()) << request.error().message;
  EXPECT_EQ(request->messages[0].content, "No.");
}

TEST(ChatRequest, ToolsAndChoice) {
  const std::string tools =
      R"("tools":[{"type":"function","function":{"name":"f","description":"d","parameters":{"type":"object"},"strict":true}}])";
  ChatRequest request = parsed(tools);
  ASSERT_EQ(request.tools.size(), 1u);
  EXPECT_EQ(request.tools[0].name, "f");
  EXPECT_TRUE(request.tools[0].strict);
  EXPECT_EQ(request.tool_choice.kind, ToolChoice::Kind::kAuto);
  EXPECT_EQ(parsed(tools + R"(,"tool_choice":"required")").tool_choice.kind, ToolChoice::Kind::kRequired);
  request = parsed(tools + R"(,"tool_choice":{"type":"function","function":{"name":"f"}})");
  EXPECT_EQ(request.tool_choice.kind, ToolChoice::Kind::kFunction);
  EXPECT_EQ(request.tool_choice.function, "f");
  EXPECT_EQ(refused_field(tools + R"(,"tool_choice":{"type":"function","function":{"name":"g"}})").http_status(), 422);
  EXPECT_TRUE(template_tools(parsed(tools + R"(,"tool_choice":"none")")).is_null());
  EXPECT_EQ(refused_field(tools + R"(,"tool_choice":{"type":"custom","custom":{"name":"f"}})").param,
            "tool_choice.type");
  EXPECT_EQ(template_tools(request).as_array()[0].at("function").at("name"), "f");
}

TEST(ChatRequest, FormatsAndThinking) {
  EXPECT_EQ(parsed(R"("response_format":{"type":"json_object"})").format.kind, ResponseFormat::Kind::kJsonObject);
  const ChatRequest request =
      parsed(R"("response_format":{"type":"json_schema","json_schema":{"name":"n","schema":{"type":"object"}}})");
  EXPECT_EQ(request.format.kind, ResponseFormat::Kind::kJsonSchema);
  EXPECT_EQ(request.format.schema.at("type"), "object");
  EXPECT_EQ(refused_field(R"("response_format":{"type":"json_schema"})").http_status(), 400);
  EXPECT_EQ(parsed(R"("thinking":{"type":"disabled"})").thinking, false);
  EXPECT_EQ(parsed(R"("enable_thinking":true)").thinking, true);
  EXPECT_EQ(parsed(R"("chat_template_kwargs":{"enable_thinking":false,"x":1})").thinking, false);
}

TEST(TemplateMessages, InTheFormTemplatesRead) {
  auto request = parse_chat_request(
      R"({"messages":[{"role":"developer","content":[{"type":"text","text":"a"},{"type":"text","text":"b"}]},{"role":"user","content":"q"},
          {"role":"assistant","content":null,"tool_calls":[{"id":"c1","type":"function","function":{"name":"f","arguments":"{\"x\": 1}"}}]},
          {"role":"tool","tool_call_id":"c1","content":"3"}]})"sv);
  ASSERT_TRUE(request.ok()) << request.error().message;
  EXPECT_EQ(json::value(template_messages(*request, false)),
            json::parse(R"([{"role":"system","content":"ab"},{"role":"user","content":"q"},
              {"role":"assistant","content":null,"tool_calls":[{"id":"c1","type":"function","function":{"name":"f","arguments":"{\"x\": 1}"}}]},
              {"role":"tool","content":"3","tool_call_id":"c1"}])"));
  EXPECT_EQ(template_messages(*request, true)[2].at("tool_calls").at(0).at("function").at("arguments"),
            json::parse(R"({"x":1})"));
}

const ResponseHead kHead{"chatcmpl-7", 1700000000, "m", "fp_1"};
const Usage kUsage{10, 4, 6, 3, 5, 2};

TEST(ChatResponse, WholeBody) {
  ChatChoice choice;
  choice.content = "Four \"4\"";
  choice.reasoning_content = "2+2";
  choice.logprobs = std::vector<TokenLogprobs>{{"\xE4\xBD", -0.5f, {{"x", -INFINITY}}}};
  const json::value body = json::parse(chat_response(kHead, {choice}, kUsage));
  EXPECT_EQ(
      body,
      json::parse(
          R"({"id":"chatcmpl-7","object":"chat.completion","created":1700000000,"model":"m","system_fingerprint":"fp_1",
    "choices":[{"index":0,"message":{"role":"assistant","content":"Four \"4\"","reasoning_content":"2+2"},
      "logprobs":{"content":[{"token":"\uFFFD\uFFFD","logprob":-0.5,"bytes":[228,189],"top_logprobs":[{"token":"x","logprob":-9999.0,"bytes":[120]}]}]},
      "finish_reason":"stop"}],
    "usage":{"prompt_tokens":10,"completion_tokens":6,"total_tokens":16,"prompt_tokens_details":{"cached_tokens":4},
      "completion_tokens_details":{"reasoning_tokens":3,"accepted_prediction_tokens":2,"rejected_prediction_tokens":3},
      "prompt_cache_hit_tokens":4,"prompt_cache_miss_tokens":6}})"));
}

TEST(ChatResponse, ToolCallsHaveNullContent) {
  ChatChoice choice;
  choice.tool_calls = {{"call_1", "f", "{\"a\":1}"}};
  choice.finish_reason = FinishReason::kToolCalls;
  const json::value body = json::parse(chat_response(kHead, {choice}, kUsage));
  const json::value& message = body.at("choices").at(0).at("message");
  EXPECT_TRUE(message.at("content").is_null());
  EXPECT_EQ(message.at("tool_calls"),
            json::parse(R"([{"id":"call_1","type":"function","function":{"name":"f","arguments":"{\"a\":1}"}}])"));
  EXPECT_EQ(body.at("choices").at(0).at("finish_reason"), "tool_calls");
}

json::value delta_of(const std::string& chunk) { return json::parse(chunk).at("choices").at(0).at("delta"); }

TEST(ChatChunks, DeepseekConventions) {
  using Kind = text::OutputDelta::Kind;
  const ChatChunks chunks(kHead, false, true);
  EXPECT_EQ(
      json::parse(chunks.first(0)),
      json::parse(
          R"({"id":"chatcmpl-7","object":"chat.completion.chunk","created":1700000000,"model":"m","system_fingerprint":"fp_1",
              "choices":[{"index":0,"delta":{"role":"assistant","content":null,"reasoning_content":""},"logprobs":null,"finish_reason":null}]})"));
  EXPECT_EQ(delta_of(chunks.delta({0, {Kind::kReasoning, "hm", 0, ""}, {}})),
            json::parse(R"({"content":null,"reasoning_content":"hm"})"));
  EXPECT_EQ(delta_of(chunks.delta({0, {Kind::kContent, "4", 0, ""}, {}})),
            json::parse(R"({"content":"4","reasoning_content":null})"));
  const json::value last = json::parse(chunks.finish(0, FinishReason::kLength, &kUsage));
  EXPECT_EQ(last.at("choices").at(0).at("finish_reason"), "length");
  EXPECT_EQ(last.at("usage").at("total_tokens"), 16);
  EXPECT_EQ(json::parse(chunks.finish(0, FinishReason::kStop, nullptr)).as_object().count("usage"), 0u);
}

TEST(ChatChunks, IncludeUsageAndPlainModels) {
  using Kind = text::OutputDelta::Kind;
  const ChatChunks chunks(kHead, true, false);
  EXPECT_EQ(delta_of(chunks.first(1)), json::parse(R"({"role":"assistant","content":""})"));
  const json::value content = json::parse(chunks.delta({1, {Kind::kContent, "x", 0, ""}, {}}));
  EXPECT_EQ(content.at("choices").at(0).at("delta"), json::parse(R"({"content":"x"})"));
  EXPECT_EQ(content.at("choices").at(0).at("index"), 1);
  EXPECT_TRUE(content.at("usage").is_null());
  const json::value usage = json::parse(chunks.usage(kUsage));
  EXPECT_TRUE(usage.at("choices").as_array().empty());
  EXPECT_EQ(usage.at("usage").at("prompt_tokens"), 10);
}

TEST(ChatChunks, ToolCallsStream) {
  using Kind = text::OutputDelta::Kind;
  const ChatChunks chunks(kHead, false, false);
  const json::value first = delta_of(chunks.delta({0, {Kind::kToolCall, "", 1, "f"}, {}})).at("tool_calls").at(0);
  EXPECT_EQ(first.at("index"), 1);
  EXPECT_EQ(first.at("type"), "function");
  EXPECT_EQ(first.at("id"), json::string(tool_call_id("chatcmpl-7", 0, 1)));
  EXPECT_EQ(first.at("function"), json::parse(R"({"name":"f","arguments":""})"));
  EXPECT_EQ(delta_of(chunks.delta({0, {Kind::kToolCall, "{\"a\"", 1, ""}, {}})).at("tool_calls").at(0),
            json::parse(R"({"index":1,"function":{"arguments":"{\"a\""}})"));
  EXPECT_NE(tool_call_id("chatcmpl-7", 0, 0), tool_call_id("chatcmpl-7", 0, 1));
  EXPECT_NE(tool_call_id("chatcmpl-7", 0, 0), tool_call_id("chatcmpl-7", 1, 0));
}

}  // namespace
}  // namespace spillway::api
