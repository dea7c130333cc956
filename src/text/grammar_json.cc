#include "text/grammar_json.h"

#include <string>

namespace spillway::text {

namespace {
constexpr int kIndentMax = 24;
constexpr int kDigitsMax = 15;  // what a double holds exactly
}  // namespace

JsonRules::JsonRules(GrammarRules& rules) : rules_(rules) {
  const Element blank = rules_.bytes(" ");
  const Element indent = rules_.repeat(blank, 0, kIndentMax);
  space_ = rules_.one_of({{}, {blank}, {rules_.bytes("\n"), indent}});
  gap_ = rules_.optional(blank);
  make_characters();
  make_numbers();
  make_values();
}

void JsonRules::make_characters() {
  const Element tail = rules_.range(0x80, 0xBF);
  beyond_ascii_ = rules_.one_of({
      {rules_.range(0xC2, 0xDF), tail},
      {rules_.range(0xE0, 0xE0), rules_.range(0xA0, 0xBF), tail},
      {rules_.range(0xE1, 0xEC), tail, tail},
      {rules_.range(0xED, 0xED), rules_.range(0x80, 0x9F), tail},
      {rules_.range(0xEE, 0xEF), tail, tail},
      {rules_.range(0xF0, 0xF0), rules_.range(0x90, 0xBF), tail, tail},
      {rules_.range(0xF1, 0xF3), tail, tail, tail},
      {rules_.range(0xF4, 0xF4), rules_.range(0x80, 0x8F), tail, tail},
  });
  ByteSet plain;
  for (size_t byte = 0x20; byte < 0x80; ++byte) plain.set(byte, byte != '"' && byte != '\\');
  const Element backslash = rules_.bytes("\\"), u = rules_.bytes("u");
  const Element hex = rules_.bytes("0123456789abcdefABCDEF"), d = rules_.bytes("dD");
  const Element code = rules_.one_of({
      {rules_.bytes("0123456789abcefABCEF"), hex, hex, hex},
      {d, rules_.range('0', '7'), hex, hex},
      {d, rules_.bytes("89abAB"), hex, hex, backslash, u, d, rules_.bytes("cdefCDEF"), hex, hex},
  });
  character_ = rules_.one_of({
      {rules_.bytes(plain)},
      {beyond_ascii_},
      {backslash, rules_.bytes("\"\\/bfnrt")},
      {backslash, u, code},
  });
  const Element quote = rules_.bytes("\"");
  string_ = rules_.concat({quote, rules_.repeat(character_, 0, -1), quote});
}

void JsonRules::make_numbers() {
  digit_ = rules_.range('0', '9');
  const Element minus = rules_.optional(rules_.bytes("-"));
  const Element zero = rules_.bytes("0");
  const Element whole = rules_.one_of({{zero}, {rules_.range('1', '9'), rules_.repeat(digit_, 0, kDigitsMax - 1)}});
  integer_ = rules_.concat({minus, whole});
  fraction_ = rules_.concat({rules_.bytes("."), rules_.repeat(digit_, 1, kDigitsMax)});
  const Element exponent =
      rules_.concat({rules_.bytes("eE"), rules_.optional(rules_.bytes("+-")), rules_.repeat(digit_, 1, 2)});
  number_ = rules_.concat({integer_, rules_.optional(fraction_), rules_.optional(exponent)});
}

void JsonRules::make_values() {
  value_ = rules_.declare();
  const Element comma = rules_.bytes(",");
  const Element member = rules_.concat({string_, rules_.bytes(":"), gap_, value_});
  const auto list = [&](Element item, std::string_view open, std::string_view close) {
    const Element more = rules_.declare();
    rules_.add(more, {comma, space_, item, more});
    rules_.add(more, {space_, rules_.bytes(close)});
    return rules_.concat({rules_.bytes(open), rules_.one_of({{rules_.bytes(close)}, {space_, item, more}})});
  };
  object_ = list(member, "{", "}");
  array_ = list(value_, "[", "]");
  for (const Element kind : {object_, array_, string_, number_}) rules_.add(value_, {kind});
  for (const std::string_view word : {"true", "false", "null"}) rules_.add(value_, {rules_.literal(word)});
}

Element free_text_until(GrammarRules& rules, std::string_view marker, Element rest, bool may_end) {
  const Element blank = rules.bytes(" \n");
  const Element after = rules.one_of({{blank, blank, rest}, {blank, rest}, {rest}});
  // One rule for each length of the marker that the text ends with.
  std::vector<Element> matched;
  for (size_t i = 0; i < marker.size(); ++i) matched.push_back(rules.declare());
  matched.push_back(after);
  const auto longest_after = [&](size_t length, char byte) {
    std::string text(marker.substr(0, length));
    text += byte;
    for (size_t keep = std::min(text.size(), marker.size());; --keep) {
      if (std::string_view(text).substr(text.size() - keep) == marker.substr(0, keep)) return keep;
    }
  };
  for (size_t length = 0; length < marker.size(); ++length) {
    std::vector<ByteSet> sets(marker.size() + 1);
    for (int byte = 0; byte < 256; ++byte) sets[longest_after(length, char(byte))].set(size_t(byte));
    for (size_t next = 0; next < sets.size(); ++next) {
      if (sets[next].any()) rules.add(matched[length], {rules.bytes(sets[next]), matched[next]});
    }
    if (may_end) rules.add(matched[length], {});
  }
  return marker.empty() ? rest : matched[0];
}

}  // namespace spillway::text
