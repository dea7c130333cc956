#include "gateway/json_cursor.h"

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

#include <bit>
#include <charconv>
#include <cstring>

namespace spillway::gateway {
namespace {

bool is_digit(char c) { return c >= '0' && c <= '9'; }

std::optional<uint32_t> hex4(std::string_view digits) {
  uint32_t value = 0;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value, 16);
  if (digits.size() != 4 || error != std::errc() || end != digits.data() + 4) return std::nullopt;
  return value;
}

void append_utf8(std::string& out, uint32_t c) {
  if (c < 0x80) {
    out += char(c);
  } else if (c < 0x800) {
    out += {char(0xC0 | c >> 6), char(0x80 | (c & 63))};
  } else if (c < 0x10000) {
    out += {char(0xE0 | c >> 12), char(0x80 | (c >> 6 & 63)), char(0x80 | (c & 63))};
  } else {
    out += {char(0xF0 | c >> 18), char(0x80 | (c >> 12 & 63)), char(0x80 | (c >> 6 & 63)), char(0x80 | (c & 63))};
  }
}

// How many bytes come before the first that is '"', '\\' or a control character; all when there is none.
size_t plain_bytes(const char* at, size_t size) {
  size_t done = 0;
#if defined(__SSE2__)
  for (; size - done >= 16; done += 16) {
    const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(at + done));
    const __m128i quote = _mm_cmpeq_epi8(bytes, _mm_set1_epi8('"'));
    const __m128i slash = _mm_cmpeq_epi8(bytes, _mm_set1_epi8('\\'));
    const __m128i control = _mm_cmpeq_epi8(_mm_min_epu8(bytes, _mm_set1_epi8(0x1f)), bytes);
    const int found = _mm_movemask_epi8(_mm_or_si128(control, _mm_or_si128(quote, slash)));
    if (found != 0) return done + size_t(std::countr_zero(unsigned(found)));
  }
#endif
  for (; done < size; ++done) {
    const char c = at[done];
    if (c == '"' || c == '\\' || static_cast<unsigned char>(c) < 0x20) break;
  }
  return done;
}

}  // namespace

void JsonCursor::space() {
  while (at_ < end_ && (*at_ == ' ' || *at_ == '\n' || *at_ == '\r' || *at_ == '\t')) ++at_;
}

JsonCursor::Kind JsonCursor::peek() {
  space();
  if (at_ == end_) return Kind::kNone;
  switch (*at_) {
    case '{':
      return Kind::kObject;
    case '[':
      return Kind::kArray;
    case '"':
      return Kind::kString;
    case 't':
      return Kind::kTrue;
    case 'f':
      return Kind::kFalse;
    case 'n':
      return Kind::kNull;
    default:
      return *at_ == '-' || is_digit(*at_) ? Kind::kNumber : Kind::kNone;
  }
}

bool JsonCursor::enter(char, Kind kind) {
  if (peek() != kind) return false;
  if (++depth_ > kDepthMax) return fail();
  ++at_;
  first_ = true;
  return true;
}

bool JsonCursor::next_member(std::string_view& key) {
  space();
  if (at_ < end_ && *at_ == '}') {
    ++at_;
    --depth_;
    first_ = false;
    return false;
  }
  if (!first_) {
    if (at_ == end_ || *at_ != ',') return fail();
    ++at_;
    space();
  }
  first_ = false;
  const auto text = string();
  space();
  if (!text || at_ == end_ || *at_ != ':') return fail();
  ++at_;
  key = *text;
  return true;
}

bool JsonCursor::next_element() {
  space();
  if (at_ < end_ && *at_ == ']') {
    ++at_;
    --depth_;
    first_ = false;
    return false;
  }
  if (!first_) {
    if (at_ == end_ || *at_ != ',') return fail();
    ++at_;
  }
  first_ = false;
  return peek() != Kind::kNone || fail();
}

std::optional<std::string_view> JsonCursor::string() {
  if (peek() != Kind::kString) return std::nullopt;
  const char* from = at_ + 1;
  if (!skip_string()) return std::nullopt;
  return std::string_view(from, size_t(at_ - 1 - from));
}

std::optional<int64_t> JsonCursor::integer() {
  if (peek() != Kind::kNumber) return std::nullopt;
  const char* from = at_;
  if (!skip_number()) return std::nullopt;
  int64_t value = 0;
  const auto [end, error] = std::from_chars(from, at_, value);
  if (error != std::errc() || end != at_) return std::nullopt;
  return value;
}

std::optional<bool> JsonCursor::boolean() {
  const Kind kind = peek();
  if (kind != Kind::kTrue && kind != Kind::kFalse) return std::nullopt;
  if (!skip_word(kind == Kind::kTrue ? "true" : "false")) return std::nullopt;
  return kind == Kind::kTrue;
}

