#include "gateway/event_pattern.h"

#include <gmock/gmock.h>

namespace spillway::gateway {
namespace {

// Its views hold as long as the splitter does.
RawEvent first_of(EventSplitter& splitter, std::string_view text) {
  splitter.feed(text);
  RawEvent event;
  EXPECT_TRUE(splitter.next(event));
  return event;
}

EventPattern learned(Protocol protocol, std::string_view text) {
  EventPattern pattern;
  EventSplitter splitter;
  const RawEvent event = first_of(splitter, text);
  pattern.learn(event, facts_of_event(protocol, event));
  return pattern;
}

std::string chat(std::string_view delta, std::string_view finish = "null") {
  return R"(data: {"id":"c","object":"chat.completion.chunk","model":"m","choices":[{"index":0,"delta":)" +
         std::string(delta) + R"(,"finish_reason":)" + std::string(finish) + "}]}\n\n";
}

// What it says of an event is what reading it says.
void expect_same(const EventPattern& pattern, Protocol protocol, const std::string& text) {
  RawEvent event;
  AnswerFacts facts;
  const std::string more = text + "data: more";
  ASSERT_TRUE(pattern.match(more, event, facts)) << text;
  EventSplitter splitter;
  const RawEvent read = first_of(splitter, text);
  const AnswerFacts known = facts_of_event(protocol, read);
  EXPECT_EQ(event.bytes, read.bytes);
  EXPECT_EQ(event.data, read.data);
  EXPECT_EQ(event.name, read.name);
  EXPECT_EQ(event.comment, read.comment);
  EXPECT_EQ(facts.content, known.content);
  EXPECT_EQ(facts.reasoning, known.reasoning);
  EXPECT_EQ(facts.text_bytes, known.text_bytes);
  EXPECT_EQ(facts.index, known.index);
  EXPECT_TRUE(facts.sound && facts.progress && known.sound && known.progress);
  EXPECT_FALSE(facts.done || known.done || known.has_usage || known.error);
}

TEST(EventPattern, KnowsEventsThatDifferInTheirWordsAlone) {
  const EventPattern words = learned(Protocol::kOpenAi, chat(R"({"content":"one "})"));
  expect_same(words, Protocol::kOpenAi, chat(R"({"content":"two\n\"three\" \u4f60"})"));
  expect_same(words, Protocol::kOpenAi, chat(R"({"content":"\\"})"));
  const EventPattern thoughts = learned(Protocol::kOpenAi, chat(R"({"reasoning_content":"hm"})"));
  expect_same(thoughts, Protocol::kOpenAi, chat(R"({"reasoning_content":"so"})"));
  const std::string delta = R"(data: {"type":"content_block_delta","index":2,"delta":{"type":"text_delta","text":")";
  const EventPattern block = learned(Protocol::kAnthropic, "event: content_block_delta\r\n" + delta + "a\"}}\r\n\r\n");
  expect_same(block, Protocol::kAnthropic, "event: content_block_delta\r\n" + delta + "bc\"}}\r\n\r\n");
}

TEST(EventPattern, LeavesEverythingElseToTheReader) {
  const EventPattern pattern = learned(Protocol::kOpenAi, chat(R"({"content":"one "})"));
  RawEvent event;
  AnswerFacts facts;
  for (const std::string& other :
       {chat(R"({"content":""})"), chat(R"({"content":"a","x":"b"})"), chat(R"({"content":"a"})", "\"stop\""),
        chat(R"({"content":"a\"})"), chat("{\"content\":\"a\nb\"}"), chat(R"({"reasoning_content":"a"})"),
        chat(R"({"content":"a"})").substr(0, 100), chat("{\"content\":\"bad \\x\"}"), std::string("data: [DONE]\n\n"),
        std::string()}) {
    EXPECT_FALSE(pattern.match(other, event, facts)) << other;
  }
}

TEST(EventPattern, KeepsNothingThatTellsMore) {
  RawEvent event;
  AnswerFacts facts;
  for (const std::string& text :
       {chat(R"({"content":"a"})", "\"stop\""), chat(R"({"content":"a","reasoning_content":"b"})"),
        chat(R"({"content":"a","tool_calls":[{"index":0}]})"), std::string("data: {\"error\":{\"message\":\"a\"}}\n\n"),
        std::string("data: {\"choices\":[],\"usage\":{\"prompt_tokens\":1}}\n\n"),
        std::string("data: {\"choices\":[{\"delta\":\ndata: {\"content\":\"a\"}}]}\n\n")}) {
    EXPECT_FALSE(learned(Protocol::kOpenAi, text).match(text, event, facts)) << text;
  }
}

}  // namespace
}  // namespace spillway::gateway
