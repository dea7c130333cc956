#include "gateway/sse_events.h"

#include <algorithm>

#include "net/sse.h"

namespace spillway::gateway {
namespace {

// Where the event that begins the text ends (after its blank line); 0 when it does not end here.
size_t end_of_event(std::string_view text, size_t from) {
  if (from > 0 && text[from] == '\n' && text[from - 1] == '\r') --from;  // not between the halves of a line's end
  while (from < text.size()) {
    const size_t at = net::find_line_break(text, from);
    if (at == std::string_view::npos) return 0;
    size_t after = at + 1;
    if (text[at] == '\r') {
      if (after == text.size()) return 0;  // a line feed may follow
      if (text[after] == '\n') ++after;
    }
    const bool blank = at == 0 || text[at - 1] == '\n' || text[at - 1] == '\r';
    if (blank) return after;
    from = after;
  }
  return 0;
}

std::string_view field_value(std::string_view line, size_t colon) {
  std::string_view value = line.substr(std::min(colon + 1, line.size()));
  if (value.starts_with(' ')) value.remove_prefix(1);
  return value;
}

}  // namespace

void EventSplitter::feed(std::string_view bytes) { rest_ = bytes; }

bool EventSplitter::next(RawEvent& event) {
  if (carried_.empty()) {
    const size_t end = end_of_event(rest_, 0);
    if (end == 0) {
      carried_ = rest_;
      rest_ = {};
      return false;
    }
    parse(rest_.substr(0, end), event);
    rest_.remove_prefix(end);
    return true;
  }
  if (rest_.empty()) return false;
  const size_t had = carried_.size();
  carried_.append(rest_);
  const size_t end = end_of_event(carried_, had >= 2 ? had - 2 : 0);
  if (end == 0) {
    rest_ = {};
    return false;
  }
  // The tail goes back to the piece it came from; an end inside the carried bytes would have been found before.
  whole_.assign(carried_, 0, end);
  carried_.clear();
  rest_.remove_prefix(end > had ? end - had : 0);
  parse(whole_, event);
  return true;
}

void EventSplitter::parse(std::string_view bytes, RawEvent& event) {
  event = {};
  event.bytes = bytes;
  event.comment = true;
  bool has_data = false;
  for (size_t at = 0; at < bytes.size();) {
    const size_t end = std::min(net::find_line_break(bytes, at), bytes.size());
    const std::string_view line = bytes.substr(at, end - at);
    at = end + 1;
    if (line.empty()) continue;
    const size_t colon = line.find(':');
    const std::string_view field = line.substr(0, colon);
    const std::string_view value = colon == std::string_view::npos ? std::string_view() : field_value(line, colon);
    if (field.empty()) {
      if (event.comment_text.empty()) event.comment_text = value;
      continue;
    }
    event.comment = false;
    if (field == "event") event.name = value;
    if (field != "data") continue;
    if (!has_data) {
      event.data = value;
      has_data = true;
      continue;
    }
    if (event.data.data() != joined_.data()) joined_.assign(event.data);
    joined_.append("\n").append(value);
    event.data = joined_;
  }
}

}  // namespace spillway::gateway
