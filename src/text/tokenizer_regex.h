// Regex: one compiled PCRE2 pattern (UTF, Unicode properties, JIT where there is one) read as Oniguruma reads it, the
// dialect tokenizer.json is written in. Immutable; any thread (scratch memory belongs to the thread). Matching is
// bounded: a search that exceeds its limits counts as no match, so that hostile text cannot hang the caller.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>

#include "base/result.h"

struct pcre2_real_code_8;

namespace spillway::text {

class Regex {
 public:
  struct Match {
    size_t begin = 0;
    size_t end = 0;
  };

  static Result<Regex> compile(std::string_view pattern);

  // The first match at or after `from`. subject is valid UTF-8, from lies between characters.
  bool find(std::string_view subject, size_t from, Match& match) const;

 private:
  struct Free {
    void operator()(pcre2_real_code_8* code) const;
  };
  std::unique_ptr<pcre2_real_code_8, Free> code_;
};

// The pattern in PCRE2's dialect: nested classes flattened, \w and \h with Oniguruma's meaning.
Result<std::string> translate_oniguruma(std::string_view pattern);

// The pattern that matches exactly this text.
std::string escape_regex(std::string_view literal);

}  // namespace spillway::text
