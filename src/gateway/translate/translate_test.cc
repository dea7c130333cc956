#include "gateway/translate/translate.h"

#include <gtest/gtest.h>

#include <map>

#include "gateway/translate/test_json.h"

namespace spillway::gateway {
namespace {

std::string translated(StreamTranslator& translator, std::string_view stream) {
  EventSplitter splitter;
  splitter.feed(stream);
  std::string out;
  RawEvent event;
  while (splitter.next(event)) EXPECT_TRUE(translator.event(event, out).ok());
  return out;
}

std::vector<json::value> data_of(std::string_view stream) {
  EventSplitter splitter;
  splitter.feed(stream);
  std::vector<json::value> all;
  RawEvent event;
  while (splitter.next(event)) {
    if (event.data != "[DONE]") all.push_back(parsed(event.data));
  }
  return all;
}

TEST(TranslateRequest, ChatBecomesMessages) {
  const auto body = chat_to_messages(
      R"({"model":"m","max_tokens":50,"temperature":1.5,"stop":"END","stream":true,"user":"u","tool_choice":"required","parallel_tool_calls":false,
          "messages":[{"role":"system","content":"be brief"},
            {"role":"user","content":[{"type":"text","text":"what is this"},{"type":"image_url","image_url":{"url":"data:image/png;base64,AAAA"}}]},
            {"role":"assistant","content":null,"tool_calls":[{"id":"c1","type":"function","function":{"name":"f","arguments":"{\"a\":1}"}},{"id":"c2","type":"function","function":{"name":"g","arguments":""}}]},
            {"role":"tool","tool_call_id":"c1","content":"one"},{"role":"tool","tool_call_id":"c2","content":"two"}],
          "tools":[{"type":"function","function":{"name":"f","description":"d","parameters":{"type":"object","properties":{}}}}]})",
      "claude", 8192);
  ASSERT_TRUE(body.ok()) << body.error().message;
  EXPECT_EQ(
      parsed(*body),
      parsed(
          R"({"model":"claude","max_tokens":50,"temperature":1.0,"stop_sequences":["END"],"stream":true,"metadata":{"user_id":"u"},"system":"be brief",
          "messages":[
            {"role":"user","content":[{"type":"text","text":"what is this"},{"type":"image","source":{"type":"base64","media_type":"image/png","data":"AAAA"}}]},
            {"role":"assistant","content":[{"type":"tool_use","id":"c1","name":"f","input":{"a":1}},{"type":"tool_use","id":"c2","name":"g","input":{}}]},
            {"role":"user","content":[{"type":"tool_result","tool_use_id":"c1","content":[{"type":"text","text":"one"}]},{"type":"tool_result","tool_use_id":"c2","content":[{"type":"text","text":"two"}]}]}],
          "tools":[{"name":"f","description":"d","input_schema":{"type":"object","properties":{}}}],
          "tool_choice":{"type":"any","disable_parallel_tool_use":true}})"));
}

TEST(TranslateRequest, MessagesBecomeChat) {
  const auto body = messages_to_chat(
      R"({"model":"m","max_tokens":50,"system":[{"type":"text","text":"be "},{"type":"text","text":"brief"}],"stream":true,"thinking":{"type":"enabled","budget_tokens":4096},
          "messages":[{"role":"user","content":"hi"},
            {"role":"assistant","content":[{"type":"thinking","thinking":"hm","signature":"x"},{"type":"text","text":"ok"},{"type":"tool_use","id":"t1","name":"f","input":{"a":1}}]},
            {"role":"user","content":[{"type":"tool_result","tool_use_id":"t1","content":"one"},{"type":"text","text":"go on"}]}],
          "tools":[{"name":"f","description":"d","input_schema":{"type":"object"}}],"tool_choice":{"type":"tool","name":"f"},"stop_sequences":["END"]})",
      "gpt");
  ASSERT_TRUE(body.ok()) << body.error().message;
  EXPECT_EQ(
      parsed(*body),
      parsed(
          R"({"model":"gpt","max_tokens":50,"stop":["END"],"stream":true,"stream_options":{"include_usage":true},"reasoning_effort":"medium",
          "messages":[{"role":"system","content":"be \n\nbrief"},{"role":"user","content":"hi"},
            {"role":"assistant","content":"ok","tool_calls":[{"id":"t1","type":"function","function":{"name":"f","arguments":"{\"a\":1}"}}]},
            {"role":"tool","tool_call_id":"t1","content":"one"},{"role":"user","content":"go on"}],
          "tools":[{"type":"function","function":{"name":"f","description":"d","parameters":{"type":"object"}}}],
          "tool_choice":{"type":"function","function":{"name":"f"}}})"));
}

