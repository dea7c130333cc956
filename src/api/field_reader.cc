#include "api/field_reader.h"

#include <fmt/format.h>

#include <boost/json/parse.hpp>
#include <boost/json/serialize.hpp>
#include <boost/json/stream_parser.hpp>
#include <cmath>

namespace spillway::api {
namespace json = boost::json;
namespace {

constexpr size_t kDepthMax = 64;

}  // namespace

Parsed<json::object> parse_body(std::string_view body) {
  json::parse_options options;
  options.max_depth = kDepthMax;
  json::stream_parser parser({}, options);
  boost::system::error_code failure;
  const size_t read = parser.write_some(body.data(), body.size(), failure);
  if (!failure) parser.finish(failure);
  if (!failure && body.find_first_not_of(" \t\r\n", read) != std::string_view::npos) failure = json::error::extra_data;
  if (failure) {
    return ApiError{ErrorKind::kInvalidFormat,
                    fmt::format("The request body is not valid JSON: {} at byte {}", failure.message(), read),
                    {},
                    {}};
  }
  json::value value = parser.release();
  if (!value.is_object()) {
    return ApiError{
        ErrorKind::kInvalidFormat, "The request body: expected a JSON object, found " + describe(value), {}, {}};
  }
  return std::move(value.as_object());
}

std::string describe(const json::value& value) {
  switch (value.kind()) {
    case json::kind::null:
      return "null";
    case json::kind::bool_:
      return value.get_bool() ? "true" : "false";
    case json::kind::string:
      return value.get_string().size() <= 40 ? json::serialize(value) : "a string";
    case json::kind::array:
      return "an array";
    case json::kind::object:
      return "an object";
    case json::kind::double_:
      return fmt::format("{}", value.get_double());
    default:
      return json::serialize(value);
  }
}

void FieldReader::fail(ErrorKind kind, std::string_view key, std::string message) {
  if (failed()) return;
  const std::string path = path_of(key);
  failure_ = ApiError{kind, path + ": " + std::move(message), path, {}};
}

std::string FieldReader::path_of(std::string_view key) const {
  if (path_.empty()) return std::string(key);
  return key.empty() ? path_ : path_ + "." + std::string(key);
}

const json::value* FieldReader::find(std::string_view key) const {
  if (failed()) return nullptr;
  const json::value* value = object_.if_contains(key);
  return value && !value->is_null() ? value : nullptr;
}

void FieldReader::wrong_type(std::string_view key, std::string_view expected, const json::value& found) {
  fail(ErrorKind::kInvalidFormat, key, fmt::format("expected {}, found {}", expected, describe(found)));
}

const json::object* FieldReader::object(std::string_view key) {
  const json::value* value = find(key);
  if (value && !value->is_object()) wrong_type(key, "an object", *value);
  return value ? value->if_object() : nullptr;
}

const json::array* FieldReader::array(std::string_view key) {
  const json::value* value = find(key);
  if (value && !value->is_array()) wrong_type(key, "an array", *value);
  return value ? value->if_array() : nullptr;
}

void FieldReader::string(std::string_view key, std::string& out) {
  const json::value* value = find(key);
  if (!value) return;
  if (!value->is_string()) return wrong_type(key, "a string", *value);
  out = std::string_view(value->get_string());
}

void FieldReader::string(std::string_view key, std::optional<std::string>& out) {
  if (!find(key)) return;
  std::string text;
  string(key, text);
  if (!failed()) out = std::move(text);
}

void FieldReader::boolean(std::string_view key, bool& out) {
  const json::value* value = find(key);
  if (!value) return;
  if (!value->is_bool()) return wrong_type(key, "true or false", *value);
  out = value->get_bool();
}

std::optional<double> FieldReader::ranged(std::string_view key, double min, double max, bool open) {
  const json::value* value = find(key);
  if (!value) return std::nullopt;
  if (!value->is_number()) {
    wrong_type(key, "a number", *value);
    return std::nullopt;
  }
  const double found = value->to_number<double>();
  if (!std::isfinite(found) || found < min || found > max || (open && found == min)) {
    fail(ErrorKind::kInvalidParameters, key,
         fmt::format("expected a number {} {} and at most {}, found {}", open ? "above" : "of at least", min, max,
                     describe(*value)));
    return std::nullopt;
  }
  return found;
}

void FieldReader::number(std::string_view key, double min, double max, std::optional<float>& out) {
  if (const auto value = ranged(key, min, max, false)) out = static_cast<float>(*value);
}

void FieldReader::number_above(std::string_view key, double min, double max, std::optional<float>& out) {
  if (const auto value = ranged(key, min, max, true)) out = static_cast<float>(*value);
}

void FieldReader::integer(std::string_view key, int64_t min, int64_t max, int64_t& out) {
  const json::value* value = find(key);
  if (!value) return;
  boost::system::error_code inexact;
  const int64_t found = value->is_number() ? value->to_number<int64_t>(inexact) : 0;
  if (!value->is_number() || (inexact && value->is_double())) return wrong_type(key, "an integer", *value);
  if (inexact || found < min || found > max) {
    return fail(ErrorKind::kInvalidParameters, key,
                fmt::format("expected an integer from {} to {}, found {}", min, max, describe(*value)));
  }
  out = found;
}

void FieldReader::choice(std::string_view key, const std::vector<std::string_view>& names, size_t& out) {
  std::string name;
  string(key, name);
  if (failed() || !find(key)) return;
  for (size_t i = 0; i < names.size(); ++i) {
    if (names[i] == name) {
      out = i;
      return;
    }
  }
  fail(ErrorKind::kInvalidParameters, key, fmt::format("expected one of {}, found '{}'", fmt::join(names, ", "), name));
}

}  // namespace spillway::api
