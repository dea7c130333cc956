#include "net/sse.h"

#include <algorithm>
#include <charconv>

namespace spillway::net {

// find_first_of looks each byte up in the set; memchr takes 32 at a time. By blocks, so that a text with only one of
// the two is not searched to its end for the other at each line.
size_t find_line_break(std::string_view text, size_t from) {
  constexpr size_t kBlock = 512;
  for (; from < text.size(); from += kBlock) {
    std::string_view block = text.substr(from, kBlock);
    const size_t feed = block.find('\n');
    block = block.substr(0, feed);
    const size_t end = std::min(block.find('\r'), feed);
    if (end != std::string_view::npos) return from + end;
  }
  return std::string_view::npos;
}

void append_sse_event(std::string& out, std::string_view data, std::string_view event, std::string_view id) {
  if (!event.empty()) out.append("event: ").append(event).append("\n");
  if (!id.empty()) out.append("id: ").append(id).append("\n");
  while (true) {
    const size_t end = find_line_break(data);
    out.append("data: ").append(data.substr(0, end)).append("\n");
    if (end == std::string_view::npos) break;
    data.remove_prefix(end + (data.substr(end).starts_with("\r\n") ? 2 : 1));
  }
  out += '\n';
}

void append_sse_comment(std::string& out, std::string_view text) {
  while (true) {
    const size_t end = find_line_break(text);
    out.append(": ").append(text.substr(0, end)).append("\n");
    if (end == std::string_view::npos) break;
    text.remove_prefix(end + 1);
  }
  out += '\n';
}

Status SseParser::feed(std::string_view bytes, const OnEvent& on_event) {
  while (!bytes.empty()) {
    if (after_cr_) {
      after_cr_ = false;
      if (bytes.front() == '\n') {
        bytes.remove_prefix(1);
        continue;
      }
    }
    const size_t end = find_line_break(bytes);
    const std::string_view piece = bytes.substr(0, end);
    if (line_.size() + piece.size() + event_.data.size() > event_bytes_max_) {
      return corrupt("event stream: expected an event of at most " + std::to_string(event_bytes_max_) +
                     " bytes, found a longer one");
    }
    if (end == std::string_view::npos) {
      line_.append(piece);
      return {};
    }
    if (line_.empty()) {
      take_line(piece, on_event);
    } else {
      line_.append(piece);
      take_line(line_, on_event);
      line_.clear();
    }
    after_cr_ = bytes[end] == '\r';
    bytes.remove_prefix(end + 1);
  }
  return {};
}

void SseParser::take_line(std::string_view line, const OnEvent& on_event) {
  if (at_start_ && line.starts_with("\xEF\xBB\xBF")) line.remove_prefix(3);
  at_start_ = false;
  if (line.empty()) return dispatch(on_event);
  const size_t colon = line.find(':');
  const std::string_view field = line.substr(0, colon);
  std::string_view value = colon == std::string_view::npos ? std::string_view() : line.substr(colon + 1);
  if (value.starts_with(' ')) value.remove_prefix(1);
  if (colon == 0) {
    SseEvent comment;
    comment.data = value;
    comment.is_comment = true;
    on_event(comment);
  } else if (field == "data") {
    if (has_data_) event_.data += '\n';
    event_.data += value;
    has_data_ = true;
  } else if (field == "event") {
    event_.event = value;
  } else if (field == "id") {
    if (value.find('\0') == std::string_view::npos) event_.id = value;
  } else if (field == "retry") {
    int64_t retry = 0;
    const auto parsed = std::from_chars(value.data(), value.data() + value.size(), retry);
    const bool digits = value.find_first_not_of("0123456789") == std::string_view::npos;
    if (!value.empty() && digits && parsed.ec == std::errc()) event_.retry_ms = retry;
  }
}

// An event without data is dropped, as the standard says; the id stays for those that follow.
void SseParser::dispatch(const OnEvent& on_event) {
  if (has_data_) on_event(event_);
  event_.event.clear();
  event_.data.clear();
  event_.retry_ms.reset();
  has_data_ = false;
}

}  // namespace spillway::net