TEST(TranslateRequest, SchemasOfAnswersPassBothWays) {
  const json::value schema = json::parse(R"({"type":"object","properties":{"a":{"type":"integer"}}})");
  const std::string messages = R"("messages":[{"role":"user","content":"x"}])";
  const auto there =
      chat_to_messages("{\"model\":\"m\"," + messages +
                           R"(,"response_format":{"type":"json_schema","json_schema":{"name":"n","schema":)" +
                           json::serialize(schema) + "}}}",
                       "c", 10);
  ASSERT_TRUE(there.ok()) << there.error().message;
  EXPECT_EQ(parsed(*there).at("output_config").at("format"),
            json::value(json::object{{"type", "json_schema"}, {"schema", schema}}));
  const auto back = messages_to_chat(*there, "m");
  ASSERT_TRUE(back.ok()) << back.error().message;
  EXPECT_EQ(parsed(*back).at("response_format").at("json_schema").at("schema"), schema);
  const auto beta = messages_to_chat(
      "{\"max_tokens\":5," + messages + R"(,"output_format":{"type":"json_schema","schema":{}}})", "m");
  ASSERT_TRUE(beta.ok()) << beta.error().message;
  EXPECT_EQ(parsed(*beta).at("response_format").at("type"), "json_schema");
}

// What Anthropic refuses and OpenAI's clients send all the same.
TEST(TranslateRequest, OddButLegalChatIsMadeAcceptable) {
  const auto body = chat_to_messages(
      R"({"temperature":0.2,"top_p":0.9,"messages":[
            {"role":"user","content":[{"type":"text","text":""},{"type":"text","text":"look"},{"type":"image_url","image_url":{"url":"data:image/jpg;base64,AAAA"}}]},
            {"role":"assistant","content":"\n\n","tool_calls":[{"id":"functions.f:0","type":"function","function":{"name":"f","arguments":"{}"}}]},
            {"role":"tool","tool_call_id":"functions.f:0","content":""}],
          "tools":[{"type":"function","function":{"name":"f"}},{"type":"function","function":{"name":"g","parameters":{}}}]})",
      "claude", 100);
  ASSERT_TRUE(body.ok()) << body.error().message;
  EXPECT_EQ(parsed(*body), parsed(
                               R"({"model":"claude","max_tokens":100,"temperature":0.2,
          "messages":[
            {"role":"user","content":[{"type":"text","text":"look"},{"type":"image","source":{"type":"base64","media_type":"image/jpeg","data":"AAAA"}}]},
            {"role":"assistant","content":[{"type":"tool_use","id":"functions_f_0","name":"f","input":{}}]},
            {"role":"user","content":[{"type":"tool_result","tool_use_id":"functions_f_0","content":[]}]}],
          "tools":[{"name":"f","input_schema":{"type":"object"}},{"name":"g","input_schema":{"type":"object"}}],
          "tool_choice":{"type":"auto"}})"));
  const auto only_top_p =
      chat_to_messages(R"({"temperature":1,"top_p":0.9,"messages":[{"role":"user","content":"x"}]})", "c", 10);
  EXPECT_FALSE(parsed(*only_top_p).as_object().contains("temperature"));
  EXPECT_EQ(parsed(*only_top_p).at("top_p"), 0.9);
}

TEST(TranslateRequest, InstructionsAloneAreAMessage) {
  const auto body = chat_to_messages(R"({"messages":[{"role":"system","content":"say hi"}]})", "c", 10);
  ASSERT_TRUE(body.ok()) << body.error().message;
  EXPECT_EQ(parsed(*body).at("messages"),
            json::parse(R"([{"role":"user","content":[{"type":"text","text":"say hi"}]}])"));
  EXPECT_FALSE(parsed(*body).as_object().contains("system"));
}

