// Looking for markers in text that arrives in pieces. Pure functions.
#pragma once

#include <algorithm>
#include <initializer_list>
#include <string_view>

namespace spillway::text {

inline size_t leading_white(std::string_view text) {
  const size_t at = text.find_first_not_of(" \t\r\n");
  return at == std::string_view::npos ? text.size() : at;
}

inline size_t trailing_white(std::string_view text) {
  const size_t at = text.find_last_not_of(" \t\r\n");
  return at == std::string_view::npos ? text.size() : text.size() - at - 1;
}

inline std::string_view trimmed(std::string_view text) {
  text.remove_prefix(leading_white(text));
  text.remove_suffix(trailing_white(text));
  return text;
}

// The length of the longest end of text that begins marker without being all of it.
inline size_t partial_suffix(std::string_view text, std::string_view marker) {
  if (marker.empty()) return 0;
  for (size_t size = std::min(text.size(), marker.size() - 1); size > 0; --size) {
    if (marker.starts_with(text.substr(text.size() - size))) return size;
  }
  return 0;
}

inline size_t partial_suffix(std::string_view text, std::initializer_list<std::string_view> markers) {
  size_t longest = 0;
  for (std::string_view marker : markers) longest = std::max(longest, partial_suffix(text, marker));
  return longest;
}

}  // namespace spillway::text
