// Splits a byte stream into server-sent events without copying what arrives whole: each event is shown with its exact
// bytes, so that it can be passed on as it came, and with its data. One a stream; no I/O. net::SseParser is for those
// who need the events' fields; this is for those who forward them.
#pragma once

#include <string>
#include <string_view>

#include "base/result.h"

namespace spillway::gateway {

struct RawEvent {
  std::string_view bytes;         // with the blank line that ends it
  std::string_view name;          // of "event:", empty when there is none
  std::string_view data;          // lines joined with '\n'
  bool comment = false;           // only comment lines (and blank ones)
  std::string_view comment_text;  // of its first comment line, without ':' and the space
};

class EventSplitter {
 public:
  explicit EventSplitter(size_t event_bytes_max = 8 << 20) : event_bytes_max_(event_bytes_max) {}

  // Shows new bytes; then next() until it gives false. The bytes must stay until then.
  void feed(std::string_view bytes);
  // The views hold until the next call of feed() or next().
  bool next(RawEvent& event);
  // What next() would begin with; empty while an event is unfinished. take(): the first bytes of it were an event.
  std::string_view front() const { return carried_.empty() ? rest_ : std::string_view(); }
  void take(size_t bytes) { rest_.remove_prefix(bytes); }

  bool too_long() const { return rest_.size() + carried_.size() > event_bytes_max_; }
  // Bytes of an unfinished event.
  std::string_view unfinished() const { return carried_; }

 private:
  void parse(std::string_view bytes, RawEvent& event);

  const size_t event_bytes_max_;
  std::string carried_;    // an unfinished event of earlier pieces
  std::string whole_;      // an event made of several pieces
  std::string joined_;     // its data, when that is more than one line
  std::string_view rest_;  // of the piece being looked at
};

}  // namespace spillway::gateway