std::string_view JsonCursor::value() {
  space();
  const char* from = at_;
  if (!skip()) return {};
  return {from, size_t(at_ - from)};
}

bool JsonCursor::skip() {
  switch (peek()) {
    case Kind::kString:
      return skip_string();
    case Kind::kNumber:
      return skip_number();
    case Kind::kTrue:
      return skip_word("true");
    case Kind::kFalse:
      return skip_word("false");
    case Kind::kNull:
      return skip_word("null");
    case Kind::kNone:
      return fail();
    case Kind::kObject: {
      std::string_view key;
      if (!enter_object()) return false;
      while (next_member(key)) {
        if (!skip()) return false;
      }
      return !failed_;
    }
    case Kind::kArray: {
      if (!enter_array()) return false;
      while (next_element()) {
        if (!skip()) return false;
      }
      return !failed_;
    }
  }
  return fail();
}

bool JsonCursor::skip_string() {
  ++at_;
  while (at_ < end_) {
    at_ += plain_bytes(at_, size_t(end_ - at_));
    if (at_ == end_) break;
    const char c = *at_++;
    if (c == '"') return true;
    if (static_cast<unsigned char>(c) < 0x20) return fail();
    if (c != '\\') continue;
    if (at_ == end_ || std::strchr("\"\\/bfnrtu", *at_) == nullptr || *at_ == '\0') return fail();
    if (*at_++ != 'u') continue;
    if (end_ - at_ < 4 || !hex4({at_, 4})) return fail();
    at_ += 4;
  }
  return fail();
}

bool JsonCursor::skip_number() {
  if (at_ < end_ && *at_ == '-') ++at_;
  const auto digits = [&] {
    const char* from = at_;
    while (at_ < end_ && is_digit(*at_)) ++at_;
    return at_ > from;
  };
  const bool zero = at_ < end_ && *at_ == '0';
  const char* from = at_;
  if (!digits() || (zero && at_ - from > 1)) return fail();
  if (at_ < end_ && *at_ == '.') {
    ++at_;
    if (!digits()) return fail();
  }
  if (at_ < end_ && (*at_ == 'e' || *at_ == 'E')) {
    ++at_;
    if (at_ < end_ && (*at_ == '+' || *at_ == '-')) ++at_;
    if (!digits()) return fail();
  }
  return true;
}

bool JsonCursor::skip_word(std::string_view word) {
  if (size_t(end_ - at_) < word.size() || std::string_view(at_, word.size()) != word) return fail();
  at_ += word.size();
  return true;
}

bool JsonCursor::finished() {
  space();
  return !failed_ && depth_ == 0 && at_ == end_;
}

std::optional<std::string> unescaped(std::string_view raw) {
  std::string out;
  out.reserve(raw.size());
  for (size_t i = 0; i < raw.size(); ++i) {
    if (raw[i] != '\\') {
      out += raw[i];
      continue;
    }
    if (++i == raw.size()) return std::nullopt;
    constexpr std::string_view kEscapes = "\"\\/bfnrt", kMeanings = "\"\\/\b\f\n\r\t";
    if (const size_t which = kEscapes.find(raw[i]); which != std::string_view::npos) {
      out += kMeanings[which];
      continue;
    }
    const auto unit = raw[i] == 'u' ? hex4(raw.substr(i + 1, 4)) : std::nullopt;
    if (!unit) return std::nullopt;
    i += 4;
    uint32_t c = *unit;
    if (c >= 0xD800 && c < 0xDC00 && raw.substr(i + 1, 2) == "\\u") {
      const auto low = hex4(raw.substr(i + 3, 4));
      if (low && *low >= 0xDC00 && *low < 0xE000) {
        c = 0x10000 + ((c - 0xD800) << 10) + (*low - 0xDC00);
        i += 6;
      }
    }
    append_utf8(out, c >= 0xD800 && c < 0xE000 ? 0xFFFD : c);
  }
  return out;
}

void append_json_string(std::string& out, std::string_view text) {
  constexpr char kHex[] = "0123456789abcdef";
  out += '"';
  for (const char c : text) {
    switch (c) {
      case '"':
        out += "\\\"";
        break;
      case '\\':
        out += "\\\\";
        break;
      case '\n':
        out += "\\n";
        break;
      case '\r':
        out += "\\r";
        break;
      case '\t':
        out += "\\t";
        break;
      default:
        if (static_cast<unsigned char>(c) < 0x20) {
          out += {'\\', 'u', '0', '0', kHex[c >> 4], kHex[c & 15]};
        } else {
          out += c;
        }
    }
  }
  out += '"';
}

}  // namespace spillway::gateway