// A model's broken arguments come back with the history, and must not end the conversation.
TEST(TranslateRequest, BrokenArgumentsAreWrapped) {
  const auto body = chat_to_messages(
      R"({"messages":[{"role":"assistant","tool_calls":[{"id":"a","function":{"name":"f","arguments":"{\"a\": [1,"}},
          {"id":"b","function":{"name":"f","arguments":"[1]"}}]}]})",
      "m", 1);
  ASSERT_TRUE(body.ok()) << body.error().message;
  const json::value content = parsed(*body).at("messages").at(0).at("content");
  EXPECT_EQ(content.at(0).at("input"), parsed(R"({"INVALID_JSON":"{\"a\": [1,"})"));
  EXPECT_EQ(content.at(1).at("input"), parsed(R"({"INVALID_JSON":"[1]"})"));
}

TEST(TranslateRequest, StrictToolsStayStrict) {
  const auto there = chat_to_messages(
      R"({"messages":[{"role":"user","content":"x"}],"tools":[{"type":"function","function":{"name":"f","strict":true,"parameters":{"type":"object"}}},
          {"type":"function","function":{"name":"g","strict":false}}]})",
      "m", 1);
  ASSERT_TRUE(there.ok());
  EXPECT_EQ(parsed(*there).at("tools").at(0).at("strict"), true);
  EXPECT_FALSE(parsed(*there).at("tools").at(1).as_object().contains("strict"));
  const auto back = messages_to_chat(*there, "m");
  ASSERT_TRUE(back.ok());
  EXPECT_EQ(parsed(*back).at("tools").at(0).at("function").at("strict"), true);
}

TEST(TranslateRequest, DocumentsPassBothWays) {
  const auto chat = messages_to_chat(
      R"({"messages":[{"role":"user","content":[
          {"type":"document","title":"report.pdf","source":{"type":"base64","media_type":"application/pdf","data":"JVBERi0="}},
          {"type":"document","title":"Notes","source":{"type":"text","media_type":"text/plain","data":"of today"}},
          {"type":"text","text":"What is it about?"}]}]})",
      "m");
  ASSERT_TRUE(chat.ok()) << chat.error().message;
  const json::value parts = parsed(*chat).at("messages").at(0).at("content");
  EXPECT_EQ(
      parts.at(0),
      parsed(R"({"type":"file","file":{"filename":"report.pdf","file_data":"data:application/pdf;base64,JVBERi0="}})"));
  EXPECT_EQ(parts.at(1).at("text"), "Notes\n\nof today");
  const auto messages = chat_to_messages(*chat, "m", 1);
  ASSERT_TRUE(messages.ok()) << messages.error().message;
  EXPECT_EQ(
      parsed(*messages).at("messages").at(0).at("content").at(0),
      parsed(
          R"({"type":"document","title":"report.pdf","source":{"type":"base64","media_type":"application/pdf","data":"JVBERi0="}})"));

  // Text alone stays a string, and a text file is a document of text.
  const auto alone = messages_to_chat(
      R"({"messages":[{"role":"user","content":[{"type":"document","source":{"type":"text","data":"a"}},{"type":"text","text":"b"}]}]})",
      "m");
  ASSERT_TRUE(alone.ok());
  EXPECT_EQ(parsed(*alone).at("messages").at(0).at("content"), "a\n\nb");
  const auto text = chat_to_messages(
      R"({"messages":[{"role":"user","content":[{"type":"file","file":{"filename":"n.md","file_data":"data:text/markdown;base64,aGk="}}]}]})",
      "m", 1);
  ASSERT_TRUE(text.ok());
  EXPECT_EQ(parsed(*text).at("messages").at(0).at("content").at(0).at("source"),
            parsed(R"({"type":"text","media_type":"text/plain","data":"hi"})"));
}

