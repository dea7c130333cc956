// What the gateway must know of a request's body, found in one walk over its bytes: enough to choose an upstream and to
// change the few fields it changes, without decoding the rest. The bytes themselves go on as they came. Pure; any
// thread.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/result.h"

namespace spillway::gateway {

// A piece of the body: body.substr(begin, size).
struct Span {
  size_t begin = 0;
  size_t size = 0;
  std::string_view of(std::string_view body) const { return body.substr(begin, size); }
};

struct BodyScan {
  Span model;  // raw, without quotes; size 0: none
  bool stream = false;
  Span stream_options;  // the value; size 0: none
  bool include_usage = false;
  std::optional<int64_t> max_tokens;  // max_tokens or max_completion_tokens
  int64_t n = 1;
  std::optional<int64_t> seed;
  bool tools = false;
  bool images = false;
  bool logprobs = false;
  Span messages;           // the value of "messages" (chat, Anthropic); size 0: none
  Span user;               // raw string
  int64_t text_bytes = 0;  // of strings inside messages, prompt, input and system
  size_t end = 0;          // of the closing brace
  bool empty = true;       // no members at all
};

// Errors: not JSON, not an object, "model" or "stream" of another type, "model" twice.
Result<BodyScan> scan_body(std::string_view body);

// The body with changes: each replaces its span, in order of begin; a span of size 0 inserts.
struct Splice {
  Span where;
  std::string text;
};
std::string spliced(std::string_view body, const std::vector<Splice>& splices);

// What asks an OpenAI-like upstream for the usage of a stream whose client did not; nothing: it is asked for, or cannot
// be.
std::optional<Splice> asking_for_usage(std::string_view body, const BodyScan& scan);

// A splice that adds a member at the end of the object.
Splice member(const BodyScan& scan, std::string_view name, std::string_view json);

}  // namespace spillway::gateway
