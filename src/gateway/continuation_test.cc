#include "gateway/continuation.h"

#include <gmock/gmock.h>

namespace spillway::gateway {
namespace {

std::shared_ptr<Resume> told(std::string content) {
  auto resume = std::make_shared<Resume>();
  resume->content = std::move(content);
  resume->id = "first";
  return resume;
}

// What the client gets of a stream of events.
std::string edited(Continuation& continuation, Protocol protocol, std::string_view stream) {
  EventSplitter splitter;
  splitter.feed(stream);
  std::string out;
  for (RawEvent event; splitter.next(event);) {
    AnswerFacts facts = facts_of_event(protocol, event);
    if (const auto news = continuation.edit(event, facts)) out += news->bytes;
  }
  return out;
}

TEST(Continuation, BlanksAtTheEndAreFoundAlsoAsEscapes) {
  EXPECT_EQ(without_last_blanks(R"(one two \n\t \u000a\u0020)"), "one two");
  EXPECT_EQ(without_last_blanks(R"(back\\n)"), R"(back\\n)");  // a backslash and an n
  EXPECT_EQ(without_last_blanks(R"(\u4f60\u597d)"), R"(\u4f60\u597d)");
  EXPECT_EQ(without_last_blanks(R"( \n )"), "");
  EXPECT_EQ(without_last_blanks(R"(a \u00)"), R"(a \u00)");
}

constexpr std::string_view kStart =
    "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"id\":\"m\"}}\n\n";

TEST(Continuation, AnthropicGetsNoBlanksAndItsOwnAreDropped) {
  auto said = told(R"(one \n\n)");
  said->block = 1;
  said->block_open = true;
  Continuation continuation(said, Protocol::kAnthropic);
  EXPECT_EQ(continuation.prefix(), "one");
  const std::string out =
      edited(continuation, Protocol::kAnthropic,
             std::string(kStart) +
                 R"(data: {"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}})"
                 "\n\n"
                 R"(data: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":" \n"}})"
                 "\n\n"
                 R"(data: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"\n\n two"}})"
                 "\n\n"
                 R"(data: {"type":"content_block_stop","index":0})"
                 "\n\n");
  EXPECT_EQ(out, R"(data: {"type":"content_block_delta","index":1,"delta":{"type":"text_delta","text":""}})"
                 "\n\n"
                 R"(data: {"type":"content_block_delta","index":1,"delta":{"type":"text_delta","text":"\n two"}})"
                 "\n\n"
                 R"(data: {"type":"content_block_stop","index":1})"
                 "\n\n");
}

TEST(Continuation, ACallAfterTheTextClosesItsBlock) {
  auto said = told("let me see");
  said->block = 0;
  said->block_open = true;
  Continuation continuation(said, Protocol::kAnthropic);
  const std::string out =
      edited(continuation, Protocol::kAnthropic,
             std::string(kStart) +
                 R"(data: {"type":"content_block_start","index":0,"content_block":{"type":"tool_use","name":"text"}})"
                 "\n\n");
  EXPECT_EQ(out,
            "event: content_block_stop\ndata: {\"type\":\"content_block_stop\",\"index\":0}\n\n"
            R"(data: {"type":"content_block_start","index":1,"content_block":{"type":"tool_use","name":"text"}})"
            "\n\n");
}

TEST(Continuation, OpenAisWordsStayAndItsIdIsTheFirst) {
  Continuation continuation(told("one "), Protocol::kOpenAi);
  EXPECT_EQ(continuation.prefix(), "one ");
  EXPECT_EQ(edited(continuation, Protocol::kOpenAi,
                   R"(data: {"id":"b","choices":[{"index":0,"delta":{"role":"assistant","content":""}}]})"
                   "\n\n"
                   R"(data: {"id":"b","choices":[{"index":0,"delta":{"content":" two"}}]})"
                   "\n\n"
                   "data: [DONE]\n\n"),
            R"(data: {"id":"first","choices":[{"index":0,"delta":{"content":" two"}}]})"
            "\n\ndata: [DONE]\n\n");
}

}  // namespace
}  // namespace spillway::gateway
