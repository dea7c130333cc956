#include "gateway/resume.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "gateway/json_cursor.h"

namespace spillway::gateway {

std::string Resume::json() const {
  return fmt::format(R"({{"id":"{}","created":{},"seed":{},"tokens":[{}]}})", id, created, seed.value_or(0),
                     fmt::join(tokens, ","));
}

// All of a marker or nothing: half of one would put tokens and text at odds.
bool Resume::take_marker(std::string_view text) {
  constexpr std::string_view kName = "spillway ";
  if (!text.starts_with(kName)) return false;
  JsonCursor cursor(text.substr(kName.size()));
  if (!cursor.enter_object()) return false;
  Resume news;
  std::string_view key;
  while (cursor.next_member(key)) {
    if (key == "seed") {
      const auto value = cursor.integer();
      if (value) news.seed = uint64_t(*value);
    } else if (key == "id") {
      if (const auto value = cursor.string())
        news.id = *value;
      else
        cursor.skip();
    } else if (key == "created") {
      news.created = cursor.integer().value_or(0);
    } else if (key == "tokens") {
      if (!cursor.enter_array()) return false;
      while (cursor.next_element()) {
        const auto value = cursor.integer();
        if (!value || *value < 0 || *value > INT32_MAX) return false;
        news.tokens.push_back(int32_t(*value));
      }
    } else {
      cursor.skip();
    }
  }
  if (!cursor.finished()) return false;
  if (news.seed) seed = news.seed;
  if (!news.id.empty()) id = news.id;
  if (news.created != 0) created = news.created;
  tokens.insert(tokens.end(), news.tokens.begin(), news.tokens.end());
  exact = true;
  return true;
}

}  // namespace spillway::gateway
