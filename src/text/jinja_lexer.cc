#include "text/jinja_lexer.h"

#include <array>
#include <cerrno>
#include <charconv>
#include <cstdlib>

#include "text/jinja_string.h"
#include "text/jinja_value.h"

namespace spillway::text::jinja {

namespace {

std::string normalized(std::string_view source) {
  std::string out;
  out.reserve(source.size());
  for (size_t i = 0; i < source.size(); ++i) {
    if (source[i] != '\r') {
      out += source[i];
      continue;
    }
    out += '\n';
    if (i + 1 < source.size() && source[i + 1] == '\n') ++i;
  }
  if (!out.empty() && out.back() == '\n') out.pop_back();
  return out;
}

bool name_start(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' || uint8_t(c) >= 0x80; }
bool is_digit(char c) { return c >= '0' && c <= '9'; }
bool name_part(char c) { return name_start(c) || is_digit(c); }

class Lexer {
 public:
  explicit Lexer(std::string_view source) : source_(normalized(source)) {}

  std::vector<Token> run() {
    while (at_ < source_.size()) lex_text();
    push(TokenKind::kEnd, "");
    return std::move(tokens_);
  }

 private:
  [[noreturn]] void fail_here(const std::string& message) {
    Failure failure(message);
    locate(at_, failure.line, failure.column);
    throw failure;
  }

  void locate(size_t at, int& line, int& column) {
    for (; located_ < at; ++located_) {
      if (source_[located_] == '\n') {
        ++line_;
        line_start_ = located_ + 1;
      }
    }
    line = line_;
    column = int(at - line_start_) + 1;
  }

  Token& push(TokenKind kind, std::string text) {
    Token token;
    token.kind = kind;
    token.text = std::move(text);
    locate(std::max(token_at_, located_), token.line, token.column);
    tokens_.push_back(std::move(token));
    return tokens_.back();
  }

  bool starts(std::string_view text) const { return source_.compare(at_, text.size(), text) == 0; }

  void skip_space() {
    while (at_ < source_.size()) {
      const std::string_view c = character_at(source_, at_);
      if (!is_space(c)) return;
      at_ += c.size();
    }
  }

  // Text up to the next opening tag, stripped as the tag's sign and the settings say.
  void lex_text() {
    const size_t from = at_;
    size_t open = source_.find('{', at_);
    while (open != std::string::npos && open + 1 < source_.size() && source_[open + 1] != '{' &&
           source_[open + 1] != '%' && source_[open + 1] != '#') {
      open = source_.find('{', open + 1);
    }
    if (open == std::string::npos || open + 1 >= source_.size()) {
      token_at_ = from;
      push(TokenKind::kText, source_.substr(from));
      at_ = source_.size();
      return;
    }
    const char type = source_[open + 1];
    at_ = open + 2;
    const char sign = at_ < source_.size() && (source_[at_] == '-' || source_[at_] == '+') ? source_[at_] : 0;
    push_text(from, open, sign, type != '{');
    token_at_ = open;
    if (sign) ++at_;
    if (type == '#') return lex_comment();
    if (type == '{') {
      push(TokenKind::kVariableBegin, "{{");
      return lex_tokens(true);
    }
    if (lex_raw()) return;
    push(TokenKind::kBlockBegin, "{%");
    lex_tokens(false);
  }

  void push_text(size_t from, size_t to, char sign, bool may_strip_line) {
    std::string_view text = std::string_view(source_).substr(from, to - from);
    if (sign == '-') {
      text = strip(text, nullptr, false, true);
    } else if (sign != '+' && may_strip_line) {
      const size_t newline = text.rfind('\n');
      const size_t line = newline == std::string_view::npos ? 0 : newline + 1;
      if ((line > 0 || line_starting_) && strip(text.substr(line), nullptr, true, false).empty()) {
        text = text.substr(0, line);
      }
    }
    token_at_ = from;
    if (!text.empty()) push(TokenKind::kText, std::string(text));
  }

  // After the two characters that close a tag.
  void close(bool dash, bool trims) {
    const size_t from = at_;
    if (dash) {
      skip_space();
    } else if (trims && at_ < source_.size() && source_[at_] == '\n') {
      ++at_;
    }
    line_starting_ = at_ > from && source_[at_ - 1] == '\n';
  }

  void lex_comment() {
    const size_t end = source_.find("#}", at_);
    if (end == std::string::npos) fail_here("expected the end of a comment, #}, found the end of the template");
    const char sign = end > at_ ? source_[end - 1] : 0;
    at_ = end + 2;
    close(sign == '-', sign != '+');
  }

  bool lex_raw() {
    const size_t saved = at_;
    skip_space();
    if (!starts("raw") || (at_ + 3 < source_.size() && name_part(source_[at_ + 3]))) {
      at_ = saved;
      return false;
    }
    at_ += 3;
    skip_space();
    const bool dash = starts("-");
    if (dash) ++at_;
    if (!starts("%}")) {
      at_ = saved;
      return false;
    }
    at_ += 2;
    close(dash, false);
    const size_t from = at_;
    for (size_t open = source_.find("{%", at_); open != std::string::npos; open = source_.find("{%", open + 2)) {
      at_ = open + 2;
      const char sign = at_ < source_.size() && (source_[at_] == '-' || source_[at_] == '+') ? source_[at_] : 0;
      if (sign) ++at_;
      skip_space();
      if (!starts("endraw")) continue;
      at_ += 6;
      skip_space();
      const char end_sign = at_ < source_.size() && (source_[at_] == '-' || source_[at_] == '+') ? source_[at_] : 0;
      if (end_sign) ++at_;
      if (!starts("%}")) continue;
      at_ += 2;
      push_text(from, open, sign, true);
      close(end_sign == '-', end_sign != '+');
      return true;
    }
    at_ = from;
    fail_here("expected {% endraw %}, found the end of the template");
  }

  void lex_tokens(bool variable) {
    std::string open;  // brackets that wait for their other half
    const std::string_view end = variable ? "}}" : "%}";
    while (true) {
      skip_space();
      token_at_ = at_;
      if (at_ >= source_.size()) {
        fail_here(std::string("expected ") + std::string(end) + ", found the end of the template");
      }
      if (open.empty()) {
        const bool dash = starts("-");
        const bool plus = !variable && starts("+");
        const size_t skip = dash || plus ? 1 : 0;
        if (source_.compare(at_ + skip, 2, end) == 0) {
          at_ += skip + 2;
          push(variable ? TokenKind::kVariableEnd : TokenKind::kBlockEnd, std::string(end));
          close(dash, !variable && !plus);
          return;
        }
      }
      lex_token(open);
    }
  }

  void lex_token(std::string& open) {
    const char c = source_[at_];
    if (name_start(c)) {
      const size_t from = at_;
      while (at_ < source_.size() && name_part(source_[at_])) ++at_;
      push(TokenKind::kName, source_.substr(from, at_ - from));
    } else if (is_digit(c)) {
      lex_number();
    } else if (c == '"' || c == '\'') {
      lex_string();
    } else {
      lex_operator(open);
    }
  }

  void lex_number() {
    const size_t from = at_;
    std::string digits;
    int base = 10;
    if (source_[at_] == '0' && at_ + 1 < source_.size()) {
      const char kind = char(source_[at_ + 1] | 0x20);
      base = kind == 'x' ? 16 : kind == 'o' ? 8 : kind == 'b' ? 2 : 10;
      if (base != 10) at_ += 2;
    }
    const auto take = [&] {
      while (at_ < source_.size()) {
        const char c = source_[at_];
        const bool fits = is_digit(c) || (base == 16 && std::isxdigit(static_cast<unsigned char>(c)));
        if (!fits && !(c == '_' && at_ + 1 < source_.size() && name_part(source_[at_ + 1]))) break;
        if (c != '_') digits += c;
        ++at_;
      }
    };
    take();
    bool is_float = false;
    const bool after_dot = from > 0 && source_[from - 1] == '.';
    if (base == 10 && !after_dot) {
      if (at_ + 1 < source_.size() && source_[at_] == '.' && is_digit(source_[at_ + 1])) {
        is_float = true;
        digits += source_[at_++];
        take();
      }
      const bool exponent = at_ + 1 < source_.size() && (source_[at_] | 0x20) == 'e';
      const bool sign = exponent && (source_[at_ + 1] == '+' || source_[at_ + 1] == '-');
      if (exponent && at_ + 1 + sign < source_.size() && is_digit(source_[at_ + 1 + sign])) {
        is_float = true;
        digits += source_.substr(at_, 1 + size_t(sign));
        at_ += 1 + size_t(sign);
        take();
      }
    }
    Token& token = push(is_float ? TokenKind::kFloat : TokenKind::kInteger, source_.substr(from, at_ - from));
    if (is_float) {
      token.number = std::strtod(digits.c_str(), nullptr);
      return;
    }
    const auto parsed = std::from_chars(digits.data(), digits.data() + digits.size(), token.integer, base);
    if (parsed.ec != std::errc() || parsed.ptr != digits.data() + digits.size()) {
      fail_here("expected an integer of at most 64 bits, found '" + token.text + "'");
    }
  }

  void lex_string() {
    const char quote = source_[at_++];
    std::string text;
    while (true) {
      if (at_ >= source_.size()) fail_here("expected the end of a string, found the end of the template");
      const char c = source_[at_++];
      if (c == quote) break;
      if (c != '\\') {
        text += c;
      } else if (at_ >= source_.size()) {
        fail_here("expected the end of a string, found the end of the template");
      } else {
        escape(text);
      }
    }
    push(TokenKind::kString, std::move(text));
  }

  void escape(std::string& text) {
    const char c = source_[at_++];
    switch (c) {
      case 'n':
        text += '\n';
        return;
      case 't':
        text += '\t';
        return;
      case 'r':
        text += '\r';
        return;
      case 'a':
        text += '\a';
        return;
      case 'b':
        text += '\b';
        return;
      case 'f':
        text += '\f';
        return;
      case 'v':
        text += '\v';
        return;
      case '\n':
        return;
      case '\\':
      case '\'':
      case '"':
        text += c;
        return;
      case 'x':
        return escape_hex(text, 2);
      case 'u':
        return escape_hex(text, 4);
      case 'U':
        return escape_hex(text, 8);
      default:
        break;
    }
    if (c >= '0' && c <= '7') {
      uint32_t point = uint32_t(c - '0');
      for (int i = 0; i < 2 && at_ < source_.size() && source_[at_] >= '0' && source_[at_] <= '7'; ++i) {
        point = point * 8 + uint32_t(source_[at_++] - '0');
      }
      append_utf8(text, point);
      return;
    }
    text += '\\';
    text += c;
  }

  uint32_t hex_digits(int count) {
    uint32_t value = 0;
    const char* from = source_.data() + at_;
    const char* end = from + std::min(size_t(count), source_.size() - at_);
    const auto parsed = std::from_chars(from, end, value, 16);
    if (parsed.ptr != from + count) fail_here("expected " + std::to_string(count) + " hexadecimal digits in an escape");
    at_ += size_t(count);
    return value;
  }

  void escape_hex(std::string& text, int count) {
    uint32_t point = hex_digits(count);
    if (count == 4 && point >= 0xD800 && point < 0xDC00 && starts("\\u")) {
      at_ += 2;
      point = 0x10000 + ((point - 0xD800) << 10) + (hex_digits(4) - 0xDC00);
    }
    append_utf8(text, point);
  }

  void lex_operator(std::string& open) {
    static constexpr std::array<std::string_view, 25> kOperators = {
        "**", "//", "==", "!=", ">=", "<=", "+", "-", "/", "*", "%", "~", "[",
        "]",  "(",  ")",  "{",  "}",  ">",  "<", "=", ".", ":", "|", ",",
    };
    for (std::string_view op : kOperators) {
      if (!starts(op)) continue;
      if (op == "(" || op == "[" || op == "{") open += op == "(" ? ')' : op == "[" ? ']' : '}';
      if (op == ")" || op == "]" || op == "}") {
        if (open.empty() || open.back() != op[0]) {
          fail_here(std::string("expected ") + (open.empty() ? "no bracket" : open.substr(open.size() - 1)) +
                    ", found '" + std::string(op) + "'");
        }
        open.pop_back();
      }
      at_ += op.size();
      push(TokenKind::kOperator, std::string(op));
      return;
    }
    fail_here("expected an expression, found '" + std::string(character_at(source_, at_)) + "'");
  }

  const std::string source_;
  size_t at_ = 0;
  size_t token_at_ = 0;
  bool line_starting_ = true;
  size_t located_ = 0;
  int line_ = 1;
  size_t line_start_ = 0;
  std::vector<Token> tokens_;
};

}  // namespace

std::vector<Token> tokenize(std::string_view source) { return Lexer(source).run(); }

}  // namespace spillway::text::jinja
