#include "text/json_scan.h"

#include <cctype>
#include <charconv>

namespace spillway::text {

namespace {
bool is_white(char c) { return c == ' ' || c == '\n' || c == '\r' || c == '\t'; }

bool valid_scalar(const std::string& text) {
  if (text == "true" || text == "false" || text == "null") return true;
  double value = 0;
  const char* end = text.data() + text.size();
  const char last = text.back();
  if (!std::isdigit(static_cast<unsigned char>(last)) ||
      (text[0] != '-' && !std::isdigit(static_cast<unsigned char>(text[0])))) {
    return false;
  }
  const auto parsed = std::from_chars(text.data(), end, value);
  return parsed.ptr == end;
}
}  // namespace

bool JsonScan::end_value() {
  state_ = stack_.empty() ? State::kDone : State::kAfterValue;
  return true;
}

bool JsonScan::begin_value(char c) {
  if (c == '{' || c == '[') {
    if (stack_.size() >= kDepthMax) return false;
    stack_ += c;
    state_ = c == '{' ? State::kKeyOrEnd : State::kValueOrEnd;
    return true;
  }
  if (c == '"') {
    key_ = false;
    state_ = State::kString;
    return true;
  }
  if (c != '-' && !std::isalnum(static_cast<unsigned char>(c))) return false;
  scalar_ = c;
  state_ = State::kScalar;
  return true;
}

bool JsonScan::close(char c) {
  if (stack_.empty() || stack_.back() != (c == '}' ? '{' : '[')) return false;
  stack_.pop_back();
  return end_value();
}

bool JsonScan::end_scalar(char c) {
  if (!valid_scalar(scalar_)) return false;
  end_value();
  return done() ? is_white(c) : feed(c);
}

bool JsonScan::feed(char c) {
  switch (state_) {
    case State::kString:
      if (c == '\\') state_ = State::kEscape;
      if (c != '"') return true;
      if (!key_) return end_value();
      state_ = State::kColon;
      return true;
    case State::kEscape:
      if (c == 'u') hex_left_ = 4;
      state_ = c == 'u' ? State::kHex : State::kString;
      return std::string_view("\"\\/bfnrtu").find(c) != std::string_view::npos;
    case State::kHex:
      if (--hex_left_ == 0) state_ = State::kString;
      return std::isxdigit(static_cast<unsigned char>(c)) != 0;
    case State::kScalar:
      if (!std::isalnum(static_cast<unsigned char>(c)) && c != '+' && c != '-' && c != '.') return end_scalar(c);
      scalar_ += c;
      return scalar_.size() <= kScalarMax;
    default:
      break;
  }
  if (is_white(c)) return true;
  switch (state_) {
    case State::kValueOrEnd:
      if (c == ']') return close(c);
      [[fallthrough]];
    case State::kValue:
      return begin_value(c);
    case State::kKeyOrEnd:
      if (c == '}') return close(c);
      [[fallthrough]];
    case State::kKey:
      key_ = true;
      state_ = State::kString;
      return c == '"';
    case State::kColon:
      state_ = State::kValue;
      return c == ':';
    case State::kAfterValue:
      if (c == '}' || c == ']') return close(c);
      state_ = stack_.back() == '{' ? State::kKey : State::kValue;
      return c == ',';
    default:
      return false;
  }
}

}  // namespace spillway::text
