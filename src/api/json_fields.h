// JsonFields: reads the fields of one JSON object of a request with checks; the first failure is kept and names the
// field, what was expected and what was found. null counts as absent. Lives on the stack of a parse.
#pragma once

#include <boost/json/array.hpp>
#include <boost/json/object.hpp>
#include <boost/json/value.hpp>
#include <cstdint>
#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "api/errors.h"

namespace spillway::api {

// What a JSON value is, for messages: "the number 3", "a string", ...
std::string describe(const boost::json::value& value);

// Parses a request body; errors are 400.
Parsed<boost::json::value> parse_body(std::string_view body);
Parsed<boost::json::object> body_object(const boost::json::value& body);

class JsonFields {
 public:
  // path: "" or "messages[2]". error collects the first failure of all readers that share it.
  JsonFields(const boost::json::object& object, std::string path, std::optional<ApiError>& error)
      : object_(object), path_(std::move(path)), error_(error) {}

  const boost::json::value* find(std::string_view name) const;  // null when absent or null
  std::string path(std::string_view name) const { return path_.empty() ? std::string(name) : path_ + "." + std::string(name); }

  bool string(std::string_view name, std::string& out, bool required = false);
  bool boolean(std::string_view name, bool& out);
  bool boolean(std::string_view name, std::optional<bool>& out);
  bool integer(std::string_view name, int64_t low, int64_t high, int& out);
  bool integer(std::string_view name, int64_t low, int64_t high, std::optional<int>& out);
  // low itself excluded when open_low.
  bool number(std::string_view name, double low, double high, std::optional<float>& out, bool open_low = false);
  bool choice(std::string_view name, std::initializer_list<std::string_view> values, std::string& out);
  const boost::json::object* object(std::string_view name);
  const boost::json::array* array(std::string_view name, bool required = false);

  // 400: the wrong type, a missing field, a broken contract. 422: a value out of range.
  void expected(std::string_view name, const std::string& what, const boost::json::value* found = nullptr);
  void out_of_range(std::string_view name, const std::string& what, const std::string& found);
  bool failed() const { return error_.has_value(); }

 private:
  void fail(ErrorKind kind, std::string_view name, const std::string& message);
  std::optional<int64_t> integral(std::string_view name, const boost::json::value& value);

  const boost::json::object& object_;
  std::string path_;
  std::optional<ApiError>& error_;
};

}  // namespace spillway::api
