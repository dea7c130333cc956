#include "gateway/event_pattern.h"

#include "gateway/json_cursor.h"

namespace spillway::gateway {
namespace {

bool inside(std::string_view part, std::string_view whole) {
  return part.data() >= whole.data() && part.data() + part.size() <= whole.data() + whole.size();
}

}  // namespace

void EventPattern::learn(const RawEvent& event, const AnswerFacts& facts) {
  const bool reasoning = facts.content.empty();
  const std::string_view words = reasoning ? facts.reasoning : facts.content;
  const bool words_alone = facts.sound && facts.progress && facts.text_bytes == int64_t(words.size()) &&
                           !facts.has_usage && !facts.done && !facts.error && !facts.tool_call &&
                           facts.finish_reason.empty();
  if (!words_alone || words.empty() || !inside(event.data, event.bytes) || !inside(words, event.data)) return;
  const std::string_view bytes = event.bytes;
  const size_t begin = size_t(words.data() - bytes.data());
  head_.assign(bytes.substr(0, begin));
  tail_.assign(bytes.substr(begin + words.size()));
  data_begin_ = size_t(event.data.data() - bytes.data());
  after_data_ = bytes.size() - data_begin_ - event.data.size();
  name_size_ = event.name.size();
  name_begin_ = event.name.empty() ? 0 : size_t(event.name.data() - bytes.data());
  reasoning_ = reasoning;
  index_ = facts.index;
}

bool EventPattern::match(std::string_view text, RawEvent& event, AnswerFacts& facts) const {
  if (head_.empty() || text.size() <= head_.size() + tail_.size() || !text.starts_with(head_)) return false;
  const auto words = JsonCursor(text.substr(head_.size() - 1)).string();
  if (!words || words->empty() || !text.substr(head_.size() + words->size()).starts_with(tail_)) return false;
  event = {};
  event.bytes = text.substr(0, head_.size() + words->size() + tail_.size());
  event.data = event.bytes.substr(data_begin_, event.bytes.size() - data_begin_ - after_data_);
  event.name = event.bytes.substr(name_begin_, name_size_);
  facts = {};
  facts.sound = facts.progress = true;
  (reasoning_ ? facts.reasoning : facts.content) = *words;
  facts.text_bytes = int64_t(words->size());
  facts.index = index_;
  return true;
}

}  // namespace spillway::gateway
