// Server-sent events: writing them, and reading them incrementally from any cut of the byte stream. No I/O, no JSON.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>

#include "base/result.h"

namespace spillway::net {

struct SseEvent {
  std::string event;  // empty means "message"
  std::string data;   // lines joined with '\n'
  std::string id;     // the last id seen on the stream
  std::optional<int64_t> retry_ms;
  bool is_comment = false;  // ": text"; data is then the text
};

// The first CR or LF at or after from; npos when there is none.
size_t find_line_break(std::string_view text, size_t from = 0);

// Appends one event; data may hold line feeds. The event name must hold none.
void append_sse_event(std::string& out, std::string_view data, std::string_view event = {}, std::string_view id = {});
void append_sse_comment(std::string& out, std::string_view text);

// Headers of a stream: no caching, no proxy buffering.
inline constexpr std::string_view kSseContentType = "text/event-stream; charset=utf-8";

class SseParser {
 public:
  using OnEvent = std::function<void(const SseEvent&)>;

  explicit SseParser(size_t event_bytes_max = 4 << 20) : event_bytes_max_(event_bytes_max) {}

  // Calls on_event for each event and comment completed by these bytes. An event over the bound is an error, and the
  // stream is then not to be read further.
  Status feed(std::string_view bytes, const OnEvent& on_event);

  // Whether bytes of an unfinished event are held: a stream that ends so was cut.
  bool in_event() const { return !line_.empty() || has_data_; }

 private:
  void take_line(std::string_view line, const OnEvent& on_event);
  void dispatch(const OnEvent& on_event);

  const size_t event_bytes_max_;
  std::string line_;  // an unfinished line
  SseEvent event_;
  bool has_data_ = false;
  bool after_cr_ = false;  // a line feed that follows belongs to the line end already taken
  bool at_start_ = true;   // a byte order mark may come
};

}  // namespace spillway::net
