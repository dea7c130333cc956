// ConfigReader: typed, bounded access to one JSON object of a checkpoint. The first problem is kept and the rest are
// ignored, so that a family reads all its keys in a row and checks once. One thread.
#pragma once

#include <boost/json/object.hpp>
#include <cstdint>
#include <string>
#include <string_view>

#include "base/result.h"

namespace spillway::models {

class ConfigReader {
 public:
  ConfigReader(const boost::json::object& object, std::string where) : object_(object), where_(std::move(where)) {}

  // A key that is absent or null counts as not given.
  bool has(std::string_view key) const;
  int64_t integer(std::string_view key, int64_t low, int64_t high);
  int64_t integer_or(std::string_view key, int64_t fallback, int64_t low, int64_t high);
  double number(std::string_view key);
  double number_or(std::string_view key, double fallback);
  bool boolean_or(std::string_view key, bool fallback);
  std::string string_or(std::string_view key, std::string fallback);
  const boost::json::object* object_or_null(std::string_view key);

  void fail(std::string problem);
  Status status() const { return problem_.empty() ? Status() : Status(invalid(problem_)); }

 private:
  const boost::json::value* find(std::string_view key) const;

  const boost::json::object& object_;
  std::string where_;
  std::string problem_;
};

}  // namespace spillway::models
