#include "text/tokenizer_pattern.h"

#include "text/tokenizer_json.h"
#include "text/unicode.h"

namespace spillway::text {

Result<Pattern> Pattern::parse(const JsonAt& at, std::string_view key) {
  const boost::json::value* value = at.find(key);
  if (value && value->is_string()) return literal(std::string(value->get_string()));
  SW_ASSIGN(const JsonAt child, at.child(key));
  if (child.find("String")) {
    SW_ASSIGN(std::string text, child.string("String"));
    return literal(std::move(text));
  }
  SW_ASSIGN(const std::string expression, child.string("Regex"));
  auto pattern = regex(expression);
  if (!pattern.ok()) return std::move(pattern).error().in(child.path_of("Regex"));
  return pattern;
}

Pattern Pattern::literal(std::string text) {
  Pattern pattern;
  pattern.literal_ = std::move(text);
  return pattern;
}

Result<Pattern> Pattern::regex(std::string_view expression) {
  SW_ASSIGN(Regex compiled, Regex::compile(expression));
  Pattern pattern;
  pattern.regex_ = std::move(compiled);
  return pattern;
}

bool Pattern::find(std::string_view subject, size_t from, Regex::Match& match) const {
  if (!regex_) {
    if (literal_.empty()) return false;
    const size_t at = subject.find(literal_, from);
    if (at == std::string_view::npos) return false;
    match = {at, at + literal_.size()};
    return true;
  }
  while (from < subject.size() && regex_->find(subject, from, match)) {
    if (match.end > match.begin) return true;
    if (match.end >= subject.size()) return false;
    from = match.end + size_t(utf8_length(subject[match.end]));
  }
  return false;
}

void Pattern::replace_all(std::string& text, std::string_view content) const {
  std::string out;
  size_t done = 0;
  for (Regex::Match match; find(text, done, match); done = match.end) {
    out.append(text, done, match.begin - done);
    out.append(content);
  }
  if (done == 0) return;
  out.append(text, done);
  text = std::move(out);
}

}  // namespace spillway::text
