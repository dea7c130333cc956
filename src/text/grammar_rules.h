// GrammarRules: a context-free grammar over bytes while it is put together. Not for users: grammar.h is. One owner, one
// thread; the automaton takes the finished rules.
#pragma once

#include <bitset>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace spillway::text {

using ByteSet = std::bitset<256>;

// A rule, or a class of bytes.
struct Element {
  int32_t code = 0;  // >= 0: a rule; < 0: class -code - 1
  bool is_rule() const { return code >= 0; }
  size_t byte_class() const { return size_t(-(code + 1)); }
};
using Sequence = std::vector<Element>;

// In front of a special token's text in the vocabulary trie. No UTF-8 has it, so that special tokens stay out of
// strings.
inline constexpr char kSpecialPrefix = char(0xFF);

class GrammarRules {
 public:
  Element declare();                             // a rule without alternatives yet
  void add(Element rule, Sequence alternative);  // an empty one matches nothing at all
  Element one_of(std::vector<Sequence> alternatives);
  Element bytes(const ByteSet& set);
  Element bytes(std::string_view members);
  Element range(int first, int last);  // both included
  Element literal(std::string_view text);
  Element marker(std::string_view text);                 // literal text, or the special token of that text
  Element any_of_texts(std::vector<std::string> texts);  // one of these, common beginnings shared
  Element optional(Element element);
  Element repeat(Element element, int least, int most);  // most < 0: no bound
  Element concat(Sequence sequence);

  bool may_be_empty(Element element) const;  // for elements without recursion before an empty alternative
  bool too_large() const { return elements_ > kElementsMax; }

  const std::vector<std::vector<Sequence>>& rules() const { return rules_; }
  const std::vector<ByteSet>& classes() const { return classes_; }

 private:
  Element texts_from(const std::vector<std::string>& texts, size_t first, size_t last, size_t depth);

  static constexpr size_t kElementsMax = 400'000;

  std::vector<std::vector<Sequence>> rules_;
  std::vector<ByteSet> classes_;
  size_t elements_ = 0;
};

}  // namespace spillway::text