TEST(TranslateRequest, EffortPassesToo) {
  const auto effort = [](const std::string& members) {
    const auto body =
        messages_to_chat("{\"max_tokens\":5," + members + R"("messages":[{"role":"user","content":"x"}]})", "m");
    EXPECT_TRUE(body.ok());
    const json::object out = parsed(*body).as_object();
    return out.contains("reasoning_effort") ? std::string(out.at("reasoning_effort").as_string()) : "";
  };
  EXPECT_EQ(effort(R"("thinking":{"type":"adaptive"},"output_config":{"effort":"medium"},)"), "medium");
  EXPECT_EQ(effort(R"("output_config":{"effort":"max"},)"), "high");
  EXPECT_EQ(effort(R"("thinking":{"type":"adaptive"},)"), "");
}

TEST(TranslateRequest, ThinkingIsAskedForOnlyWhereItMayBe) {
  const auto thinks = [](const std::string& members) {
    const auto body = chat_to_messages("{\"reasoning_effort\":\"low\"," + members + "}", "c", 10);
    EXPECT_TRUE(body.ok()) << body.error().message;
    return parsed(*body).as_object().contains("thinking");
  };
  const std::string ask = R"("messages":[{"role":"user","content":"x"}])";
  const std::string tools = R"(,"tools":[{"type":"function","function":{"name":"f"}}])";
  EXPECT_TRUE(thinks(ask));
  EXPECT_TRUE(thinks(ask + tools));
  EXPECT_FALSE(thinks(ask + tools + R"(,"tool_choice":"required")"));
  EXPECT_FALSE(thinks(ask + tools + R"(,"tool_choice":{"type":"function","function":{"name":"f"}})"));
  // Its thinking before the call, signed, is not there to be given back.
  EXPECT_FALSE(thinks(
      R"("messages":[{"role":"user","content":"x"},{"role":"assistant","content":null,"tool_calls":[{"id":"a","function":{"name":"f","arguments":""}}]},
                {"role":"tool","tool_call_id":"a","content":"1"}])" +
      tools));
  EXPECT_FALSE(thinks(R"("messages":[{"role":"user","content":"x"},{"role":"assistant","content":"The answer"}])"));
  const auto budget = chat_to_messages(
      R"({"thinking":{"type":"enabled","budget_tokens":2000},"temperature":0,"top_p":0.5,"max_tokens":100,"messages":[{"role":"user","content":"x"}]})",
      "c", 10);
  EXPECT_EQ(parsed(*budget).at("thinking").at("budget_tokens"), 2000);
  EXPECT_EQ(parsed(*budget).at("max_tokens"), 3024);
  EXPECT_FALSE(parsed(*budget).as_object().contains("top_p"));
}

// Several blocks of text are one string: DeepSeek takes no lists.
TEST(TranslateRequest, BlocksOfTextBecomeOneString) {
  const auto body = messages_to_chat(
      R"({"messages":[{"role":"user","content":[{"type":"text","text":"one"},{"type":"text","text":"two"}]}]})", "m");
  ASSERT_TRUE(body.ok());
  EXPECT_EQ(parsed(*body).at("messages").at(0).at("content"), "one\n\ntwo");
}

TEST(TranslateRequest, WhatCannotBeSaidIsAnErrorThatNamesIt) {
  const auto wrong = [](const char* members) {
    return chat_to_messages(std::string(R"({"model":"m","messages":[{"role":"user","content":"x"}],)") + members + "}",
                            "c", 10);
  };
  EXPECT_NE(wrong(R"("n":2)").error().message.find("n above 1"), std::string::npos);
  EXPECT_NE(wrong(R"("response_format":{"type":"json_object"})").error().message.find("response_format"),
            std::string::npos);
  EXPECT_NE(wrong(R"("tool_choice":{"type":"allowed_tools","allowed_tools":{}})").error().message.find("allowed_tools"),
            std::string::npos);
  EXPECT_NE(wrong(R"("logprobs":true)").error().message.find("logprobs"), std::string::npos);
  EXPECT_NE(wrong(R"("stop":["END","\n"])").error().message.find("stop"), std::string::npos);
  EXPECT_NE(wrong(R"("functions":[{"name":"f"}])").error().message.find("functions"), std::string::npos);
  EXPECT_FALSE(messages_to_chat(R"({"messages":[{"role":"user","content":[{"type":"document"}]}]})", "m").ok());
  EXPECT_FALSE(
      messages_to_chat(
          R"({"messages":[{"role":"user","content":[{"type":"document","source":{"type":"url","url":"u"}}]}]})", "m")
          .ok());
  EXPECT_FALSE(messages_to_chat("[]", "m").ok());
  const auto file = [](const char* members) {
    return chat_to_messages(
        std::string(R"({"messages":[{"role":"user","content":[{"type":"file","file":{)") + members + "}}]}]}", "c", 10);
  };
  EXPECT_NE(file(R"("file_id":"f1")").error().message.find("file_data"), std::string::npos);
  EXPECT_NE(file(R"("file_data":"data:audio/wav;base64,AAAA")").error().message.find("audio/wav"), std::string::npos);
  EXPECT_NE(file(R"("file_data":"data:text/plain;base64,%%")").error().message.find("base64"), std::string::npos);
}

