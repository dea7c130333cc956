// VocabularyTrie: what TokenTrie is inside: nodes in depth-first order, so that a walk is one pass over an array that
// skips what cannot follow. Immutable; any thread.
#pragma once

#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "text/grammar.h"
#include "text/grammar_automaton.h"

namespace spillway::text {

class VocabularyTrie : public TokenTrie {
 public:
  VocabularyTrie(const Tokenizer& tokenizer, int vocab_size, std::vector<int32_t> end_tokens);

  uint64_t serial() const { return serial_; }  // tells tries apart
  size_t words() const { return (size_t(vocab_size_) + 63) / 64; }
  bool is_end(int32_t token) const;

  // The tokens that may follow in this state.
  std::vector<uint64_t> mask(GrammarAutomaton& automaton, int32_t state) const;

  // The state after the token.
  int32_t step(GrammarAutomaton& automaton, int32_t state, int32_t token) const;

 private:
  struct Node {
    uint32_t skip;   // the node behind this subtree
    int32_t token;   // -1: none ends here
    uint16_t depth;  // bytes before this one
    uint8_t byte;
  };
  void append_nodes(const std::vector<std::pair<std::string, int32_t>>& tokens);
  std::string_view bytes(int32_t token) const;

  uint64_t serial_;
  int32_t vocab_size_;
  std::vector<int32_t> end_tokens_;  // sorted
  std::vector<Node> nodes_;
  size_t depth_max_ = 0;
  std::vector<std::pair<int32_t, int32_t>> equals_;  // (token of the trie, another of the same bytes)
  std::string arena_;
  std::vector<std::pair<uint32_t, uint32_t>> spans_;  // by token: of arena_
};

}  // namespace spillway::text
