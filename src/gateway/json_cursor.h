// JsonCursor: walks JSON text without building anything: members and elements are visited, what nobody asked for is
// skipped, and values are views into the text. It checks the grammar as it goes, so that text walked to finished() was
// well-formed JSON. For messages that are forwarded as they are and only looked at. Value type; any thread.
// Not its job: unescaping (unescaped() for the few strings that need it), UTF-8.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace spillway::gateway {

class JsonCursor {
 public:
  enum class Kind { kObject, kArray, kString, kNumber, kTrue, kFalse, kNull, kNone };

  explicit JsonCursor(std::string_view text) : at_(text.data()), begin_(text.data()), end_(text.data() + text.size()) {}

  // What comes next; kNone at the end and at what is no JSON.
  Kind peek();

  // Each returns false when the cursor stands at something else, which it leaves where it is.
  bool enter_object() { return enter('{', Kind::kObject); }
  bool enter_array() { return enter('[', Kind::kArray); }

  // Inside an object: the next key, raw (escapes as written), its value being next. False at the end, which is left.
  bool next_member(std::string_view& key);
  // Inside an array: true when an element is next; false at the end, which is left.
  bool next_element();

  std::optional<std::string_view> string();  // raw, without its quotes
  std::optional<int64_t> integer();          // an integral number; others are skipped and give nothing
  std::optional<bool> boolean();
  bool skip();  // any value
  // skip, and the text of the value.
  std::string_view value();

  bool failed() const { return failed_; }
  // Well-formed, and nothing but white space is left.
  bool finished();
  size_t position() const { return size_t(at_ - begin_); }  // just after the value taken last

 private:
  static constexpr int kDepthMax = 64;

  bool enter(char bracket, Kind kind);
  void space();
  bool fail() {
    failed_ = true;
    at_ = end_;
    return false;
  }
  bool skip_string();
  bool skip_number();
  bool skip_word(std::string_view word);

  const char* at_;
  const char* begin_;
  const char* end_;
  int depth_ = 0;
  bool failed_ = false;
  bool first_ = false;  // just inside a bracket: no comma is due
};

// A raw JSON string's characters; nothing when an escape is broken. Unpaired surrogates become U+FFFD.
std::optional<std::string> unescaped(std::string_view raw);

// The text as a JSON string with its quotes.
void append_json_string(std::string& out, std::string_view text);

}  // namespace spillway::gateway
