// JsonAt: an object of tokenizer.json together with its path, so that every error says where it is: "expected ... at
// $.normalizer.type, found ...". A view; the document outlives it.
#pragma once

#include <boost/json/value.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace spillway::text {

// What a value is, for messages: "a string", "null", "an array".
std::string_view json_kind(const boost::json::value& value);

class JsonAt {
 public:
  static Result<JsonAt> make(const boost::json::value& value, std::string path);

  const std::string& path() const { return path_; }
  const boost::json::object& object() const { return *object_; }
  std::string path_of(std::string_view key) const;
  const boost::json::value* find(std::string_view key) const;  // null when absent or JSON null

  Result<std::string> string(std::string_view key) const;
  Result<std::optional<std::string>> optional_string(std::string_view key) const;
  Result<bool> boolean(std::string_view key, bool fallback) const;
  Result<int64_t> integer(std::string_view key, int64_t least, int64_t most) const;
  Result<JsonAt> child(std::string_view key) const;
  Result<std::vector<JsonAt>> children(std::string_view key) const;  // an array of objects

  // "expected WHAT at PATH.key, found ..."
  Error wrong(std::string_view key, std::string_view expected) const;

 private:
  JsonAt(const boost::json::object& object, std::string path) : object_(&object), path_(std::move(path)) {}

  const boost::json::object* object_;
  std::string path_;
};

}  // namespace spillway::text
