// verify_tokenizer: a tokenizer.json against expected ids, for whoever ports one.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace spillway::text {

struct TokenizerReport {
  struct Case {
    std::string text;
    std::vector<std::string> failures;  // "ids: expected [1, 2], found [1, 3]"; empty: all equal
  };
  std::vector<Case> cases;
  int checks = 0;
  int failed_cases() const;
};

// expected_json: an array of {"text", "ids" (without special tokens), "ids_special", "decoded" (the text of ids,
// special tokens shown), "pair" and "pair_types" (text and a second one, "second", by default "a pair")}. All but text
// may lack.
Result<TokenizerReport> verify_tokenizer(std::string_view tokenizer_json, std::string_view expected_json);

}  // namespace spillway::text
