#include "text/tokenizer_bulk.h"

#include <fmt/format.h>

#include "text/tokenizer_vocab.h"
#include "text/unicode.h"

namespace spillway::text {

namespace {

class Scanner {
 public:
  explicit Scanner(std::string_view text) : text_(text) {}

  size_t at() const { return at_; }
  bool done() { return space(), at_ >= text_.size(); }
  char peek() { return done() ? '\0' : text_[at_]; }
  bool take(char c) {
    if (peek() != c) return false;
    ++at_;
    return true;
  }

  // A string; the result points into the text, or into `buffer` when it has escapes.
  bool string(std::string_view& out, std::string& buffer) {
    if (!take('"')) return false;
    const size_t begin = at_;
    for (; at_ < text_.size(); ++at_) {
      if (text_[at_] == '"') {
        out = text_.substr(begin, at_++ - begin);
        return true;
      }
      if (text_[at_] == '\\') return string_with_escapes(begin, out, buffer);
      if (uint8_t(text_[at_]) < 0x20) return false;
    }
    return false;
  }

  bool integer(int64_t& out) {
    const bool negative = take('-');
    const size_t begin = at_;
    out = 0;
    for (; at_ < text_.size() && text_[at_] >= '0' && text_[at_] <= '9'; ++at_) {
      if (at_ - begin > 17) return false;
      out = out * 10 + (text_[at_] - '0');
    }
    if (negative) out = -out;
    return at_ > begin;
  }

  // Over a value of any kind; brackets are counted, not matched by kind.
  bool skip_value() {
    int depth = 0;
    std::string_view ignored;
    std::string buffer;
    do {
      const char c = peek();
      if (c == '\0') return false;
      if (c == '"') {
        if (!string(ignored, buffer)) return false;
      } else {
        depth += (c == '{' || c == '[') - (c == '}' || c == ']');
        if (depth < 0) return false;
        ++at_;
        if (depth == 0 && c != '}' && c != ']') skip_scalar();
      }
    } while (depth > 0);
    return true;
  }

 private:
  void space() {
    while (at_ < text_.size() && (text_[at_] == ' ' || text_[at_] == '\n' || text_[at_] == '\r' || text_[at_] == '\t'))
      ++at_;
  }

  void skip_scalar() {
    while (at_ < text_.size() && std::string_view(",]} \n\r\t").find(text_[at_]) == std::string_view::npos) ++at_;
  }

  bool hex4(char32_t& out) {
    out = 0;
    for (int i = 0; i < 4; ++i, ++at_) {
      if (at_ >= text_.size()) return false;
      const char c = text_[at_];
      const int digit = c >= '0' && c <= '9' ? c - '0' : (c | 32) >= 'a' && (c | 32) <= 'f' ? (c | 32) - 'a' + 10 : -1;
      if (digit < 0) return false;
      out = out * 16 + char32_t(digit);
    }
    return true;
  }

  bool escape(std::string& buffer) {
    constexpr std::string_view kNames = "\"\\/bfnrt", kValues = "\"\\/\b\f\n\r\t";
    if (at_ >= text_.size()) return false;
    const char c = text_[at_++];
    if (const size_t index = kNames.find(c); index != std::string_view::npos) {
      buffer.push_back(kValues[index]);
      return true;
    }
    char32_t high = 0, low = 0;
    if (c != 'u' || !hex4(high) || (high >= 0xDC00 && high <= 0xDFFF)) return false;
    if (high >= 0xD800 && high <= 0xDBFF) {
      if (text_.substr(at_, 2) != "\\u") return false;
      at_ += 2;
      if (!hex4(low) || low < 0xDC00 || low > 0xDFFF) return false;
      high = 0x10000 + ((high - 0xD800) << 10) + (low - 0xDC00);
    }
    append_utf8(buffer, high);
    return true;
  }

  bool string_with_escapes(size_t begin, std::string_view& out, std::string& buffer) {
    buffer.assign(text_.substr(begin, at_ - begin));
    while (at_ < text_.size()) {
      const char c = text_[at_++];
      if (c == '"') {
        out = buffer;
        return true;
      }
      if (uint8_t(c) < 0x20) return false;
      if (c != '\\') {
        buffer.push_back(c);
      } else if (!escape(buffer)) {
        return false;
      }
    }
    return false;
  }

