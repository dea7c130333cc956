// JsonScan: follows JSON text byte by byte and says where values begin and end; the text itself is never stored. One a
// value; not thread-safe. Raw control characters in strings are let through, for models write them.
#pragma once

#include <string>
#include <string_view>

namespace spillway::text {

class JsonScan {
 public:
  // False: the byte cannot continue a JSON value; the scan is over.
  bool feed(char c);

  size_t depth() const { return stack_.size(); }
  bool done() const { return state_ == State::kDone; }
  bool expects_value() const { return state_ == State::kValue || state_ == State::kValueOrEnd; }
  bool in_key() const { return key_ && state_ == State::kString; }
  bool after_key() const { return state_ == State::kColon; }
  bool after_value() const { return state_ == State::kAfterValue; }

 private:
  static constexpr size_t kDepthMax = 64;
  static constexpr size_t kScalarMax = 64;

  enum class State {
    kValue,
    kValueOrEnd,
    kKey,
    kKeyOrEnd,
    kColon,
    kString,
    kEscape,
    kHex,
    kScalar,
    kAfterValue,
    kDone
  };

  bool begin_value(char c);
  bool close(char c);
  bool end_scalar(char c);
  bool end_value();

  State state_ = State::kValue;
  std::string stack_;   // open brackets
  std::string scalar_;  // the number or word so far
  bool key_ = false;    // the string is an object's key
  int hex_left_ = 0;
};

}  // namespace spillway::text
