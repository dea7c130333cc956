// What is read of bodies, events and answers without decoding them.
#include <gtest/gtest.h>

#include "gateway/answer_facts.h"
#include "gateway/body_scan.h"
#include "gateway/json_cursor.h"
#include "gateway/resume.h"
#include "gateway/trace_context.h"

namespace spillway::gateway {
namespace {

TEST(BodyScan, FindsWhatRoutingNeeds) {
  const std::string body =
      R"( {"stream":true,"messages":[{"role":"user","content":[{"type":"text","text":"hello"},{"type":"image_url","image_url":{"url":"u"}}]}],)"
      R"("model":"a\"b","max_tokens":7,"tools":[{}],"stream_options":{"include_usage":true},"user":"me","n":2} )";
  const auto scan = scan_body(body);
  ASSERT_TRUE(scan.ok()) << scan.error().message;
  EXPECT_EQ(scan->model.of(body), R"(a\"b)");
  EXPECT_TRUE(scan->stream && scan->tools && scan->images && scan->include_usage);
  EXPECT_EQ(scan->max_tokens, 7);
  EXPECT_EQ(scan->n, 2);
  EXPECT_EQ(scan->user.of(body), "me");
  EXPECT_EQ(scan->text_bytes, 5);
  EXPECT_EQ(body[scan->end], '}');
  EXPECT_TRUE(scan->messages.of(body).starts_with("[{") && scan->messages.of(body).ends_with("}]"));
}

TEST(BodyScan, RefusesWhatIsNotSound) {
  for (const char* body : {"", "[]", "{", R"({"model":1})", R"({"model":"a","model":"b"})", R"({"stream":"yes"})",
                           R"({"a":1}x)", R"({"messages":{}})", R"({"a":"\x"})", R"({"a":01})"}) {
    EXPECT_FALSE(scan_body(body).ok()) << body;
  }
  std::string deep = R"({"a":)" + std::string(100000, '[') + std::string(100000, ']') + "}";
  EXPECT_FALSE(scan_body(deep).ok());
}

TEST(BodyScan, SplicesChangeOnlyTheirPlaces) {
  const std::string body = R"({"model":"a","x":[1, 2]})";
  const auto scan = scan_body(body);
  ASSERT_TRUE(scan.ok());
  EXPECT_EQ(spliced(body, {{{scan->model.begin - 1, scan->model.size + 2}, "\"longer\""}, member(*scan, "y", "3")}),
            R"({"model":"longer","x":[1, 2],"y":3})");
}

TEST(EventSplitter, GivesEveryByteBackWhateverThePieces) {
  const std::string stream = ": c\n\ndata: {\"a\":1}\r\n\r\nevent: x\ndata: one\ndata: two\n\ndata: [DONE]\n\n";
  for (size_t piece = 1; piece <= stream.size(); ++piece) {
    EventSplitter splitter;
    std::string all, data;
    for (size_t at = 0; at < stream.size(); at += piece) {
      const std::string part = stream.substr(at, piece);
      splitter.feed(part);
      RawEvent event;
      while (splitter.next(event)) {
        all += event.bytes;
        data += std::string(event.data) + "|";
      }
    }
    EXPECT_EQ(all, stream) << piece;
    EXPECT_EQ(data, "|{\"a\":1}|one\ntwo|[DONE]|") << piece;
  }
}

AnswerFacts event_facts(std::string_view data, Protocol protocol = Protocol::kOpenAi) {
  RawEvent event;
  event.data = data;
  return facts_of_event(protocol, event);
}

