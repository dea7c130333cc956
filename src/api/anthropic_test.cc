#include "api/anthropic.h"

#include <gmock/gmock.h>

#include <boost/json/parse.hpp>

namespace spillway::api {
namespace {

namespace json = boost::json;
using testing::ElementsAre;

ChatRequest parsed(const std::string& fields) {
  auto request = parse_messages_request("{\"model\":\"m\",\"max_tokens\":9," + fields + "}");
  EXPECT_TRUE(request.ok()) << fields << ": " << (request.ok() ? "" : request.error().message);
  return request.ok() ? *request : ChatRequest{};
}

std::string param(const std::string& fields) {
  const auto request = parse_messages_request("{\"max_tokens\":9," + fields + "}");
  EXPECT_FALSE(request.ok()) << fields;
  return request.ok() ? "" : request.error().param;
}

constexpr const char* kHi = R"("messages":[{"role":"user","content":"hi"}])";

TEST(MessagesRequest, OutputFormatIsAJsonSchema) {
  const std::string format = R"({"type":"json_schema","schema":{"type":"object"}})";
  for (const std::string& field :
       {R"("output_config":{"effort":"low","format":)" + format + "}", R"("output_format":)" + format}) {
    const ChatRequest request = parsed(std::string(kHi) + "," + field);
    EXPECT_EQ(request.format.kind, ResponseFormat::Kind::kJsonSchema) << field;
    EXPECT_EQ(request.format.schema.at("type"), "object") << field;
  }
  EXPECT_EQ(parsed(std::string(kHi) + R"(,"output_config":{"effort":"low"})").format.kind, ResponseFormat::Kind::kText);
  EXPECT_EQ(param(std::string(kHi) + R"(,"output_config":{"format":{"type":"xml"}})"), "output_config.format.type");
  EXPECT_EQ(param(std::string(kHi) + R"(,"output_format":{"type":"json_schema"})"), "output_format.schema");
}

TEST(MessagesRequest, TextAndSystem) {
  ChatRequest request = parsed(std::string(kHi) + R"(,"system":"be brief","temperature":0.5,"top_p":0.9,"top_k":5,
    "stop_sequences":["x"],"stream":true,"metadata":{"user_id":"u"},"thinking":{"type":"enabled","budget_tokens":100})");
  ASSERT_EQ(request.messages.size(), 2u);
  EXPECT_EQ(request.messages[0].role, Role::kSystem);
  EXPECT_EQ(request.messages[0].content, "be brief");
  EXPECT_EQ(request.messages[1].content, "hi");
  EXPECT_EQ(request.sampling.max_tokens, 9);
  EXPECT_EQ(request.sampling.top_k, 5);
  EXPECT_THAT(request.sampling.stop, ElementsAre("x"));
  EXPECT_TRUE(request.stream.stream);
  EXPECT_EQ(request.user, "u");
  EXPECT_EQ(request.thinking, true);
  request =
      parsed(R"("system":[{"type":"text","text":"a","cache_control":{"type":"ephemeral"}},{"type":"text","text":"b"}],
    "messages":[{"role":"user","content":[{"type":"text","text":"x"},{"type":"text","text":"y"}]}])");
  EXPECT_EQ(request.messages[0].content, "ab");
  EXPECT_EQ(request.messages[1].content, "xy");
}

TEST(MessagesRequest, ToolsAndResults) {
  const ChatRequest request = parsed(
      R"("tools":[{"name":"f","description":"d","input_schema":{"type":"object"}}],"tool_choice":{"type":"any","disable_parallel_tool_use":true},
         "messages":[{"role":"user","content":"q"},
           {"role":"assistant","content":[{"type":"thinking","thinking":"t","signature":"s"},{"type":"text","text":"Let me."},
             {"type":"tool_use","id":"c1","name":"f","input":{"a":1}}]},
           {"role":"user","content":[{"type":"tool_result","tool_use_id":"c1","content":"3"},
             {"type":"tool_result","tool_use_id":"c2","content":[{"type":"text","text":"4"}],"is_error":true},{"type":"text","text":"go on"}]}])");
  ASSERT_EQ(request.messages.size(), 5u);
  const Message& assistant = request.messages[1];
  EXPECT_EQ(assistant.reasoning_content, "t");
  EXPECT_EQ(assistant.content, "Let me.");
  ASSERT_EQ(assistant.tool_calls.size(), 1u);
  EXPECT_EQ(assistant.tool_calls[0].arguments, "{\"a\":1}");
  EXPECT_EQ(request.messages[2].role, Role::kTool);
  EXPECT_EQ(request.messages[2].tool_call_id, "c1");
  EXPECT_EQ(request.messages[3].content, "4");
  EXPECT_EQ(request.messages[4].role, Role::kUser);
  EXPECT_EQ(request.messages[4].content, "go on");
  EXPECT_EQ(request.tool_choice.kind, ToolChoice::Kind::kRequired);
  EXPECT_FALSE(request.parallel_tool_calls);
  EXPECT_EQ(
      template_tools(request),
      json::parse(R"([{"type":"function","function":{"name":"f","description":"d","parameters":{"type":"object"}}}])"));
}

TEST(MessagesRequest, TheLastAssistantMessageIsContinued) {
  const ChatRequest request =
      parsed(R"("messages":[{"role":"user","content":"q"},{"role":"assistant","content":"One,"}])");
  EXPECT_TRUE(request.continue_final_message);
  EXPECT_TRUE(request.messages.back().prefix);
}

TEST(MessagesRequest, RefusalsNameTheField) {
  EXPECT_EQ(parse_messages_request(std::string("{") + kHi + "}").error().param, "max_tokens");
  EXPECT_TRUE(parse_count_tokens_request(std::string("{") + kHi + "}").ok());
  EXPECT_EQ(param(R"("messages":[])"), "messages");
  EXPECT_EQ(param(R"("system":"only")"), "messages");
  EXPECT_EQ(param(R"("messages":[{"role":"user","content":[]}])"), "messages");
  EXPECT_EQ(param(R"("messages":[{"role":"system","content":"x"}])"), "messages[0].role");
  EXPECT_EQ(param(R"("messages":[{"role":"user"}])"), "messages[0].content");
  EXPECT_EQ(param(R"("messages":[{"role":"user","content":[{"type":"image","source":{}}]}])"),
            "messages[0].content[0].type");
  EXPECT_EQ(param(R"("messages":[{"role":"user","content":[{"type":"tool_use","id":"a","name":"f","input":{}}]}])"),
            "messages[0].content[0].type");
  EXPECT_EQ(param(R"("messages":[{"role":"user","content":[{"type":"tool_result","content":"x"}]}])"),
            "messages[0].content[0].tool_use_id");
  EXPECT_EQ(param(std::string(kHi) + R"(,"tool_choice":{"type":"any"})"), "tool_choice.type");
  EXPECT_EQ(param(std::string(kHi) + R"(,"tools":[{"name":"f"}])"), "tools[0].input_schema");
  EXPECT_EQ(param(std::string(kHi) + R"(,"tools":[{"type":"web_search_20250305","name":"web_search"}])"),
            "tools[0].type");
  EXPECT_EQ(param(std::string(kHi) + R"(,"stop_sequences":[""])"), "stop_sequences");
  EXPECT_EQ(param(std::string(kHi) + R"(,"temperature":3)"), "temperature");
  EXPECT_EQ(param(std::string(kHi) + R"(,"thinking":{})"), "thinking.type");
}

const ResponseHead kHead{"msg_1", 5, "m", ""};
const Usage kUsage{10, 4, 6, 3, 0, 0};

TEST(MessagesResponse, WholeBody) {
  ChatChoice choice;
  choice.reasoning_content = "r";
  choice.content = "c";
  choice.tool_calls = {{"t1", "f", "{\"a\":1}"}, {"t2", "g", "not json"}};
  choice.finish_reason = FinishReason::kToolCalls;
  EXPECT_EQ(json::parse(messages_response(kHead, choice, std::nullopt, kUsage)),
            json::parse(R"({"id":"msg_1","type":"message","role":"assistant","model":"m","content":[
              {"type":"thinking","thinking":"r","signature":""},{"type":"text","text":"c"},
              {"type":"tool_use","id":"t1","name":"f","input":{"a":1}},{"type":"tool_use","id":"t2","name":"g","input":{"raw_arguments":"not json"}}],
              "stop_reason":"tool_use","stop_sequence":null,
              "usage":{"input_tokens":6,"cache_creation_input_tokens":0,"cache_read_input_tokens":4,"output_tokens":6}})"));
  choice.finish_reason = FinishReason::kStop;
  const json::value stopped = json::parse(messages_response(kHead, choice, "END", kUsage));
  EXPECT_EQ(stopped.at("stop_reason"), "stop_sequence");
  EXPECT_EQ(stopped.at("stop_sequence"), "END");
  EXPECT_EQ(count_tokens_response(12), R"({"input_tokens":12})");
}

TEST(MessageStream, TheWholeSequence) {
  using Kind = text::OutputDelta::Kind;
  MessageStream stream(kHead);
  std::vector<StreamEvent> events = stream.start(kUsage);
  const auto add = [&](std::vector<StreamEvent> more) { events.insert(events.end(), more.begin(), more.end()); };
  add(stream.push({Kind::kReasoning, "r1", 0, ""}));
  add(stream.push({Kind::kReasoning, "r2", 0, ""}));
  add(stream.push({Kind::kContent, "c", 0, ""}));
  add(stream.push({Kind::kToolCall, "", 0, "f"}));
  add(stream.push({Kind::kToolCall, "{\"a\"", 0, ""}));
  add(stream.push({Kind::kToolCall, "{}", 1, "g"}));
  add(stream.finish(FinishReason::kToolCalls, std::nullopt, kUsage));
  std::vector<std::string> names;
  for (const StreamEvent& event : events) {
    names.push_back(event.event);
    EXPECT_EQ(json::parse(event.data).at("type"), json::string(event.event));
    EXPECT_EQ(event.data.find('\n'), std::string::npos);
  }
  EXPECT_THAT(names, ElementsAre("message_start", "content_block_start", "content_block_delta", "content_block_delta",
                                 "content_block_delta", "content_block_stop", "content_block_start",
                                 "content_block_delta", "content_block_stop", "content_block_start",
                                 "content_block_delta", "content_block_stop", "content_block_start",
                                 "content_block_delta", "content_block_stop", "message_delta", "message_stop"));
  const auto data = [&](size_t i) { return json::parse(events[i].data); };
  EXPECT_EQ(data(0).at("message").at("usage").at("input_tokens"), 6);
  EXPECT_EQ(data(1).at("content_block").at("type"), "thinking");
  EXPECT_EQ(data(2).at("delta"), json::parse(R"({"type":"thinking_delta","thinking":"r1"})"));
  EXPECT_EQ(data(4).at("delta").at("type"), "signature_delta");
  EXPECT_EQ(data(7).at("delta"), json::parse(R"({"type":"text_delta","text":"c"})"));
  EXPECT_EQ(data(7).at("index"), 1);
  EXPECT_EQ(data(9).at("content_block").at("name"), "f");
  EXPECT_EQ(data(10).at("delta"), json::parse(R"({"type":"input_json_delta","partial_json":"{\"a\""})"));
  EXPECT_EQ(data(12).at("index"), 3);
  EXPECT_EQ(data(15).at("delta").at("stop_reason"), "tool_use");
  EXPECT_EQ(data(15).at("usage").at("output_tokens"), 6);
}

TEST(MessageStream, PingAndError) {
  EXPECT_EQ(MessageStream::ping().data, R"({"type":"ping"})");
  const StreamEvent error = MessageStream::error({ErrorKind::kOverloaded, "full", "", ""});
  EXPECT_EQ(error.event, "error");
  EXPECT_EQ(json::parse(error.data).at("error").at("type"), "overloaded_error");
}

}  // namespace
}  // namespace spillway::api
