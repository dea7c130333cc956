// Splits a Jinja template into text and tokens, with the white-space rules that transformers sets: trim_blocks and
// lstrip_blocks on, the last newline of the source dropped. Throws Failure.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace spillway::text::jinja {

enum class TokenKind {
  kText,           // template data
  kVariableBegin,  // {{
  kVariableEnd,
  kBlockBegin,  // {%
  kBlockEnd,
  kName,
  kString,
  kInteger,
  kFloat,
  kOperator,  // text is the operator itself
  kEnd,
};

struct Token {
  TokenKind kind = TokenKind::kEnd;
  std::string text;
  int64_t integer = 0;
  double number = 0;
  int line = 1;
  int column = 1;
};

std::vector<Token> tokenize(std::string_view source);

}  // namespace spillway::text::jinja
