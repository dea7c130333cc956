// Pattern: what tokenizer.json calls a pattern, {"String": literal} or {"Regex": expression}. Immutable; any thread.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "text/tokenizer_regex.h"

namespace spillway::text {

class JsonAt;

class Pattern {
 public:
  static Result<Pattern> parse(const JsonAt& at, std::string_view key);
  static Pattern literal(std::string text);
  static Result<Pattern> regex(std::string_view expression);

  // The first match that is not empty at or after `from`.
  bool find(std::string_view subject, size_t from, Regex::Match& match) const;
  void replace_all(std::string& text, std::string_view content) const;

 private:
  std::string literal_;
  std::optional<Regex> regex_;
};

}  // namespace spillway::text
