#include "gateway/continuation.h"

#include <fmt/format.h>

#include <algorithm>

#include "gateway/json_cursor.h"

namespace spillway::gateway {
namespace {

// How many raw bytes the character at the front is, and what blank it is (0: none).
struct Front {
  size_t bytes = 0;
  char blank = 0;
};

Front front_of(std::string_view raw) {
  if (raw.empty()) return {};
  if (raw[0] == ' ') return {1, ' '};
  if (raw[0] != '\\' || raw.size() < 2) return {1, 0};
  switch (raw[1]) {
    case 'n':
      return {2, '\n'};
    case 't':
      return {2, '\t'};
    case 'r':
      return {2, '\r'};
    case 'f':
      return {2, '\f'};
    case 'u':
      break;
    default:
      return {2, 0};
  }
  const auto unit = unescaped(raw.substr(0, std::min<size_t>(6, raw.size())));
  const bool blank = unit && unit->size() == 1 && std::string_view(" \n\t\r\f\v").find((*unit)[0]) != unit->npos;
  return {std::min<size_t>(6, raw.size()), blank ? (*unit)[0] : '\0'};
}

}  // namespace

std::string_view without_last_blanks(std::string_view raw) {
  size_t end = 0;
  for (size_t at = 0; at < raw.size();) {
    const Front front = front_of(raw.substr(at));
    at += front.bytes;
    if (front.blank == 0) end = at;
  }
  return raw.substr(0, end);
}

Continuation::Continuation(std::shared_ptr<const Resume> told, Protocol protocol)
    : told_(std::move(told)),
      protocol_(protocol),
      prefix_(protocol == Protocol::kAnthropic ? without_last_blanks(told_->content)
                                               : std::string_view(told_->content)) {
  for (std::string_view rest = std::string_view(told_->content).substr(prefix_.size()); !rest.empty();) {
    const Front front = front_of(rest);
    blanks_ += front.blank;
    rest.remove_prefix(front.bytes);
  }
}

// Whether the block that begins is the client's last one, which is still open.
bool Continuation::goes_on(const RawEvent& event, const AnswerFacts& facts) const {
  return !shift_ && told_->block_open && !facts.tool_call && event.data.find("\"text\"") != event.data.npos;
}

bool Continuation::seen(const RawEvent& event, const AnswerFacts& facts) {
  if (protocol_ == Protocol::kOpenAi) {  // the first event says only who speaks
    return !facts.progress && !facts.has_usage && !facts.done && facts.finish_reason.empty();
  }
  if (facts.type == "message_start") return true;
  if (facts.type != "content_block_start") return false;
  const bool same = goes_on(event, facts);
  if (!shift_) {
    shift_ = told_->block + (same ? 0 : 1) - facts.index;
    if (!same && told_->block_open) {
      stop_ = fmt::format("event: content_block_stop\ndata: {{\"type\":\"content_block_stop\",\"index\":{}}}\n\n",
                          told_->block);
    }
  }
  return same;
}

// How much of the content is the blanks that the prefix was without.
size_t Continuation::blanks_to_drop(std::string_view content) {
  size_t dropped = 0;
  while (!blanks_.empty() && dropped < content.size()) {
    const Front front = front_of(content.substr(dropped));
    if (front.blank != blanks_[0]) {
      blanks_.clear();
      break;
    }
    blanks_.erase(0, 1);
    dropped += front.bytes;
  }
  return dropped;
}

std::optional<RawEvent> Continuation::edit(const RawEvent& event, AnswerFacts& facts) {
  if (seen(event, facts)) return std::nullopt;
  splices_.clear();
  const auto place = [&](std::string_view part) { return Span{size_t(part.data() - event.data.data()), part.size()}; };
  if (const size_t dropped = blanks_to_drop(facts.content); dropped > 0) {
    splices_.push_back({place(facts.content.substr(0, dropped)), ""});
    facts.content.remove_prefix(dropped);
  }
  if (protocol_ == Protocol::kOpenAi && !facts.id.empty() && !told_->id.empty()) {
    splices_.push_back({place(facts.id), told_->id});
  }
  if (!facts.index_text.empty() && shift_.value_or(0) != 0) {
    facts.index += *shift_;
    splices_.push_back({place(facts.index_text), std::to_string(facts.index)});
  }
  if (splices_.empty() && stop_.empty()) return event;
  std::ranges::sort(splices_, {}, [](const Splice& splice) { return splice.where.begin; });
  std::string data = spliced(event.data, splices_);
  std::ranges::replace(data, '\n', ' ');  // between tokens: of data that came in several lines
  buffer_ = std::exchange(stop_, {});
  if (!event.name.empty()) buffer_.append("event: ").append(event.name).append("\n");
  buffer_.append("data: ");
  const size_t from = buffer_.size();
  buffer_.append(data).append("\n\n");
  RawEvent edited = event;
  edited.bytes = buffer_;
  edited.data = edited.bytes.substr(from, data.size());
  return edited;
}

}  // namespace spillway::gateway
