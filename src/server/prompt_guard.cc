#include "server/prompt_guard.h"

#include <algorithm>
#include <boost/json/object.hpp>
#include <boost/json/value.hpp>

namespace spillway::server {
namespace {

namespace json = boost::json;

// U+FDD0 .. U+FDEF, which Unicode reserves for a program's own use.
std::string noncharacter(int index) {
  std::string mark = "\xEF\xB7";
  mark.push_back(static_cast<char>(0x90 + index));
  return mark;
}
constexpr int kNoncharacters = 32;

size_t first_character_length(std::string_view text) {
  size_t length = 1;
  while (length < text.size() && (static_cast<unsigned char>(text[length]) & 0xC0) == 0x80) ++length;
  return length;
}

// Some vocabularies add plain text too (runs of spaces, a word): that is no harm, and cutting it would change the ids
// of honest prompts. Some mark their roles as not special, so the brackets count as well.
bool is_control(std::string_view content, bool special) {
  if (content.empty() || first_character_length(content) == content.size()) return false;
  return special || content.front() == '<' || content.front() == '[';
}

bool contains(const json::value& value, std::string_view mark) {
  if (value.is_string()) return std::string_view(value.get_string()).find(mark) != std::string_view::npos;
  if (value.is_array()) {
    return std::ranges::any_of(value.get_array(), [&](const json::value& item) { return contains(item, mark); });
  }
  if (!value.is_object()) return false;
  return std::ranges::any_of(value.get_object(), [&](const json::key_value_pair& item) {
    return std::string_view(item.key()).find(mark) != std::string_view::npos || contains(item.value(), mark);
  });
}

}  // namespace

PromptGuard::PromptGuard(const text::Tokenizer& tokenizer) : tokenizer_(tokenizer) {
  for (int32_t id = 0; id < tokenizer.vocab_size(); ++id) {
    if (!tokenizer.is_added(id)) continue;
    const std::string content(tokenizer.token_bytes(id));
    if (is_control(content, tokenizer.is_special(id))) tokens_[content.front()].push_back(content);
  }
  for (auto& [first, group] : tokens_) {
    std::ranges::sort(group, [](const std::string& a, const std::string& b) { return a.size() > b.size(); });
  }
}

Result<std::string> PromptGuard::mark(json::value& value) const {
  for (int index = 0; index < kNoncharacters; ++index) {
    const std::string candidate = noncharacter(index);
    if (contains(value, candidate)) continue;
    mark_value(value, candidate, false);
    return candidate;
  }
  return invalid("expected messages without Unicode noncharacters, found all of U+FDD0 to U+FDEF");
}

std::vector<int32_t> PromptGuard::encode(std::string_view rendered, std::string_view mark) const {
  const text::EncodeOptions options{.add_special_tokens = false, .parse_added_tokens = true};
  std::vector<int32_t> ids;
  while (true) {
    const size_t end = mark.empty() ? std::string_view::npos : rendered.find(mark);
    const std::string_view piece = rendered.substr(0, end);
    if (!piece.empty()) {
      const std::vector<int32_t> part = tokenizer_.encode(piece, options).ids;
      ids.insert(ids.end(), part.begin(), part.end());
    }
    if (end == std::string_view::npos) return ids;
    rendered.remove_prefix(end + mark.size());
  }
}

std::string PromptGuard::neutralise(std::string_view text, std::string_view mark, bool allow_think) const {
  std::string out;
  size_t copied = 0;
  for (size_t at = 0; at < text.size(); ++at) {
    const size_t length = match_length(text.substr(at), allow_think);
    if (length == 0) continue;
    const size_t inside = at + first_character_length(text.substr(at));
    out.append(text.substr(copied, inside - copied)).append(mark);
    copied = inside;
  }
  out.append(text.substr(copied));
  if (ends_like_token(text)) out.append(mark);
  return out;
}

std::string PromptGuard::without(std::string_view text, std::string_view mark) {
  std::string out;
  while (true) {
    const size_t end = mark.empty() ? std::string_view::npos : text.find(mark);
    out.append(text.substr(0, end));
    if (end == std::string_view::npos) return out;
    text.remove_prefix(end + mark.size());
  }
}

size_t PromptGuard::match_length(std::string_view text, bool allow_think) const {
  const auto group = tokens_.find(text.front());
  if (group == tokens_.end()) return 0;
  for (const std::string& token : group->second) {
    if (!text.starts_with(token)) continue;
    if (allow_think && (token == "<think>" || token == "</think>")) continue;
    return token.size();
  }
  return 0;
}

bool PromptGuard::ends_like_token(std::string_view text) const {
  for (const auto& [first, group] : tokens_) {
    for (const std::string& token : group) {
      const size_t longest = std::min(token.size() - 1, text.size());
      for (size_t length = longest; length > 0; --length) {
        if (text.ends_with(std::string_view(token).substr(0, length))) return true;
      }
    }
  }
  return false;
}

void PromptGuard::mark_value(json::value& value, std::string_view mark, bool allow_think) const {
  if (value.is_string()) {
    const std::string_view text = value.get_string();
    std::string marked = neutralise(text, mark, allow_think);
    if (marked.size() != text.size()) value = std::move(marked);
  } else if (value.is_array()) {
    for (json::value& item : value.get_array()) mark_value(item, mark, allow_think);
  } else if (value.is_object()) {
    json::object& object = value.get_object();
    const json::value* role = object.if_contains("role");
    if (role != nullptr && role->is_string()) allow_think = role->get_string() == "assistant";
    for (json::key_value_pair& item : object) {
      if (item.key() != "role" && item.key() != "type") mark_value(item.value(), mark, allow_think);
    }
  }
}

}  // namespace spillway::server
