#include "text/grammar_rules.h"

#include <algorithm>

namespace spillway::text {

Element GrammarRules::declare() {
  rules_.emplace_back();
  return {int32_t(rules_.size() - 1)};
}

void GrammarRules::add(Element rule, Sequence alternative) {
  elements_ += alternative.size() + 1;
  rules_[size_t(rule.code)].push_back(std::move(alternative));
}

Element GrammarRules::one_of(std::vector<Sequence> alternatives) {
  const Element rule = declare();
  for (Sequence& alternative : alternatives) add(rule, std::move(alternative));
  return rule;
}

Element GrammarRules::bytes(const ByteSet& set) {
  const auto found = std::find(classes_.begin(), classes_.end(), set);
  const auto index = int32_t(found - classes_.begin());
  if (found == classes_.end()) classes_.push_back(set);
  return {-index - 1};
}

Element GrammarRules::bytes(std::string_view members) {
  ByteSet set;
  for (const char c : members) set.set(uint8_t(c));
  return bytes(set);
}

Element GrammarRules::range(int first, int last) {
  ByteSet set;
  for (int byte = first; byte <= last; ++byte) set.set(size_t(byte));
  return bytes(set);
}

Element GrammarRules::literal(std::string_view text) {
  Sequence sequence;
  for (const char& c : text) sequence.push_back(bytes(std::string_view(&c, 1)));
  return concat(std::move(sequence));
}

Element GrammarRules::marker(std::string_view text) {
  const Element plain = literal(text);
  return one_of({{plain}, {bytes(std::string_view(&kSpecialPrefix, 1)), plain}});
}

Element GrammarRules::any_of_texts(std::vector<std::string> texts) {
  std::sort(texts.begin(), texts.end());
  texts.erase(std::unique(texts.begin(), texts.end()), texts.end());
  return texts_from(texts, 0, texts.size(), 0);
}

// The rest of texts[first, last), which agree in what comes before `depth`.
Element GrammarRules::texts_from(const std::vector<std::string>& texts, size_t first, size_t last, size_t depth) {
  if (last - first == 1) return literal(std::string_view(texts[first]).substr(depth));
  std::vector<Sequence> out;
  for (size_t i = first; i < last;) {
    if (texts[i].size() == depth) {
      out.push_back({});
      ++i;
      continue;
    }
    const char next = texts[i][depth];
    size_t end = i;
    while (end < last && texts[end][depth] == next) ++end;
    out.push_back({bytes(std::string_view(&next, 1)), texts_from(texts, i, end, depth + 1)});
    i = end;
  }
  return one_of(std::move(out));
}

bool GrammarRules::may_be_empty(Element element) const {
  if (!element.is_rule()) return false;
  const auto& alternatives = rules_[size_t(element.code)];
  return std::any_of(alternatives.rbegin(), alternatives.rend(), [&](const Sequence& sequence) {
    return std::all_of(sequence.begin(), sequence.end(), [&](Element one) { return may_be_empty(one); });
  });
}

Element GrammarRules::optional(Element element) { return one_of({{element}, {}}); }

Element GrammarRules::concat(Sequence sequence) { return one_of({std::move(sequence)}); }

Element GrammarRules::repeat(Element element, int least, int most) {
  Element rest;
  if (most < 0) {
    rest = declare();
    add(rest, {element, rest});
    add(rest, {});
  } else {
    rest = one_of({{}});
    for (int i = least; i < most; ++i) rest = one_of({{element, rest}, {}});
  }
  for (int i = 0; i < least; ++i) rest = one_of({{element, rest}});
  return rest;
}

}  // namespace spillway::text