TEST(TranslateAnswer, BothWaysWithToolsReasoningAndUsage) {
  const auto message = chat_answer_to_messages(
      R"({"id":"a","model":"m","choices":[{"message":{"role":"assistant","content":"hello","reasoning_content":"hm","tool_calls":[{"id":"c","type":"function","function":{"name":"f","arguments":"{\"a\":1}"}}]},"finish_reason":"tool_calls"}],
          "usage":{"prompt_tokens":10,"completion_tokens":5,"prompt_tokens_details":{"cached_tokens":4}}})");
  ASSERT_TRUE(message.ok());
  EXPECT_EQ(
      parsed(*message),
      parsed(
          R"({"id":"a","type":"message","role":"assistant","model":"m","content":[{"type":"thinking","thinking":"hm","signature":""},{"type":"text","text":"hello"},{"type":"tool_use","id":"c","name":"f","input":{"a":1}}],
          "stop_reason":"tool_use","stop_sequence":null,"usage":{"input_tokens":6,"cache_creation_input_tokens":0,"cache_read_input_tokens":4,"output_tokens":5}})"));
  const auto chat = messages_answer_to_chat(*message);
  ASSERT_TRUE(chat.ok());
  const json::value back = parsed(*chat);
  const json::object& choice = back.at("choices").at(0).as_object();
  EXPECT_EQ(choice.at("message").at("content"), "hello");
  EXPECT_EQ(choice.at("message").at("reasoning_content"), "hm");
  EXPECT_EQ(choice.at("message").at("tool_calls").at(0).at("function").at("arguments"), R"({"a":1})");
  EXPECT_EQ(choice.at("finish_reason"), "tool_calls");
  EXPECT_EQ(back.at("usage").at("prompt_tokens"), 10);
  EXPECT_EQ(back.at("usage").at("prompt_tokens_details").at("cached_tokens"), 4);
}

TEST(TranslateStream, ChunksBecomeEvents) {
  const auto translator = chat_stream_to_messages();
  const std::string out = translated(
      *translator,
      "data: {\"id\":\"a\",\"model\":\"m\",\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\"}}]}\n\n"
      "data: {\"choices\":[{\"delta\":{\"reasoning_content\":\"hm\"}}]}\n\n"
      "data: {\"choices\":[{\"delta\":{\"content\":\"hel\"}}]}\n\ndata: "
      "{\"choices\":[{\"delta\":{\"content\":\"lo\"}}]}\n\n"
      "data: "
      "{\"choices\":[{\"delta\":{\"tool_calls\":[{\"index\":0,\"id\":\"c\",\"function\":{\"name\":\"f\",\"arguments\":"
      "\"{\"}}]}}]}\n\n"
      "data: {\"choices\":[{\"delta\":{\"tool_calls\":[{\"index\":0,\"function\":{\"arguments\":\"}\"}}]}}]}\n\n"
      "data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"tool_calls\"}]}\n\n"
      "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":9,\"completion_tokens\":3}}\n\ndata: [DONE]\n\n");
  std::string types;
  for (const json::value& event : data_of(out)) types += std::string(event.at("type").as_string()) + " ";
  EXPECT_EQ(types,
            "message_start content_block_start content_block_delta content_block_stop content_block_start "
            "content_block_delta "
            "content_block_delta content_block_stop content_block_start content_block_delta content_block_delta "
            "content_block_stop message_delta message_stop ");
  const auto events = data_of(out);
  EXPECT_EQ(events[1].at("content_block").at("type"), "thinking");
  EXPECT_EQ(events[5].at("delta").at("text"), "hel");
  EXPECT_EQ(events[8].at("content_block").at("name"), "f");
  EXPECT_EQ(events[10].at("delta").at("partial_json"), "}");
  EXPECT_EQ(events[12].at("delta").at("stop_reason"), "tool_use");
  EXPECT_EQ(events[12].at("usage").at("output_tokens"), 3);
  std::string more;
  translator->finish(more);
  EXPECT_EQ(more, "");  // the end is told once
}

