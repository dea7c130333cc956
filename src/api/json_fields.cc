#include "api/json_fields.h"

#include <boost/json/parse.hpp>
#include <boost/json/serialize.hpp>
#include <cmath>

namespace spillway::api {

namespace {
constexpr size_t kShownMax = 60;

std::string shown_number(double value) {
  boost::json::value json = value;
  if (value == std::floor(value) && std::abs(value) < 1e15) json = int64_t(value);
  return boost::json::serialize(json);
}
}  // namespace

std::string describe(const boost::json::value& value) {
  switch (value.kind()) {
    case boost::json::kind::null: return "null";
    case boost::json::kind::bool_: return value.get_bool() ? "true" : "false";
    case boost::json::kind::string: {
      const std::string_view text(value.get_string().data(), value.get_string().size());
      return text.size() <= kShownMax ? "the string \"" + std::string(text) + "\"" : "a string of " + std::to_string(text.size()) + " bytes";
    }
    case boost::json::kind::array: return value.get_array().empty() ? "an empty array" : "an array";
    case boost::json::kind::object: return "an object";
    default: return "the number " + boost::json::serialize(value);
  }
}

Parsed<boost::json::value> parse_body(std::string_view body) {
  boost::json::parse_options options;
  options.max_depth = 64;
  boost::system::error_code failed;
  boost::json::value value = boost::json::parse(body, failed, {}, options);
  if (!failed) return value;
  const std::string found = body.empty() ? "an empty body" : failed.message();
  return ApiError{ErrorKind::kInvalidFormat, "expected a JSON object as the request body, found " + found, "", ""};
}

Parsed<boost::json::object> body_object(const boost::json::value& body) {
  if (const auto* object = body.if_object()) return *object;
  return ApiError{ErrorKind::kInvalidFormat, "expected a JSON object as the request body, found " + describe(body), "", ""};
}

void JsonFields::fail(ErrorKind kind, std::string_view name, const std::string& message) {
  if (error_) return;
  const std::string param = path(name);
  error_ = ApiError{kind, param + ": " + message, param, ""};
}

void JsonFields::expected(std::string_view name, const std::string& what, const boost::json::value* found) {
  fail(ErrorKind::kInvalidFormat, name, "expected " + what + ", found " + (found ? describe(*found) : "nothing"));
}

void JsonFields::out_of_range(std::string_view name, const std::string& what, const std::string& found) {
  fail(ErrorKind::kInvalidParameters, name, "expected " + what + ", found " + found);
}

const boost::json::value* JsonFields::find(std::string_view name) const {
  const auto* value = object_.if_contains(name);
  return value && !value->is_null() ? value : nullptr;
}

bool JsonFields::string(std::string_view name, std::string& out, bool required) {
  const auto* value = find(name);
  if (!value) {
    if (required) expected(name, "a string", object_.if_contains(name));
    return false;
  }
  if (!value->is_string()) {
    expected(name, "a string", value);
    return false;
  }
  out.assign(value->get_string().data(), value->get_string().size());
  return true;
}

bool JsonFields::boolean(std::string_view name, bool& out) {
  const auto* value = find(name);
  if (!value) return false;
  if (!value->is_bool()) {
    expected(name, "true or false", value);
    return false;
  }
  out = value->get_bool();
  return true;
}

bool JsonFields::boolean(std::string_view name, std::optional<bool>& out) {
  bool value = false;
  if (!boolean(name, value)) return false;
  out = value;
  return true;
}

std::optional<int64_t> JsonFields::integral(std::string_view name, const boost::json::value& value) {
  if (value.is_int64()) return value.get_int64();
  if (value.is_uint64()) return INT64_MAX;
  if (value.is_double() && value.get_double() == std::floor(value.get_double())) {
    const double number = value.get_double();
    if (number >= 9.2e18) return INT64_MAX;
    return number <= -9.2e18 ? INT64_MIN : int64_t(number);
  }
  expected(name, "an integer", &value);
  return std::nullopt;
}

bool JsonFields::integer(std::string_view name, int64_t low, int64_t high, int& out) {
  const auto* value = find(name);
  if (!value) return false;
  const auto number = integral(name, *value);
  if (!number) return false;
  if (*number < low || *number > high) {
    const std::string range = high == INT32_MAX ? "an integer of at least " + std::to_string(low)
                                                : "an integer from " + std::to_string(low) + " to " + std::to_string(high);
    out_of_range(name, range, boost::json::serialize(*value));
    return false;
  }
  out = int(*number);
  return true;
}

bool JsonFields::integer(std::string_view name, int64_t low, int64_t high, std::optional<int>& out) {
  int value = 0;
  if (!integer(name, low, high, value)) return false;
  out = value;
  return true;
}

bool JsonFields::number(std::string_view name, double low, double high, std::optional<float>& out, bool open_low) {
  const auto* value = find(name);
  if (!value) return false;
  if (!value->is_number()) {
    expected(name, "a number", value);
    return false;
  }
  const double number = value->to_number<double>();
  if (!(number >= low && number <= high) || (open_low && number == low)) {
    out_of_range(name, std::string("a number ") + (open_low ? "above " : "from ") + shown_number(low) + " to " + shown_number(high),
                 boost::json::serialize(*value));
    return false;
  }
  out = float(number);
  return true;
}

bool JsonFields::choice(std::string_view name, std::initializer_list<std::string_view> values, std::string& out) {
  std::string text;
  if (!string(name, text)) return false;
  std::string list;
  for (std::string_view value : values) {
    if (text == value) {
      out = text;
      return true;
    }
    list += (list.empty() ? "\"" : ", \"") + std::string(value) + "\"";
  }
  out_of_range(name, "one of " + list, describe(*find(name)));
  return false;
}

const boost::json::object* JsonFields::object(std::string_view name) {
  const auto* value = find(name);
  if (value && !value->is_object()) expected(name, "an object", value);
  return value ? value->if_object() : nullptr;
}

const boost::json::array* JsonFields::array(std::string_view name, bool required) {
  const auto* value = find(name);
  if (value ? !value->is_array() : required) expected(name, "an array", value ? value : object_.if_contains(name));
  return value ? value->if_array() : nullptr;
}

}  // namespace spillway::api
