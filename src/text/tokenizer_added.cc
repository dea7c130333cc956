#include "text/tokenizer_added.h"

#include <algorithm>

#include "text/tokenizer_json.h"
#include "text/tokenizer_vocab.h"
#include "text/unicode.h"

namespace spillway::text {

Result<std::vector<AddedToken>> parse_added_tokens(const JsonAt& root) {
  std::vector<AddedToken> tokens;
  if (!root.find("added_tokens")) return tokens;
  SW_ASSIGN(const std::vector<JsonAt> items, root.children("added_tokens"));
  for (const JsonAt& item : items) {
    AddedToken token;
    SW_ASSIGN(const int64_t id, item.integer("id", 0, kTokenIdLimit - 1));
    token.id = int32_t(id);
    SW_ASSIGN(token.content, item.string("content"));
    SW_ASSIGN(token.single_word, item.boolean("single_word", false));
    SW_ASSIGN(token.lstrip, item.boolean("lstrip", false));
    SW_ASSIGN(token.rstrip, item.boolean("rstrip", false));
    SW_ASSIGN(token.special, item.boolean("special", false));
    SW_ASSIGN(token.normalized, item.boolean("normalized", !token.special));
    tokens.push_back(std::move(token));
  }
  return tokens;
}

int32_t AddedTokenMatcher::child(int32_t node, char byte) const {
  for (const auto& [label, target] : nodes_[size_t(node)].next) {
    if (label == byte) return target;
  }
  return -1;
}

void AddedTokenMatcher::add(const AddedToken& token, std::string_view content) {
  if (content.empty()) return;
  int32_t node = 0;
  for (const char byte : content) {
    int32_t target = child(node, byte);
    if (target < 0) {
      target = int32_t(nodes_.size());
      nodes_[size_t(node)].next.emplace_back(byte, target);
      nodes_.emplace_back();
    }
    node = target;
  }
  starts_[uint8_t(content.front())] = true;
  nodes_[size_t(node)].token = int32_t(tokens_.size());
  tokens_.push_back(token);
}

int32_t AddedTokenMatcher::longest_at(std::string_view text, size_t at, size_t& end) const {
  int32_t found = -1;
  int32_t node = 0;
  for (size_t i = at; i < text.size(); ++i) {
    node = child(node, text[i]);
    if (node < 0) break;
    if (nodes_[size_t(node)].token < 0) continue;
    found = nodes_[size_t(node)].token;
    end = i + 1;
  }
  return found;
}

namespace {

size_t character_before(std::string_view text, size_t at) {
  do --at;
  while (at > 0 && (uint8_t(text[at]) & 0xC0) == 0x80);
  return at;
}

char32_t character_at(std::string_view text, size_t at) {
  const char* p = text.data() + at;
  return next_character(p);
}

bool touches_word(std::string_view text, size_t begin, size_t end) {
  if (begin > 0 && is_word(character_at(text, character_before(text, begin)))) return true;
  return end < text.size() && is_word(character_at(text, end));
}

}  // namespace

void AddedTokenMatcher::split(std::string_view text, std::vector<Segment>& out) const {
  size_t done = 0;
  for (size_t at = 0; at < text.size();) {
    size_t end = at;
    const int32_t index = starts_[uint8_t(text[at])] ? longest_at(text, at, end) : -1;
    if (index < 0) {
      ++at;
      continue;
    }
    const AddedToken& token = tokens_[size_t(index)];
    size_t begin = at;
    at = end;
    if (token.single_word && touches_word(text, begin, end)) continue;
    if (token.lstrip) {
      while (begin > done) {
        const size_t before = character_before(text, begin);
        if (!is_whitespace(character_at(text, before))) break;
        begin = before;
      }
    }
    if (token.rstrip) {
      while (at < text.size() && is_whitespace(character_at(text, at))) at += size_t(utf8_length(text[at]));
    }
    if (begin > done) out.push_back({text.substr(done, begin - done)});
    out.push_back({text.substr(begin, at - begin), token.id});
    done = at;
  }
  if (done < text.size()) out.push_back({text.substr(done)});
}

}  // namespace spillway::text