TEST(TranslateStream, EventsBecomeChunks) {
  const auto translator = messages_stream_to_chat(true);
  const std::string out = translated(
      *translator,
      "event: message_start\ndata: "
      "{\"type\":\"message_start\",\"message\":{\"id\":\"a\",\"model\":\"m\",\"usage\":{\"input_tokens\":6,\"cache_"
      "read_input_tokens\":4,\"output_tokens\":1}}}\n\n"
      "event: ping\ndata: {\"type\":\"ping\"}\n\n"
      "event: content_block_delta\ndata: "
      "{\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"thinking_delta\",\"thinking\":\"hm\"}}\n\n"
      "event: content_block_delta\ndata: "
      "{\"type\":\"content_block_delta\",\"index\":1,\"delta\":{\"type\":\"text_delta\",\"text\":\"hello\"}}\n\n"
      "event: content_block_start\ndata: "
      "{\"type\":\"content_block_start\",\"index\":2,\"content_block\":{\"type\":\"tool_use\",\"id\":\"t\",\"name\":"
      "\"f\",\"input\":{}}}\n\n"
      "event: content_block_delta\ndata: "
      "{\"type\":\"content_block_delta\",\"index\":2,\"delta\":{\"type\":\"input_json_delta\",\"partial_json\":\"{}\"}}"
      "\n\n"
      "event: message_delta\ndata: "
      "{\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"max_tokens\"},\"usage\":{\"output_tokens\":3}}\n\n"
      "event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n");
  const auto chunks = data_of(out);
  ASSERT_EQ(chunks.size(), 7u);
  const auto delta = [&](size_t i) { return chunks[i].at("choices").at(0).at("delta"); };
  EXPECT_EQ(delta(0).at("role"), "assistant");
  EXPECT_EQ(delta(1).at("reasoning_content"), "hm");
  EXPECT_EQ(delta(2).at("content"), "hello");
  EXPECT_EQ(delta(3).at("tool_calls").at(0).at("function").at("name"), "f");
  EXPECT_EQ(delta(4).at("tool_calls").at(0).at("function").at("arguments"), "{}");
  EXPECT_EQ(chunks[5].at("choices").at(0).at("finish_reason"), "length");
  EXPECT_EQ(chunks[6].at("usage").at("prompt_tokens"), 10);
  EXPECT_EQ(chunks[6].at("usage").at("completion_tokens"), 3);
  EXPECT_TRUE(out.ends_with("data: [DONE]\n\n"));
  for (const json::value& chunk : chunks) EXPECT_EQ(chunk.at("id"), "a");
}

// Also where a finish reason of "stop" came with calls, as it does when a function was named.
TEST(TranslateAnswer, CallsAreWhyItStopped) {
  const auto message = chat_answer_to_messages(
      R"({"id":"a","model":"m","choices":[{"message":{"content":null,"tool_calls":[{"id":"c","function":{"name":"f","arguments":""}}]},"finish_reason":"stop"}],
          "usage":{"prompt_tokens":10,"completion_tokens":5,"prompt_cache_hit_tokens":8,"prompt_tokens_details":{"audio_tokens":0}}})");
  ASSERT_TRUE(message.ok());
  EXPECT_EQ(parsed(*message).at("stop_reason"), "tool_use");
  EXPECT_EQ(parsed(*message).at("usage").at("cache_read_input_tokens"), 8);
}

