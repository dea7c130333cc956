// Value: what an option holds. Durations are seconds, sizes are bytes. Written forms are the same in a file, in the
// environment and in flags, except that only a file has real lists; elsewhere commas separate.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "base/result.h"
#include "config/options.h"

namespace spillway::config {

using Value = std::variant<std::string, int64_t, double, bool, std::vector<std::string>, std::vector<int64_t>>;

// What a plain YAML scalar would be taken for.
enum class Shape { kNothing, kBool, kInt, kFloat, kText };
Shape shape_of(std::string_view text);

// From a flag or the environment. Errors read "expected ..., found ...".
Result<Value> parse_value(const Option& option, std::string_view text);
Result<Value> parse_list(const Option& option, const std::vector<std::string>& items);

// As parse_value reads it back.
std::string format_value(const Option& option, const Value& value);

// As a YAML scalar or list: strings are quoted.
std::string format_yaml(const Option& option, const Value& value);

// A bound or value of a numeric type with its unit: "30s", "32MiB", "0.9".
std::string format_number(Type type, double value);

}  // namespace spillway::config
