// What clients and upstreams send through the gateway: bodies, streams, markers, load reports, and their translation.
// The first byte chooses; the rest is the text. A stream is also split in two at every place the second byte says.
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "base/check.h"
#include "gateway/answer_facts.h"
#include "gateway/body_scan.h"
#include "gateway/discovery.h"
#include "gateway/event_pattern.h"
#include "gateway/prober.h"
#include "gateway/resume.h"
#include "gateway/trace_context.h"
#include "gateway/translate/responses.h"
#include "gateway/translate/translate.h"

using namespace spillway::gateway;

namespace {

std::string split_stream(std::string_view text, size_t piece, Protocol protocol) {
  EventSplitter splitter;
  std::string all;
  for (size_t at = 0; at < text.size(); at += piece) {
    splitter.feed(text.substr(at, piece));
    RawEvent event;
    while (splitter.next(event)) {
      all += event.bytes;
      (void)facts_of_event(protocol, event);
    }
  }
  return all;
}

// What is known of an event by the one before it is what reading it says.
void compare_with_pattern(std::string_view text, Protocol protocol) {
  EventSplitter splitter;
  EventPattern pattern;
  splitter.feed(text);
  for (RawEvent event;;) {
    RawEvent guessed;
    AnswerFacts expected;
    const bool known = pattern.match(splitter.front(), guessed, expected);
    const bool more = splitter.next(event);
    SW_CHECK(more || !known, "a known event is whole");
    if (!more) return;
    const AnswerFacts facts = facts_of_event(protocol, event);
    if (known) {
      SW_CHECK(guessed.bytes == event.bytes && guessed.data == event.data && guessed.name == event.name, "the event");
      SW_CHECK(!event.comment && facts.sound && facts.progress && !facts.done && !facts.error, "its kind");
      SW_CHECK(facts.content == expected.content && facts.reasoning == expected.reasoning, "its words");
      SW_CHECK(facts.text_bytes == expected.text_bytes && facts.index == expected.index, "its size");
      SW_CHECK(!facts.has_usage && !facts.tool_call && facts.finish_reason.empty(), "nothing else");
    }
    pattern.learn(event, facts);
  }
}

void translate_stream(std::string_view text, StreamTranslator& translator) {
  EventSplitter splitter;
  splitter.feed(text);
  RawEvent event;
  std::string out;
  while (splitter.next(event)) {
    if (!translator.event(event, out).ok()) return;
  }
  translator.finish(out);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 2) return 0;
  const std::string_view text(reinterpret_cast<const char*>(data) + 2, size - 2);
  const Protocol protocol = (data[0] & 1) != 0 ? Protocol::kAnthropic : Protocol::kOpenAi;
  switch (data[0] / 2 % 7) {
    case 0: {
      const auto scan = scan_body(text);
      if (!scan.ok()) break;
      SW_CHECK(scan->end < text.size() && text[scan->end] == '}', "the end of a body is its brace");
      SW_CHECK(scan_body(spliced(text, {member(*scan, "spillway_x", "1")})).ok(),
               "a member can be added to what is sound");
      break;
    }
    case 1: {
      const std::string whole = split_stream(text, text.size() + 1, protocol);
      SW_CHECK(split_stream(text, 1 + data[1], protocol) == whole, "events do not depend on the pieces they come in");
      compare_with_pattern(text, protocol);
      break;
    }
    case 2:
      (void)facts_of_body(protocol, text);
      if (protocol == Protocol::kOpenAi)
        (void)chat_answer_to_messages(text);
      else
        (void)messages_answer_to_chat(text);
      break;
    case 3:
      if (protocol == Protocol::kOpenAi)
        (void)chat_to_messages(text, "m", 100);
      else
        (void)messages_to_chat(text, "m");
      break;
    case 4:
      translate_stream(text,
                       protocol == Protocol::kOpenAi ? *chat_stream_to_messages() : *messages_stream_to_chat(true));
      break;
    case 6:
      if (protocol == Protocol::kOpenAi) {
        if (const auto request = responses_to_chat(text); request.ok()) (void)scan_body(request->chat);
      } else {
        (void)chat_answer_to_response({}, text);
        translate_stream(text, *chat_stream_to_response({}));
      }
      break;
    default: {
      Resume resume;
      (void)resume.take_marker(text);
      (void)parse_load_report(text);
      (void)parse_endpoints(text, "");
      (void)continue_trace(text);
    }
  }
  return 0;
}
