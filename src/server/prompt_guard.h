// PromptGuard: keeps text that clients control from turning into control tokens. A message that contains
// "<｜Assistant｜>" must reach the model as those characters, while the same characters written by the chat template
// are the control token. So before rendering, a mark (a Unicode noncharacter that the request does not contain) is put
// inside every control token that a client's string contains, and after a string that ends like the beginning of one;
// after rendering, the text is encoded piece by piece between marks, so that no added token can match across one.
// Strings without control tokens are left exactly as they were, so templates render them as transformers does.
// Owned by the served model; immutable; any thread. Not its job: rendering.
#pragma once

#include <boost/json/fwd.hpp>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "text/tokenizer.h"

namespace spillway::server {

class PromptGuard {
 public:
  // The tokenizer outlives the guard.
  explicit PromptGuard(const text::Tokenizer& tokenizer);

  // Marks the strings in value (messages, tools) and returns the mark. Roles and types are left alone, and so are
  // <think> and </think> in assistant messages, whose reasoning the templates look for. An error only when the text
  // holds every noncharacter there is.
  Result<std::string> mark(boost::json::value& value) const;

  // Ids of a rendered prompt: added tokens are parsed, except across marks; nothing is added in front.
  std::vector<int32_t> encode(std::string_view rendered, std::string_view mark) const;

  // The text with a mark inside each control token, so that encode() takes it literally.
  std::string neutralise(std::string_view text, std::string_view mark, bool allow_think = false) const;

  // The text as it was before marking.
  static std::string without(std::string_view text, std::string_view mark);

 private:
  size_t match_length(std::string_view text, bool allow_think) const;  // of an added token at the start; 0: none
  bool ends_like_token(std::string_view text) const;
  void mark_value(boost::json::value& value, std::string_view mark, bool allow_think) const;

  const text::Tokenizer& tokenizer_;
  std::map<char, std::vector<std::string>> tokens_;  // by first byte, longest first
};

}  // namespace spillway::server
