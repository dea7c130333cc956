// PostProcessor: the "post_processor" of tokenizer.json: where special tokens stand around one text or a pair.
// Immutable; any thread.
#pragma once

#include <vector>

#include "base/result.h"
#include "text/tokenizer.h"

namespace spillway::text {

class JsonAt;

class PostProcessor {
 public:
  PostProcessor();  // one text after the other, nothing added
  static Result<PostProcessor> parse(const JsonAt& at);

  Encoding single(std::vector<int32_t> ids, bool add_special_tokens) const;
  Encoding pair(const std::vector<int32_t>& first, const std::vector<int32_t>& second, bool add_special_tokens) const;

 private:
  struct Part {
    enum Kind { kFirst, kSecond, kToken } kind = kFirst;
    int32_t type_id = 0;
    int32_t token = -1;
  };
  static Result<std::vector<Part>> parse_parts(const JsonAt& at, std::string_view key);
  static Result<PostProcessor> parse_pair_of_tokens(const JsonAt& at, bool roberta);
  static Result<PostProcessor> parse_sequence(const JsonAt& at);

  std::vector<Part> single_;
  std::vector<Part> pair_;
  bool plain_ = true;  // adds nothing
};

}  // namespace spillway::text