TEST(AnswerFacts, TellsProgressFromNoise) {
  EXPECT_FALSE(event_facts(R"({"choices":[{"delta":{"role":"assistant","content":""}}]})").progress);
  EXPECT_TRUE(event_facts(R"({"choices":[{"delta":{"content":"x"}}]})").progress);
  EXPECT_TRUE(event_facts(R"({"choices":[{"delta":{"reasoning_content":"x"}}]})").progress);
  EXPECT_TRUE(event_facts(R"({"choices":[{"delta":{"tool_calls":[{"index":0}]}}]})").tool_call);
  EXPECT_EQ(event_facts(R"({"choices":[{"delta":{},"finish_reason":"length"}]})").finish_reason, "length");
  EXPECT_TRUE(event_facts("[DONE]").done);
  EXPECT_FALSE(event_facts(R"({"choices":[{"del)").sound);
  EXPECT_FALSE(event_facts("oops").sound);
}

TEST(AnswerFacts, ReadsErrorsAndUsageOfBothDialects) {
  const AnswerFacts error = event_facts(R"({"error":{"message":"busy","type":"t","code":"server_overloaded"}})");
  EXPECT_TRUE(error.error);
  EXPECT_EQ(error.error_code, "server_overloaded");
  EXPECT_FALSE(event_facts(R"({"choices":[],"error":null})").error);
  const AnswerFacts openai = facts_of_body(
      Protocol::kOpenAi,
      R"({"choices":[{"message":{"content":"x"},"finish_reason":"stop"}],"usage":{"prompt_tokens":9,"completion_tokens":2,"prompt_tokens_details":{"cached_tokens":4}}})");
  EXPECT_EQ(openai.usage.prompt_tokens, 9);
  EXPECT_EQ(openai.usage.cached_tokens, 4);
  const AnswerFacts anthropic = facts_of_body(
      Protocol::kAnthropic,
      R"({"type":"message","content":[{"type":"text","text":"x"}],"stop_reason":"end_turn","usage":{"input_tokens":5,"cache_read_input_tokens":4,"output_tokens":2}})");
  EXPECT_TRUE(anthropic.sound && anthropic.progress);
  EXPECT_EQ(anthropic.usage.prompt_tokens, 9);
  EXPECT_EQ(anthropic.usage.output_tokens, 2);
}

TEST(JsonCursor, UnescapesAndRefusesBrokenEscapes) {
  EXPECT_EQ(unescaped(R"(a\n\u00e9\ud83d\ude00)"), "a\n\xC3\xA9\xF0\x9F\x98\x80");
  EXPECT_EQ(unescaped(R"(\ud83d)"), "\xEF\xBF\xBD");
  EXPECT_FALSE(unescaped(R"(\u00g0)").has_value());
  EXPECT_FALSE(unescaped("\\").has_value());
}

TEST(Resume, MarkersAddUpAndOthersAreNone) {
  Resume resume;
  EXPECT_FALSE(resume.take_marker("keep-alive"));
  EXPECT_FALSE(resume.take_marker("spillway {\"tokens\":[1,"));
  EXPECT_TRUE(resume.take_marker(R"(spillway {"id":"a","created":5,"seed":7,"tokens":[]})"));
  EXPECT_TRUE(resume.take_marker(R"(spillway {"tokens":[1,2]})"));
  EXPECT_TRUE(resume.take_marker(R"(spillway {"tokens":[3]})"));
  EXPECT_EQ(resume.json(), R"({"id":"a","created":5,"seed":7,"tokens":[1,2,3]})");
}

TEST(TraceContext, ContinuesWellFormedTracesOnly) {
  const auto context = continue_trace("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01");
  ASSERT_TRUE(context.has_value());
  EXPECT_EQ(context->trace_text(), "4bf92f3577b34da6a3ce929d0e0e4736");
  EXPECT_TRUE(context->sampled);
  const std::string header = context->header(context->span_id);
  EXPECT_TRUE(header.starts_with("00-4bf92f3577b34da6a3ce929d0e0e4736-"));
  EXPECT_EQ(header.find("00f067aa0ba902b7"), std::string::npos);
  EXPECT_EQ(header.size(), 55u);
  EXPECT_TRUE(continue_trace("cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-later").has_value());
  for (const char* wrong : {"", "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
                            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
                            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
                            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
                            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more"}) {
    EXPECT_FALSE(continue_trace(wrong).has_value()) << wrong;
  }
  EXPECT_NE(begin_trace().trace_id, begin_trace().trace_id);
}

}  // namespace
}  // namespace spillway::gateway
