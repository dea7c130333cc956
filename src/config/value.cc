#include "config/value.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <boost/json/serialize.hpp>
#include <boost/json/string.hpp>
#include <charconv>
#include <cmath>
#include <optional>
#include <span>

namespace spillway::config {
namespace {

struct Unit {
  std::string_view name;
  double factor;
};

// Larger first, so that printing takes the largest that divides evenly.
constexpr Unit kDurationUnits[] = {{"h", 3600}, {"m", 60}, {"s", 1}, {"ms", 1e-3}, {"us", 1e-6}};
constexpr Unit kByteUnits[] = {
    {"TiB", 1099511627776.0}, {"TB", 1e12}, {"GiB", 1073741824.0}, {"GB", 1e9}, {"MiB", 1048576.0}, {"MB", 1e6},
    {"KiB", 1024.0},          {"kB", 1e3},  {"KB", 1e3},           {"B", 1}};

template <class T>
std::optional<T> parse_number(std::string_view text) {
  T value{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  if constexpr (std::is_floating_point_v<T>) {
    if (!std::isfinite(value)) return std::nullopt;
  }
  return value;
}

std::optional<double> parse_unit(std::string_view text, std::span<const Unit> units) {
  double number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc() || !std::isfinite(number)) return std::nullopt;
  std::string_view unit = text.substr(size_t(end - text.data()));
  while (unit.starts_with(' ')) unit.remove_prefix(1);
  if (unit.empty()) return number;
  for (const auto& known : units) {
    if (unit == known.name) return number * known.factor;
  }
  return std::nullopt;
}

std::optional<bool> parse_bool(std::string_view text) {
  if (text == "true" || text == "True" || text == "TRUE") return true;
  if (text == "false" || text == "False" || text == "FALSE") return false;
  return std::nullopt;
}

bool matches_choice(std::string_view text, std::string_view choice) {
  if (!choice.ends_with('#')) return text == choice;
  choice.remove_suffix(1);
  if (!text.starts_with(choice)) return false;
  const auto number = parse_number<int>(text.substr(choice.size()));
  return number && *number >= 0;
}

bool is_choice(std::string_view text, std::string_view choices) {
  while (!choices.empty()) {
    const size_t bar = std::min(choices.find('|'), choices.size());
    if (matches_choice(text, choices.substr(0, bar))) return true;
    choices.remove_prefix(std::min(bar + 1, choices.size()));
  }
  return false;
}

// Long or unprintable input is shown in part.
std::string quoted(std::string_view text) {
  constexpr size_t kShown = 60;
  std::string shown(text.substr(0, kShown));
  for (char& c : shown) {
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) c = '?';
  }
  return "\"" + shown + (text.size() > kShown ? "\"..." : "\"");
}

Error unexpected(const Option& option, std::string_view text) {
  return invalid(fmt::format("expected {}, found {}", describe_expected(option), quoted(text)));
}

bool in_range(const Option& option, double value) { return value >= option.min && value <= option.max; }

std::string yaml_string(const std::string& text) { return boost::json::serialize(boost::json::string(text)); }

}  // namespace

Shape shape_of(std::string_view text) {
  if (text.empty() || text == "~" || text == "null" || text == "Null" || text == "NULL") return Shape::kNothing;
  if (parse_bool(text)) return Shape::kBool;
  if (parse_number<int64_t>(text)) return Shape::kInt;
  if (parse_number<double>(text)) return Shape::kFloat;
  return Shape::kText;
}

Result<Value> parse_value(const Option& option, std::string_view text) {
  switch (option.type) {
    case Type::kString:
      if (*option.choices && !is_choice(text, option.choices)) return unexpected(option, text);
      return Value(std::string(text));
    case Type::kBool:
      if (const auto value = parse_bool(text)) return Value(*value);
      return unexpected(option, text);
    case Type::kInt:
      if (const auto value = parse_number<int64_t>(text); value && in_range(option, double(*value)))
        return Value(*value);
      return unexpected(option, text);
    case Type::kFloat:
      if (const auto value = parse_number<double>(text); value && in_range(option, *value)) return Value(*value);
      return unexpected(option, text);
    case Type::kDuration:
      if (const auto value = parse_unit(text, kDurationUnits); value && in_range(option, *value)) return Value(*value);
      return unexpected(option, text);
    case Type::kBytes:
      if (const auto value = parse_unit(text, kByteUnits); value && in_range(option, *value)) {
        return Value(int64_t(*value));
      }
      return unexpected(option, text);
    case Type::kStrings:
    case Type::kInts:
      break;
  }
  std::vector<std::string> items;
  while (!text.empty()) {
    const size_t comma = std::min(text.find(','), text.size());
    items.emplace_back(text.substr(0, comma));
    text.remove_prefix(std::min(comma + 1, text.size()));
  }
  return parse_list(option, items);
}

Result<Value> parse_list(const Option& option, const std::vector<std::string>& items) {
  if (option.type == Type::kStrings) return Value(items);
  if (option.type != Type::kInts) return invalid("expected " + describe_expected(option) + ", found a list");
  std::vector<int64_t> numbers;
  for (const auto& item : items) {
    const auto number = parse_number<int64_t>(item);
    if (!number || !in_range(option, double(*number))) return unexpected(option, item);
    numbers.push_back(*number);
  }
  return Value(numbers);
}

std::string format_number(Type type, double value) {
  const auto with_unit = [&](std::span<const Unit> units) {
    for (const auto& unit : units) {
      const double count = value / unit.factor;
      if (value != 0 && count >= 1 && count == std::floor(count)) return fmt::format("{:.0f}{}", count, unit.name);
    }
    return std::string();
  };
  std::string text;
  if (type == Type::kDuration) text = value == 0 ? "0s" : with_unit(std::span(kDurationUnits).first(3));
  if (type == Type::kDuration && text.empty()) text = fmt::format("{}s", value);
  if (type == Type::kBytes) text = with_unit(kByteUnits);
  if (!text.empty()) return text;
  return value == std::floor(value) && std::abs(value) < 1e15 ? fmt::format("{:.0f}", value) : fmt::format("{}", value);
}

std::string format_value(const Option& option, const Value& value) {
  switch (option.type) {
    case Type::kString:
      return std::get<std::string>(value);
    case Type::kBool:
      return std::get<bool>(value) ? "true" : "false";
    case Type::kInt:
      return std::to_string(std::get<int64_t>(value));
    case Type::kBytes:
      return format_number(option.type, double(std::get<int64_t>(value)));
    case Type::kFloat:
      return fmt::format("{}", std::get<double>(value));
    case Type::kDuration:
      return format_number(option.type, std::get<double>(value));
    case Type::kStrings:
      return fmt::format("{}", fmt::join(std::get<std::vector<std::string>>(value), ","));
    case Type::kInts:
      return fmt::format("{}", fmt::join(std::get<std::vector<int64_t>>(value), ","));
  }
  return {};
}

std::string format_yaml(const Option& option, const Value& value) {
  if (option.type == Type::kString) return yaml_string(std::get<std::string>(value));
  if (option.type == Type::kInts) return "[" + format_value(option, value) + "]";
  if (option.type != Type::kStrings) return format_value(option, value);
  std::string list;
  for (const auto& item : std::get<std::vector<std::string>>(value))
    list += (list.empty() ? "" : ", ") + yaml_string(item);
  return "[" + list + "]";
}

}  // namespace spillway::config
