#include "text/jinja_string.h"

#include <utf8proc.h>

#include <algorithm>

namespace spillway::text::jinja {

std::string_view character_at(std::string_view text, size_t at) {
  utf8proc_int32_t point;
  const auto length = utf8proc_iterate(reinterpret_cast<const utf8proc_uint8_t*>(text.data()) + at,
                                       utf8proc_ssize_t(text.size() - at), &point);
  return text.substr(at, length > 0 ? size_t(length) : 1);
}

std::vector<std::string_view> characters(std::string_view text) {
  std::vector<std::string_view> out;
  for (size_t at = 0; at < text.size(); at += out.back().size()) out.push_back(character_at(text, at));
  return out;
}

size_t count_characters(std::string_view text) {
  size_t count = 0;
  for (size_t at = 0; at < text.size(); at += character_at(text, at).size()) ++count;
  return count;
}

int32_t code_point(std::string_view character) {
  utf8proc_int32_t point;
  const auto length = utf8proc_iterate(reinterpret_cast<const utf8proc_uint8_t*>(character.data()),
                                       utf8proc_ssize_t(character.size()), &point);
  return length > 0 ? point : 0xFFFD;
}

void append_utf8(std::string& out, uint32_t code_point) {
  if (code_point > 0x10FFFF || (code_point >= 0xD800 && code_point <= 0xDFFF)) code_point = 0xFFFD;
  utf8proc_uint8_t bytes[4];
  out.append(reinterpret_cast<char*>(bytes), size_t(utf8proc_encode_char(utf8proc_int32_t(code_point), bytes)));
}

bool is_space(std::string_view character) {
  const int32_t c = code_point(character);
  if (c < 0x80) return (c >= 9 && c <= 13) || (c >= 28 && c <= 32);
  return c == 0x85 || utf8proc_category(c) == UTF8PROC_CATEGORY_ZS || c == 0x2028 || c == 0x2029;
}

std::string_view strip(std::string_view text, const std::string* chars, bool left, bool right) {
  const std::vector<std::string_view> set = chars ? characters(*chars) : std::vector<std::string_view>();
  const auto taken = [&](std::string_view c) {
    return chars ? std::find(set.begin(), set.end(), c) != set.end() : is_space(c);
  };
  while (left && !text.empty()) {
    const std::string_view first = character_at(text, 0);
    if (!taken(first)) break;
    text.remove_prefix(first.size());
  }
  while (right && !text.empty()) {
    size_t start = text.size() - 1;
    while (start > 0 && text.size() - start < 4 && (uint8_t(text[start]) & 0xC0) == 0x80) --start;
    std::string_view last = text.substr(start);
    if (character_at(last, 0).size() != last.size()) last = text.substr(text.size() - 1);
    if (!taken(last)) break;
    text.remove_suffix(last.size());
  }
  return text;
}

namespace {

bool cased(int32_t c) {
  const auto category = utf8proc_category(c);
  return category == UTF8PROC_CATEGORY_LU || category == UTF8PROC_CATEGORY_LL || category == UTF8PROC_CATEGORY_LT;
}

template <class F>
std::string map_characters(std::string_view text, F&& change) {
  std::string out;
  out.reserve(text.size());
  for (size_t at = 0; at < text.size();) {
    const std::string_view c = character_at(text, at);
    change(out, c);
    at += c.size();
  }
  return out;
}

void append_upper(std::string& out, std::string_view c) {
  if (c == "\u00DF") {
    out += "SS";
  } else if (c.size() == 1 && uint8_t(c[0]) >= 0x80) {
    out += c;
  } else {
    append_utf8(out, uint32_t(utf8proc_toupper(code_point(c))));
  }
}

void append_title(std::string& out, std::string_view c) {
  if (c == "\u00DF") {
    out += "Ss";
  } else if (c.size() == 1 && uint8_t(c[0]) >= 0x80) {
    out += c;
  } else {
    append_utf8(out, uint32_t(utf8proc_totitle(code_point(c))));
  }
}

void append_lower(std::string& out, std::string_view c) {
  if (c.size() == 1 && uint8_t(c[0]) >= 0x80) {
    out += c;
  } else {
    append_utf8(out, uint32_t(utf8proc_tolower(code_point(c))));
  }
}

}  // namespace

std::string upper(std::string_view text) { return map_characters(text, append_upper); }
std::string lower(std::string_view text) { return map_characters(text, append_lower); }

std::string capitalize(std::string_view text) {
  bool first = true;
  return map_characters(text, [&](std::string& out, std::string_view c) {
    first ? append_title(out, c) : append_lower(out, c);
    first = false;
  });
}

std::string title(std::string_view text) {
  bool inside = false;
  return map_characters(text, [&](std::string& out, std::string_view c) {
    inside ? append_lower(out, c) : append_title(out, c);
    inside = cased(code_point(c));
  });
}

std::string title_filter(std::string_view text) {
  bool inside = false;
  return map_characters(text, [&](std::string& out, std::string_view c) {
    const bool boundary = is_space(c) || (c.size() == 1 && std::string_view("-({[<").find(c[0]) != std::string::npos);
    inside ? append_lower(out, c) : append_upper(out, c);
    inside = !boundary;
  });
}

std::vector<std::string> split(std::string_view text, const std::string* separator, int64_t limit) {
  std::vector<std::string> out;
  if (separator) {
    size_t from = 0;
    while (limit < 0 || int64_t(out.size()) < limit) {
      const size_t at = text.find(*separator, from);
      if (at == std::string_view::npos) break;
      out.emplace_back(text.substr(from, at - from));
      from = at + separator->size();
    }
    out.emplace_back(text.substr(from));
    return out;
  }
  while (true) {
    text = strip(text, nullptr, true, false);
    if (text.empty()) return out;
    if (limit >= 0 && int64_t(out.size()) >= limit) {
      out.emplace_back(text);
      return out;
    }
    size_t end = 0;
    while (end < text.size() && !is_space(character_at(text, end))) end += character_at(text, end).size();
    out.emplace_back(text.substr(0, end));
    text.remove_prefix(end);
  }
}

std::vector<std::string> rsplit(std::string_view text, const std::string* separator, int64_t limit) {
  if (limit < 0) return split(text, separator, limit);
  std::vector<std::string> out;
  if (separator) {
    size_t end = text.size();
    while (int64_t(out.size()) < limit && end >= separator->size()) {
      const size_t at = text.substr(0, end).rfind(*separator);
      if (at == std::string_view::npos) break;
      out.emplace_back(text.substr(at + separator->size(), end - at - separator->size()));
      end = at;
    }
    out.emplace_back(text.substr(0, end));
  } else {
    const std::vector<std::string> words = split(text, nullptr, -1);
    const size_t kept = words.size() > size_t(limit) ? words.size() - size_t(limit) : 0;
    for (size_t i = words.size(); i > kept; --i) out.push_back(words[i - 1]);
    if (kept > 0) {
      std::string_view rest = strip(text, nullptr, false, true);
      for (size_t i = words.size(); i > kept; --i) {
        rest.remove_suffix(words[i - 1].size());
        rest = strip(rest, nullptr, false, true);
      }
      out.emplace_back(rest);
    }
  }
  std::reverse(out.begin(), out.end());
  return out;
}

std::vector<std::string> split_lines(std::string_view text, bool keep_ends) {
  std::vector<std::string> out;
  size_t from = 0;
  for (size_t at = 0; at < text.size();) {
    const std::string_view c = character_at(text, at);
    const int32_t point = code_point(c);
    size_t end = at + c.size();
    const bool breaks = (point >= 10 && point <= 13) || (point >= 28 && point <= 30) || point == 0x85 ||
                        point == 0x2028 || point == 0x2029;
    if (breaks) {
      if (point == '\r' && end < text.size() && text[end] == '\n') ++end;
      out.emplace_back(text.substr(from, (keep_ends ? end : at) - from));
      from = end;
    }
    at = end;
  }
  if (from < text.size()) out.emplace_back(text.substr(from));
  return out;
}

std::string replace(std::string_view text, std::string_view from, std::string_view to, int64_t limit) {
  std::string out;
  if (from.empty()) {
    int64_t done = 0;
    for (size_t at = 0; at <= text.size(); ++done) {
      if (limit < 0 || done < limit) out += to;
      if (at == text.size()) break;
      const std::string_view c = character_at(text, at);
      out += c;
      at += c.size();
    }
    return out;
  }
  size_t at = 0;
  for (int64_t done = 0; limit < 0 || done < limit; ++done) {
    const size_t found = text.find(from, at);
    if (found == std::string_view::npos) break;
    out.append(text.substr(at, found - at)).append(to);
    at = found + from.size();
  }
  return out.append(text.substr(at));
}

bool is_printable(std::string_view character) {
  if (character.size() == 1 && uint8_t(character[0]) >= 0x80) return false;
  const int32_t c = code_point(character);
  switch (utf8proc_category(c)) {
    case UTF8PROC_CATEGORY_CC:
    case UTF8PROC_CATEGORY_CF:
    case UTF8PROC_CATEGORY_CS:
    case UTF8PROC_CATEGORY_CO:
    case UTF8PROC_CATEGORY_CN:
    case UTF8PROC_CATEGORY_ZL:
    case UTF8PROC_CATEGORY_ZP:
      return false;
    case UTF8PROC_CATEGORY_ZS:
      return c == ' ';
    default:
      return true;
  }
}

bool all_of_class(std::string_view text, CharacterClass wanted) {
  bool any = false;
  for (std::string_view c : characters(text)) {
    const int32_t point = code_point(c);
    const auto category = utf8proc_category(point);
    const bool alpha = category >= UTF8PROC_CATEGORY_LU && category <= UTF8PROC_CATEGORY_LO;
    const bool digit = category == UTF8PROC_CATEGORY_ND;
    switch (wanted) {
      case CharacterClass::kAlpha:
        if (!alpha) return false;
        break;
      case CharacterClass::kDigit:
        if (!digit) return false;
        break;
      case CharacterClass::kAlnum:
        if (!alpha && !digit) return false;
        break;
      case CharacterClass::kSpace:
        if (!is_space(c)) return false;
        break;
      case CharacterClass::kUpper:
        if (category == UTF8PROC_CATEGORY_LL || category == UTF8PROC_CATEGORY_LT) return false;
        if (category != UTF8PROC_CATEGORY_LU) continue;
        break;
      case CharacterClass::kLower:
        if (category == UTF8PROC_CATEGORY_LU || category == UTF8PROC_CATEGORY_LT) return false;
        if (category != UTF8PROC_CATEGORY_LL) continue;
        break;
    }
    any = true;
  }
  return any;
}

}  // namespace spillway::text::jinja
