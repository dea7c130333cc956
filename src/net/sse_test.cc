#include "net/sse.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace spillway::net {
namespace {

std::vector<std::string> events_of(const std::string& stream, size_t cut) {
  SseParser parser;
  std::vector<std::string> seen;
  const auto on_event = [&](const SseEvent& event) {
    seen.push_back((event.is_comment ? "#" : event.event + "|" + event.id + "|") + event.data +
                   (event.retry_ms ? "~" + std::to_string(*event.retry_ms) : ""));
  };
  for (size_t at = 0; at < stream.size(); at += cut) {
    EXPECT_TRUE(parser.feed(std::string_view(stream).substr(at, cut), on_event).ok());
  }
  return seen;
}

TEST(LineBreak, IsTheFirstOfEitherKind) {
  EXPECT_EQ(find_line_break(""), std::string_view::npos);
  EXPECT_EQ(find_line_break("abc"), std::string_view::npos);
  for (const size_t at : {0u, 1u, 511u, 512u, 513u, 2000u}) {
    for (const char* end : {"\n", "\r", "\r\n", "\n\r"}) {
      const std::string text = std::string(at, 'a') + end + std::string(700, 'b') + "\r\n";
      EXPECT_EQ(find_line_break(text), at) << at;
      EXPECT_EQ(find_line_break(text, at), at);
      EXPECT_EQ(find_line_break(text, at + 2), at + std::string_view(end).size() + 700);
    }
  }
}

TEST(Sse, ReadsTheSameFromAnyCutAndLineEnd) {
  const std::string stream =
      "\xEF\xBB\xBF: keep-alive\n\ndata: one\n\nevent: tick\ndata:two\ndata:  lines\nid: 7\nretry: 250\n\nunknown: "
      "x\ndata\n\nevent: dropped\n\ndata: [DONE]\n\ndata: unfinished";
  const std::vector<std::string> expected = {"#keep-alive", "||one", "tick|7|two\n lines~250", "|7|", "|7|[DONE]"};
  std::string crlf, cr;
  for (char c : stream) {
    crlf += c == '\n' ? "\r\n" : std::string(1, c);
    cr += c == '\n' ? '\r' : c;
  }
  for (size_t cut : {1, 2, 3, 7, 1000}) {
    EXPECT_EQ(events_of(stream, cut), expected) << cut;
    EXPECT_EQ(events_of(crlf, cut), expected) << cut;
    EXPECT_EQ(events_of(cr, cut), expected) << cut;
  }
}

TEST(Sse, WhatIsWrittenReadsBack) {
  std::string out;
  append_sse_event(out, "plain");
  append_sse_event(out, "with\nline\r\nfeeds\n", "name", "id1");
  append_sse_comment(out, "keep-alive");
  EXPECT_THAT(out, testing::StartsWith("data: plain\n\nevent: name\nid: id1\ndata: with\n"));
  EXPECT_THAT(events_of(out, 5), testing::ElementsAre("||plain", "name|id1|with\nline\nfeeds\n", "#keep-alive"));
}

TEST(Sse, AnEndlessEventIsAnError) {
  SseParser parser(100);
  const auto ignore = [](const SseEvent&) {};
  EXPECT_TRUE(parser.feed("data: " + std::string(60, 'x') + "\n", ignore).ok());
  const Status second = parser.feed("data: " + std::string(60, 'x'), ignore);
  ASSERT_FALSE(second.ok());
  EXPECT_EQ(second.error().code, ErrorCode::kCorrupt);
}

TEST(Sse, KnowsWhenAStreamWasCut) {
  SseParser parser;
  const auto ignore = [](const SseEvent&) {};
  ASSERT_TRUE(parser.feed("data: a\n\n", ignore).ok());
  EXPECT_FALSE(parser.in_event());
  ASSERT_TRUE(parser.feed("da", ignore).ok());
  EXPECT_TRUE(parser.in_event());
  ASSERT_TRUE(parser.feed("ta: b\n", ignore).ok());
  EXPECT_TRUE(parser.in_event());
}

}  // namespace
}  // namespace spillway::net
