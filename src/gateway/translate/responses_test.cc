#include "gateway/translate/responses.h"

#include <gtest/gtest.h>

#include "gateway/translate/test_json.h"

namespace spillway::gateway {
namespace {

std::vector<json::value> events_of(std::string_view stream) {
  EventSplitter splitter;
  splitter.feed(stream);
  std::vector<json::value> all;
  RawEvent event;
  while (splitter.next(event)) {
    all.push_back(parsed(event.data));
    EXPECT_EQ(all.back().at("type").as_string(), std::string(event.name));
    EXPECT_EQ(all.back().at("sequence_number"), int64_t(all.size()) - 1);
  }
  return all;
}

TEST(ResponsesRequest, BecomesAChatCompletion) {
  const auto request = responses_to_chat(
      R"({"model":"m","instructions":"be brief","stream":true,"max_output_tokens":50,"reasoning":{"effort":"low"},
          "input":[{"role":"user","content":[{"type":"input_text","text":"hi"},{"type":"input_image","image_url":"https://x/y.png","detail":"low"}]},
            {"type":"reasoning","id":"rs_1","summary":[]},
            {"type":"message","role":"assistant","content":[{"type":"output_text","text":"I look."}]},
            {"type":"function_call","call_id":"c1","name":"f","arguments":"{\"a\":1}"},
            {"type":"function_call","call_id":"c2","name":"g","arguments":"{}"},
            {"type":"function_call_output","call_id":"c1","output":"one"},
            {"type":"function_call_output","call_id":"c2","output":[{"type":"input_text","text":"two"}]}],
          "tools":[{"type":"function","name":"f","parameters":{"type":"object"},"strict":true}],
          "tool_choice":{"type":"function","name":"f"},
          "text":{"format":{"type":"json_schema","name":"s","schema":{"type":"object"},"strict":true}}})");
  ASSERT_TRUE(request.ok()) << request.error().message;
  EXPECT_TRUE(request->stream);
  EXPECT_EQ(parsed(request->chat), parsed(R"({"model":"m","messages":[
      {"role":"system","content":"be brief"},
      {"role":"user","content":[{"type":"text","text":"hi"},{"type":"image_url","image_url":{"url":"https://x/y.png","detail":"low"}}]},
      {"role":"assistant","content":"I look.","tool_calls":[
        {"id":"c1","type":"function","function":{"name":"f","arguments":"{\"a\":1}"}},
        {"id":"c2","type":"function","function":{"name":"g","arguments":"{}"}}]},
      {"role":"tool","tool_call_id":"c1","content":"one"},
      {"role":"tool","tool_call_id":"c2","content":"two"}],
    "tools":[{"type":"function","function":{"name":"f","parameters":{"type":"object"},"strict":true}}],
    "tool_choice":{"type":"function","function":{"name":"f"}},
    "response_format":{"type":"json_schema","json_schema":{"name":"s","schema":{"type":"object"},"strict":true}},
    "max_tokens":50,"reasoning_effort":"low","stream":true,"stream_options":{"include_usage":true}})"));
}

TEST(ResponsesRequest, WhatIsKeptElsewhereIsAnErrorThatNamesIt) {
  const auto said = [](const std::string& members) {
    const auto request = responses_to_chat(R"({"model":"m","input":"x",)" + members + "}");
    return request.ok() ? std::string() : request.error().message;
  };
  EXPECT_NE(said(R"("previous_response_id":"resp_1")").find("previous_response_id"), std::string::npos);
  EXPECT_NE(said(R"("conversation":"c")").find("conversation"), std::string::npos);
  EXPECT_NE(said(R"("background":true)").find("background"), std::string::npos);
  EXPECT_NE(said(R"("tools":[{"type":"web_search"}])").find("web_search"), std::string::npos);
  EXPECT_NE(said(R"("input":[{"type":"item_reference","id":"i"}])").find("item_reference"), std::string::npos);
  EXPECT_EQ(said(R"("previous_response_id":null,"store":true)"), "");
  for (const char* odd :
       {"", "[]", "{}", R"({"model":"m"})", R"({"model":"m","input":[1]})", R"({"model":"m","input":[{}]})",
        R"({"model":"m","input":[{"role":"user","content":[7]}]})", R"({"model":7,"input":"x"})"})
    EXPECT_FALSE(responses_to_chat(odd).ok()) << odd;
}

