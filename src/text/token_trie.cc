#include "text/token_trie.h"

#include <algorithm>
#include <atomic>

namespace spillway::text {

namespace {
constexpr size_t kTokenBytesMax = 4096;
uint64_t next_serial() {
  static std::atomic<uint64_t> next = 0;
  return next++;
}
}  // namespace

std::shared_ptr<const TokenTrie> TokenTrie::build(const Tokenizer& tokenizer, int vocab_size,
                                                  std::vector<int32_t> end_tokens) {
  return std::make_shared<VocabularyTrie>(tokenizer, vocab_size, std::move(end_tokens));
}

VocabularyTrie::VocabularyTrie(const Tokenizer& tokenizer, int vocab_size, std::vector<int32_t> end_tokens)
    : serial_(next_serial()), vocab_size_(vocab_size), end_tokens_(std::move(end_tokens)) {
  SW_CHECK(!end_tokens_.empty(), "no token can end an output");
  std::sort(end_tokens_.begin(), end_tokens_.end());
  std::vector<std::pair<std::string, int32_t>> tokens;
  spans_.resize(size_t(vocab_size));
  for (int32_t id = 0; id < std::min(vocab_size, tokenizer.vocab_size()); ++id) {
    const std::string_view bytes = tokenizer.token_bytes(id);
    if (bytes.empty() || bytes.size() > kTokenBytesMax || is_end(id)) continue;
    std::string key(bytes);
    if (tokenizer.is_special(id)) {
      key.insert(0, 1, kSpecialPrefix);
    } else if (key.find(kSpecialPrefix) != std::string::npos) {
      continue;  // no text holds that byte, and taken for the prefix it would let half a special token through
    }
    spans_[size_t(id)] = {uint32_t(arena_.size()), uint32_t(key.size())};
    arena_ += key;
    tokens.emplace_back(std::move(key), id);
  }
  std::sort(tokens.begin(), tokens.end());
  append_nodes(tokens);
}

void VocabularyTrie::append_nodes(const std::vector<std::pair<std::string, int32_t>>& tokens) {
  std::vector<uint32_t> path;  // nodes of the previous token's bytes
  std::string_view previous;
  const auto close_to = [&](size_t depth) {
    for (; path.size() > depth; path.pop_back()) nodes_[path.back()].skip = uint32_t(nodes_.size());
  };
  for (const auto& [bytes, id] : tokens) {
    if (bytes == previous) {
      equals_.emplace_back(nodes_[path.back()].token, id);
      continue;
    }
    const auto common =
        size_t(std::mismatch(bytes.begin(), bytes.end(), previous.begin(), previous.end()).first - bytes.begin());
    close_to(common);
    for (size_t depth = common; depth < bytes.size(); ++depth) {
      path.push_back(uint32_t(nodes_.size()));
      nodes_.push_back({0, -1, uint16_t(depth), uint8_t(bytes[depth])});
    }
    nodes_[path.back()].token = id;
    depth_max_ = std::max(depth_max_, bytes.size());
    previous = bytes;
  }
  close_to(0);
}

bool VocabularyTrie::is_end(int32_t token) const {
  return std::binary_search(end_tokens_.begin(), end_tokens_.end(), token);
}

std::string_view VocabularyTrie::bytes(int32_t token) const {
  if (token < 0 || token >= vocab_size_) return {};
  const auto [offset, length] = spans_[size_t(token)];
  return std::string_view(arena_).substr(offset, length);
}

std::vector<uint64_t> VocabularyTrie::mask(GrammarAutomaton& automaton, int32_t state) const {
  std::vector<uint64_t> words(this->words());
  const auto set = [&](int32_t token) { words[size_t(token) / 64] |= uint64_t(1) << (token % 64); };
  const auto has = [&](int32_t token) { return (words[size_t(token) / 64] >> (token % 64) & 1) != 0; };
  if (state != GrammarAutomaton::kDead) {
    std::vector<int32_t> states(depth_max_ + 1);  // by depth: before the byte at that depth
    states[0] = state;
    for (size_t i = 0; i < nodes_.size();) {
      const Node& node = nodes_[i];
      const int32_t next = automaton.step(states[node.depth], node.byte);
      if (next == GrammarAutomaton::kDead) {
        i = node.skip;
        continue;
      }
      if (node.token >= 0) set(node.token);
      states[size_t(node.depth) + 1] = next;
      ++i;
    }
    for (const auto& [one, other] : equals_) {
      if (has(one)) set(other);
    }
  }
  if (state == GrammarAutomaton::kDead || automaton.accepts(state)) {
    for (const int32_t token : end_tokens_) {
      if (token >= 0 && token < vocab_size_) set(token);
    }
  }
  return words;
}

int32_t VocabularyTrie::step(GrammarAutomaton& automaton, int32_t state, int32_t token) const {
  for (const char byte : bytes(token)) {
    if (state == GrammarAutomaton::kDead) break;
    state = automaton.step(state, uint8_t(byte));
  }
  return state;
}

}  // namespace spillway::text