  std::string_view text_;
  size_t at_ = 0;
};

// Walks the members of an object; on_member leaves the scanner behind the value.
template <class OnMember>
bool walk_object(Scanner& scanner, OnMember on_member) {
  if (!scanner.take('{')) return false;
  if (scanner.take('}')) return true;
  std::string_view key;
  std::string buffer;
  do {
    if (!scanner.string(key, buffer) || !scanner.take(':') || !on_member(key)) return false;
  } while (scanner.take(','));
  return scanner.take('}');
}

Error fault(const std::string& path, std::string_view expected, size_t at) {
  return corrupt(fmt::format("expected {} at {}, found something else at its byte {}", expected, path, at));
}

}  // namespace

BulkParts cut_bulk_parts(std::string_view document) {
  BulkParts parts;
  const auto whole = [&] { return BulkParts{std::string(document), {}, {}}; };
  if (!is_valid_utf8(document)) return whole();
  Scanner scanner(document);
  const auto on_model_member = [&](std::string_view key) {
    std::string_view* const part = key == "vocab" ? &parts.vocab : key == "merges" ? &parts.merges : nullptr;
    const char open = scanner.peek();
    const size_t begin = scanner.at();
    if (!scanner.skip_value()) return false;
    if (part == nullptr || open != (part == &parts.vocab ? '{' : '[')) return true;
    if (!part->empty()) return false;  // twice
    *part = document.substr(begin, scanner.at() - begin);
    return true;
  };
  const bool ok = walk_object(scanner, [&](std::string_view key) {
    return key == "model" && scanner.peek() == '{' ? walk_object(scanner, on_model_member) : scanner.skip_value();
  });
  if (!ok) return whole();
  std::string_view first = parts.vocab, second = parts.merges;
  if (second.empty() || (!first.empty() && second.data() < first.data())) std::swap(first, second);
  size_t done = 0;
  for (const std::string_view part : {first, second}) {
    if (part.empty()) continue;
    const auto begin = size_t(part.data() - document.data());
    parts.rest.append(document.substr(done, begin - done)).append("null");
    done = begin + part.size();
  }
  parts.rest.append(document.substr(done));
  return parts;
}

Status read_vocab(std::string_view object, const std::string& path, const OnToken& token) {
  Scanner scanner(object);
  Status status;
  const bool ok = walk_object(scanner, [&](std::string_view key) {
    int64_t id = 0;
    if (!scanner.integer(id)) return false;
    status = token(key, id);
    return status.ok();
  });
  if (!status.ok()) return status;
  if (!ok) return fault(path, "an object of tokens and ids", scanner.at());
  return {};
}

Error wrong_token_id(const std::string& path, std::string_view token, int64_t id) {
  return invalid(
      fmt::format("expected an id of its own below {} at {}.{:.60}, found {}", kTokenIdLimit, path, token, id));
}

Status read_merges(std::string_view array, const std::string& path, const OnMerge& merge) {
  Scanner scanner(array);
  if (!scanner.take('[')) return fault(path, "an array", 0);
  if (scanner.take(']')) return {};
  std::string buffer, right_buffer;
  uint32_t index = 0;
  do {
    std::string_view left, right;
    bool ok = true;
    if (scanner.take('[')) {
      ok =
          scanner.string(left, buffer) && scanner.take(',') && scanner.string(right, right_buffer) && scanner.take(']');
    } else if (scanner.string(left, buffer)) {
      const size_t space = left.find(' ');
      ok = space != std::string_view::npos;
      if (ok) right = left.substr(space + 1), left = left.substr(0, space);
    }
    if (!ok || left.empty() || right.empty()) {
      return fault(fmt::format("{}[{}]", path, index), "\"left right\" or [left, right]", scanner.at());
    }
    SW_TRY(merge(left, right, index++));
  } while (scanner.take(','));
  if (!scanner.take(']')) return fault(fmt::format("{}[{}]", path, index), "',' or ']'", scanner.at());
  return {};
}

}  // namespace spillway::text
