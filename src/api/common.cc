#include "api/common.h"

namespace spillway::api {

std::string_view finish_reason_name(FinishReason reason) {
  switch (reason) {
    case FinishReason::kStop:
      return "stop";
    case FinishReason::kLength:
      return "length";
    case FinishReason::kToolCalls:
      return "tool_calls";
    case FinishReason::kContentFilter:
      return "content_filter";
    case FinishReason::kInsufficientSystemResource:
      break;
  }
  return "insufficient_system_resource";
}

namespace {

// Bytes of the character that starts here, or 0 when it is not well-formed.
size_t character_size(std::string_view text) {
  const auto byte = [&](size_t i) { return i < text.size() ? uint8_t(text[i]) : 0u; };
  const auto more = [&](size_t i) { return (byte(i) & 0xC0) == 0x80; };
  const unsigned first = byte(0);
  if (first < 0x80) return 1;
  if (first >= 0xC2 && first <= 0xDF) return more(1) ? 2 : 0;
  if (first >= 0xE0 && first <= 0xEF) {
    const bool fits = (first != 0xE0 || byte(1) >= 0xA0) && (first != 0xED || byte(1) < 0xA0);
    return fits && more(1) && more(2) ? 3 : 0;
  }
  const bool fits =
      first >= 0xF0 && first <= 0xF4 && (first != 0xF0 || byte(1) >= 0x90) && (first != 0xF4 || byte(1) < 0x90);
  return fits && more(1) && more(2) && more(3) ? 4 : 0;
}

}  // namespace

std::string utf8_lossy(std::string_view bytes) {
  std::string out;
  out.reserve(bytes.size());
  while (!bytes.empty()) {
    const size_t size = character_size(bytes);
    if (size > 0) {
      out += bytes.substr(0, size);
    } else {
      out += "\uFFFD";
    }
    bytes.remove_prefix(size > 0 ? size : 1);
  }
  return out;
}

}  // namespace spillway::api
