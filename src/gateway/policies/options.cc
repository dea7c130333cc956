#include "gateway/policies/options.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <charconv>
#include <cmath>

namespace spillway::gateway {

const std::string* PolicyOptions::find(std::string_view name) {
  const auto [key, is_new] = read_.emplace(name);
  const auto found = spec_.options.find(*key);
  return found == spec_.options.end() ? nullptr : &found->second;
}

void PolicyOptions::fail(std::string_view name, std::string_view expected) {
  if (!error_.empty()) return;
  const std::string* found = find(name);
  error_ = fmt::format("{}: expected {}, found {}", name, expected,
                       found == nullptr ? "nothing" : fmt::format("\"{}\"", *found));
}

double PolicyOptions::number(std::string_view name, double fallback, double min, double max) {
  const std::string* text = find(name);
  if (text == nullptr) return fallback;
  double value = 0;
  const auto [end, error] = std::from_chars(text->data(), text->data() + text->size(), value);
  if (error != std::errc() || end != text->data() + text->size() || !(value >= min && value <= max)) {
    fail(name, fmt::format("a number from {} to {}", min, max));
    return fallback;
  }
  return value;
}

int64_t PolicyOptions::integer(std::string_view name, int64_t fallback, int64_t min, int64_t max) {
  const std::string* text = find(name);
  if (text == nullptr) return fallback;
  int64_t value = 0;
  const auto [end, error] = std::from_chars(text->data(), text->data() + text->size(), value);
  if (error != std::errc() || end != text->data() + text->size() || value < min || value > max) {
    fail(name, fmt::format("an integer from {} to {}", min, max));
    return fallback;
  }
  return value;
}

bool PolicyOptions::boolean(std::string_view name, bool fallback) {
  const std::string* text = find(name);
  if (text == nullptr) return fallback;
  if (*text != "true" && *text != "false") fail(name, "true or false");
  return *text == "true";
}

std::string PolicyOptions::text(std::string_view name, std::string_view fallback) {
  const std::string* text = find(name);
  return text == nullptr ? std::string(fallback) : *text;
}

std::string PolicyOptions::choice(std::string_view name, std::string_view fallback, std::string_view choices) {
  const std::string value = text(name, fallback);
  for (std::string_view rest = choices; !rest.empty();) {
    const size_t bar = rest.find('|');
    if (rest.substr(0, bar) == value) return value;
    rest = bar == std::string_view::npos ? std::string_view() : rest.substr(bar + 1);
  }
  fail(name, fmt::format("one of {}", choices));
  return std::string(fallback);
}

std::vector<std::string> PolicyOptions::list(std::string_view name) {
  std::vector<std::string> items;
  const std::string* text = find(name);
  if (text == nullptr) return items;
  for (size_t begin = 0; begin <= text->size();) {
    const size_t end = std::min(text->find('|', begin), text->size());
    if (end > begin) items.push_back(text->substr(begin, end - begin));
    begin = end + 1;
  }
  if (items.empty()) fail(name, "names separated by '|'");
  return items;
}

Status PolicyOptions::done() const {
  if (!error_.empty()) return invalid(error_);
  for (const auto& [name, value] : spec_.options) {
    if (read_.count(name) > 0) continue;
    return invalid(fmt::format("{}: expected one of {}", name, fmt::join(read_, ", ")));
  }
  return {};
}

}  // namespace spillway::gateway