// Odd but legal: a first chunk of annotations without an answer, two calls under one index, and "stop" at their end.
TEST(TranslateStream, OddChunksBecomeEvents) {
  const auto translator = chat_stream_to_messages();
  const auto events = data_of(translated(
      *translator,
      "data: {\"id\":\"\",\"model\":\"\",\"choices\":[],\"prompt_filter_results\":[]}\n\n"
      "data: {\"id\":\"a\",\"model\":\"m\",\"choices\":[{\"delta\":{\"role\":\"assistant\",\"content\":\"\"}}]}\n\n"
      "data: "
      "{\"choices\":[{\"delta\":{\"tool_calls\":[{\"index\":0,\"id\":\"c\",\"function\":{\"name\":\"f\",\"arguments\":"
      "\"{}\"}}]}}]}\n\n"
      "data: "
      "{\"choices\":[{\"delta\":{\"tool_calls\":[{\"index\":0,\"id\":\"d\",\"function\":{\"name\":\"g\",\"arguments\":"
      "\"{\"}}]}}]}\n\n"
      "data: "
      "{\"choices\":[{\"delta\":{\"tool_calls\":[{\"index\":0,\"id\":\"d\",\"function\":{\"arguments\":\"}\"}}]}}]}\n\n"
      "data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n"));
  EXPECT_EQ(events[0].at("message").at("id"), "a");
  EXPECT_EQ(events[0].at("message").at("model"), "m");
  std::map<int64_t, std::string> calls;
  for (const json::value& event : events) {
    if (event.at("type") == "content_block_start")
      calls[event.at("index").as_int64()] = std::string(event.at("content_block").at("name").as_string()) + " ";
    if (event.at("type") == "content_block_delta")
      calls[event.at("index").as_int64()] += event.at("delta").at("partial_json").as_string();
  }
  EXPECT_EQ(calls, (std::map<int64_t, std::string>{{0, "f {}"}, {1, "g {}"}}));
  EXPECT_EQ(events[events.size() - 2].at("delta").at("stop_reason"), "tool_use");
}

// A call without arguments has "{}" in OpenAI's dialect; some upstreams tell the arguments with the block's begin.
TEST(TranslateStream, ACallWithoutDeltasHasItsArguments) {
  const auto translator = messages_stream_to_chat(false);
  const auto chunks =
      data_of(translated(*translator,
                         "data: {\"type\":\"message_start\",\"message\":{\"id\":\"a\",\"model\":\"m\"}}\n\n"
                         "data: "
                         "{\"type\":\"content_block_start\",\"index\":0,\"content_block\":{\"type\":\"tool_use\","
                         "\"id\":\"t\",\"name\":\"f\",\"input\":{}}}\n\n"
                         "data: "
                         "{\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"input_json_delta\","
                         "\"partial_json\":\"\"}}\n\n"
                         "data: {\"type\":\"content_block_stop\",\"index\":0}\n\n"
                         "data: "
                         "{\"type\":\"content_block_start\",\"index\":1,\"content_block\":{\"type\":\"tool_use\","
                         "\"id\":\"u\",\"name\":\"g\",\"input\":{\"a\":1}}}\n\n"
                         "data: {\"type\":\"content_block_stop\",\"index\":1}\n\n"
                         "data: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"tool_use\"}}\n\ndata: "
                         "{\"type\":\"message_stop\"}\n\n"));
  std::map<int64_t, std::string> arguments;
  for (const json::value& chunk : chunks) {
    const json::object& delta = chunk.at("choices").at(0).at("delta").as_object();
    if (!delta.contains("tool_calls")) continue;
    const json::value& call = delta.at("tool_calls").at(0);
    arguments[call.at("index").as_int64()] += call.at("function").at("arguments").as_string();
  }
  EXPECT_EQ(arguments, (std::map<int64_t, std::string>{{0, "{}"}, {1, R"({"a":1})"}}));
}

}  // namespace
}  // namespace spillway::gateway
