#include "models/config_reader.h"

#include <fmt/format.h>

#include <boost/json/serialize.hpp>
#include <cmath>

namespace spillway::models {

namespace json = boost::json;

namespace {

std::string shown(const json::value& value) {
  std::string text = json::serialize(value);
  if (text.size() > 60) text = text.substr(0, 57) + "...";
  return text;
}

}  // namespace

const json::value* ConfigReader::find(std::string_view key) const {
  const json::value* value = object_.if_contains(json::string_view(key.data(), key.size()));
  return value == nullptr || value->is_null() ? nullptr : value;
}

bool ConfigReader::has(std::string_view key) const { return find(key) != nullptr; }

void ConfigReader::fail(std::string problem) {
  if (problem_.empty()) problem_ = fmt::format("{}: {}", where_, problem);
}

int64_t ConfigReader::integer(std::string_view key, int64_t low, int64_t high) {
  const json::value* value = find(key);
  if (value == nullptr) {
    fail(fmt::format("expected key '{}' (an integer), found none", key));
    return low;
  }
  const int64_t* number = value->if_int64();
  if (number == nullptr || *number < low || *number > high) {
    fail(fmt::format("{}: expected an integer in [{}, {}], found {}", key, low, high, shown(*value)));
    return low;
  }
  return *number;
}

int64_t ConfigReader::integer_or(std::string_view key, int64_t fallback, int64_t low, int64_t high) {
  return has(key) ? integer(key, low, high) : fallback;
}

double ConfigReader::number(std::string_view key) {
  const json::value* value = find(key);
  if (value == nullptr) {
    fail(fmt::format("expected key '{}' (a number), found none", key));
    return 1;
  }
  if (!value->is_number() || !std::isfinite(value->to_number<double>())) {
    fail(fmt::format("{}: expected a number, found {}", key, shown(*value)));
    return 1;
  }
  return value->to_number<double>();
}

double ConfigReader::number_or(std::string_view key, double fallback) { return has(key) ? number(key) : fallback; }

bool ConfigReader::boolean_or(std::string_view key, bool fallback) {
  const json::value* value = find(key);
  if (value == nullptr) return fallback;
  if (!value->is_bool()) {
    fail(fmt::format("{}: expected true or false, found {}", key, shown(*value)));
    return fallback;
  }
  return value->as_bool();
}

std::string ConfigReader::string_or(std::string_view key, std::string fallback) {
  const json::value* value = find(key);
  if (value == nullptr) return fallback;
  if (!value->is_string()) {
    fail(fmt::format("{}: expected a string, found {}", key, shown(*value)));
    return fallback;
  }
  return std::string(value->as_string());
}

const json::object* ConfigReader::object_or_null(std::string_view key) {
  const json::value* value = find(key);
  if (value == nullptr) return nullptr;
  if (!value->is_object()) {
    fail(fmt::format("{}: expected an object, found {}", key, shown(*value)));
    return nullptr;
  }
  return &value->as_object();
}

}  // namespace spillway::models
