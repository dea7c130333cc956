#include "text/tokenizer.h"
#include "text/unicode.h"

namespace spillway::text {

Detokenizer::Detokenizer(const Tokenizer& tokenizer, bool skip_special_tokens)
    : tokenizer_(tokenizer), skip_special_tokens_(skip_special_tokens) {}

std::string Detokenizer::push(int32_t id) {
  if (skip_special_tokens_ && tokenizer_.is_special(id)) return {};
  tokenizer_.append_bytes(id, first_, pending_);
  first_ = false;
  // The last character may be unfinished: it starts within the last three bytes.
  size_t whole = pending_.size();
  for (size_t back = 1; back <= 3 && back <= pending_.size(); ++back) {
    const size_t at = pending_.size() - back;
    if ((uint8_t(pending_[at]) & 0xC0) == 0x80) continue;
    if (utf8_sequence(std::string_view(pending_).substr(at)) == 0) whole = at;
    break;
  }
  const std::string_view ready = std::string_view(pending_).substr(0, whole);
  std::string out = is_valid_utf8(ready) ? std::string(ready) : repair_utf8(ready);
  pending_.erase(0, whole);
  return out;
}

std::string Detokenizer::finish() {
  std::string out = repair_utf8(pending_);
  pending_.clear();
  first_ = true;
  return out;
}

}  // namespace spillway::text
