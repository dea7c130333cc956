// FieldReader: reads the fields of one JSON object of a request with their checks. The first failure is kept and all
// later reads do nothing, so that a parser is a plain list of fields. A field that is absent or null leaves its output
// as it was. Wrong types are kInvalidFormat (400), values out of range kInvalidParameters (422).
#pragma once

#include <boost/json/array.hpp>
#include <boost/json/object.hpp>
#include <boost/json/value.hpp>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "api/errors.h"

namespace spillway::api {

// The body as a JSON object; bounded in depth, with the position of a syntax error.
Parsed<boost::json::object> parse_body(std::string_view body);

// What a value is, as messages say it: "a string", "an array", "the number 3".
std::string describe(const boost::json::value& value);

class FieldReader {
 public:
  // path: the object's own name ("messages[2]"), empty at the top. failure is shared by nested readers.
  FieldReader(const boost::json::object& object, std::string path, std::optional<ApiError>& failure)
      : object_(object), path_(std::move(path)), failure_(failure) {}

  bool failed() const { return failure_.has_value(); }
  void fail(ErrorKind kind, std::string_view key, std::string message);
  std::string path_of(std::string_view key) const;

  // Null when absent, null, or after a failure.
  const boost::json::value* find(std::string_view key) const;
  const boost::json::object* object(std::string_view key);
  const boost::json::array* array(std::string_view key);

  void string(std::string_view key, std::string& out);
  void string(std::string_view key, std::optional<std::string>& out);
  void boolean(std::string_view key, bool& out);
  void number(std::string_view key, double min, double max, std::optional<float>& out);
  // min itself is out of range.
  void number_above(std::string_view key, double min, double max, std::optional<float>& out);
  void integer(std::string_view key, int64_t min, int64_t max, int64_t& out);
  template <class T>
  void integer(std::string_view key, int64_t min, int64_t max, std::optional<T>& out) {
    if (!find(key)) return;
    int64_t value = 0;
    integer(key, min, max, value);
    if (!failed()) out = static_cast<T>(value);
  }
  void integer(std::string_view key, int64_t min, int64_t max, int& out) {
    int64_t value = out;
    integer(key, min, max, value);
    out = static_cast<int>(value);
  }
  // One of the names; out is its index.
  void choice(std::string_view key, const std::vector<std::string_view>& names, size_t& out);

 private:
  void wrong_type(std::string_view key, std::string_view expected, const boost::json::value& found);
  std::optional<double> ranged(std::string_view key, double min, double max, bool open);

  const boost::json::object& object_;
  std::string path_;
  std::optional<ApiError>& failure_;
};

}  // namespace spillway::api
