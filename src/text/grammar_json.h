// JsonRules: the parts of JSON that every JSON grammar uses: white space of bounded length, strings of valid UTF-8,
// numbers of bounded length, any value. Adds to the given rules, which outlive it.
#pragma once

#include <string_view>

#include "text/grammar_rules.h"

namespace spillway::text {

class JsonRules {
 public:
  explicit JsonRules(GrammarRules& rules);

  GrammarRules& rules() const { return rules_; }
  Element space() const { return space_; }              // nothing, a space, or a line break and indentation
  Element gap() const { return gap_; }                  // nothing or a space
  Element character() const { return character_; }      // one character of a string, escaped where it must be
  Element plain_tail() const { return beyond_ascii_; }  // one character beyond ASCII
  Element string() const { return string_; }
  Element integer() const { return integer_; }
  Element number() const { return number_; }
  Element value() const { return value_; }
  Element object() const { return object_; }
  Element array() const { return array_; }
  Element digit() const { return digit_; }

 private:
  void make_characters();
  void make_numbers();
  void make_values();

  GrammarRules& rules_;
  Element space_, gap_, beyond_ascii_, character_, string_, digit_, integer_, fraction_, number_, value_, object_,
      array_;
};

// Any bytes up to and with the first marker, up to two white-space characters, then `rest`.
Element free_text_until(GrammarRules& rules, std::string_view marker, Element rest, bool may_end = false);

}  // namespace spillway::text
