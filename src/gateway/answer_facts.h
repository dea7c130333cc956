// What the gateway must know of an answer that it passes on: whether an event or a body is sound, makes progress, ends
// the answer, tells an error or the usage. Views into the bytes shown; nothing is built. Pure; any thread.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "gateway/sse_events.h"
#include "gateway/tenants.h"

namespace spillway::gateway {

// How an answer is worded.
enum class Protocol { kOpenAi, kAnthropic };

struct AnswerFacts {
  bool sound = false;       // JSON (or [DONE]) of the shape expected here
  bool done = false;        // the last event: "[DONE]", message_stop
  bool progress = false;    // text, reasoning or a tool call in it
  bool usage_only = false;  // a chunk whose only news is the usage
  bool has_usage = false;
  TokenUsage usage;
  std::string_view finish_reason;  // empty: none yet
  std::string_view content;        // raw JSON string of the text in it, where it is one choice's
  std::string_view reasoning;
  int64_t text_bytes = 0;       // content, reasoning and tool arguments
  int64_t index = 0;            // the highest index of its choices; Anthropic: of the block
  std::string_view type;        // Anthropic: of the event
  std::string_view index_text;  // Anthropic: where the index stands
  bool tool_call = false;
  std::string_view id;
  std::string_view model;

  bool error = false;
  std::string_view error_message;  // raw
  std::string_view error_code;     // code or type, raw
};

// An event of a stream.
AnswerFacts facts_of_event(Protocol protocol, const RawEvent& event);

// A whole answer. Embeddings and rankings ("data", "results") count as progress too.
AnswerFacts facts_of_body(Protocol protocol, std::string_view body);

}  // namespace spillway::gateway