TEST(ResponsesAnswer, HasItemsUsageAndStatus) {
  const json::object asked = parsed(R"({"model":"m","instructions":"be brief","temperature":0.5})").as_object();
  const auto body = chat_answer_to_response(
      asked,
      R"({"id":"a","created":7,"model":"m-1","choices":[{"finish_reason":"length","message":{"reasoning_content":"hm","content":"hello",
          "tool_calls":[{"id":"c","type":"function","function":{"name":"f","arguments":"{}"}}]}}],
          "usage":{"prompt_tokens":5,"completion_tokens":3,"prompt_tokens_details":{"cached_tokens":2},"completion_tokens_details":{"reasoning_tokens":1}}})");
  ASSERT_TRUE(body.ok()) << body.error().message;
  const json::value response = parsed(*body);
  EXPECT_EQ(response.at("id"), "resp_a");
  EXPECT_EQ(response.at("created_at"), 7);
  EXPECT_EQ(response.at("status"), "incomplete");
  EXPECT_EQ(response.at("incomplete_details").at("reason"), "max_output_tokens");
  EXPECT_EQ(response.at("instructions"), "be brief");
  EXPECT_EQ(response.at("temperature"), 0.5);
  EXPECT_EQ(response.at("output").at(0).at("content").at(0).at("text"), "hm");
  EXPECT_EQ(response.at("output").at(1).at("content").at(0).at("text"), "hello");
  EXPECT_EQ(response.at("output").at(2).at("call_id"), "c");
  EXPECT_EQ(response.at("usage"),
            parsed(R"({"input_tokens":5,"input_tokens_details":{"cached_tokens":2},"output_tokens":3,
      "output_tokens_details":{"reasoning_tokens":1},"total_tokens":8})"));
  EXPECT_FALSE(chat_answer_to_response(asked, R"({"choices":[]})").ok());
}

TEST(ResponsesStream, TellsEachItemFromItsBeginToItsEnd) {
  const auto translator = chat_stream_to_response({});
  EventSplitter splitter;
  splitter.feed(
      "data: {\"id\":\"a\",\"model\":\"m\",\"choices\":[{\"delta\":{\"role\":\"assistant\",\"content\":\"\"}}]}\n\n"
      "data: {\"choices\":[{\"delta\":{\"reasoning_content\":\"hm\"}}]}\n\n"
      "data: {\"choices\":[{\"delta\":{\"content\":\"Hel\"}}]}\n\ndata: "
      "{\"choices\":[{\"delta\":{\"content\":\"lo\"}}]}\n\n"
      "data: "
      "{\"choices\":[{\"delta\":{\"tool_calls\":[{\"index\":0,\"id\":\"c\",\"function\":{\"name\":\"f\",\"arguments\":"
      "\"{\\\"a\"}}]}}]}\n\n"
      "data: {\"choices\":[{\"delta\":{\"tool_calls\":[{\"index\":0,\"function\":{\"arguments\":\"\\\":1}\"}}]}}]}\n\n"
      "data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"tool_calls\"}]}\n\n"
      "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":5,\"completion_tokens\":3}}\n\ndata: [DONE]\n\n");
  std::string out;
  RawEvent event;
  while (splitter.next(event)) ASSERT_TRUE(translator->event(event, out).ok());
  translator->finish(out);  // told once
  const std::vector<json::value> events = events_of(out);
  std::vector<std::string> types;
  for (const json::value& one : events) types.emplace_back(one.at("type").as_string());
  EXPECT_EQ(types, (std::vector<std::string>{
                       "response.created", "response.in_progress", "response.output_item.added",
                       "response.reasoning_text.delta", "response.reasoning_text.done", "response.output_item.done",
                       "response.output_item.added", "response.content_part.added", "response.output_text.delta",
                       "response.output_text.delta", "response.output_text.done", "response.content_part.done",
                       "response.output_item.done", "response.output_item.added",
                       "response.function_call_arguments.delta", "response.function_call_arguments.delta",
                       "response.function_call_arguments.done", "response.output_item.done", "response.completed"}));
  EXPECT_EQ(events[10].at("text"), "Hello");
  EXPECT_EQ(events[16].at("arguments"), R"({"a":1})");
  const json::value& response = events.back().at("response");
  EXPECT_EQ(response.at("status"), "completed");
  EXPECT_EQ(response.at("output").at(2).at("arguments"), R"({"a":1})");
  EXPECT_EQ(response.at("usage").at("total_tokens"), 8);
}

TEST(ResponsesStream, AnErrorIsItsOwnEvent) {
  const auto translator = chat_stream_to_response({});
  EventSplitter splitter;
  splitter.feed(
      "data: {\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\n\ndata: "
      "{\"error\":{\"message\":\"broke\",\"code\":\"c\"}}\n\n");
  std::string out;
  RawEvent event;
  while (splitter.next(event)) ASSERT_TRUE(translator->event(event, out).ok());
  translator->finish(out);
  const std::vector<json::value> events = events_of(out);
  EXPECT_EQ(events.back().at("type"), "error");
  EXPECT_EQ(events.back().at("message"), "broke");
}

}  // namespace
}  // namespace spillway::gateway
