#include <fmt/format.h>

#include <algorithm>
#include <boost/json/array.hpp>
#include <boost/json/object.hpp>

#include "text/json_schema.h"

namespace spillway::text {

namespace json = boost::json;

namespace {

json::array as_array(const json::value& value) { return value.is_array() ? value.get_array() : json::array{value}; }

json::array intersection(const json::array& one, const json::array& other) {
  json::array out;
  for (const json::value& item : one) {
    if (std::find(other.begin(), other.end(), item) != other.end()) out.push_back(item);
  }
  return out;
}

double as_number(const json::value& value) { return value.is_number() ? value.to_number<double>() : 0; }

bool is_annotation(std::string_view key) {
  return key == "title" || key == "description" || key == "default" || key == "examples" || key == "$comment" ||
         key == "deprecated" || key == "$schema" || key == "$id" || key == "$defs" || key == "definitions";
}

Status merge_properties(json::object& into, const json::object& from, const std::string& path) {
  for (const auto& item : from) {
    json::value* mine = into.if_contains(item.key());
    if (!mine) {
      into[item.key()] = item.value();
    } else if (*mine != item.value()) {
      if (!mine->is_object() || !item.value().is_object())
        return unsupported(fmt::format("two schemas of one property at {}", path));
      SW_ASSIGN(*mine, merge_schemas(mine->get_object(), item.value().get_object(), path));
    }
  }
  return {};
}

// A schema that closes its properties refuses those that only the other one lists.
Status check_closed(const json::object& closed, const json::object& other, const std::string& path) {
  const json::value* more = closed.if_contains("additionalProperties");
  const json::value* theirs = other.if_contains("properties");
  if (!more || *more == true || !theirs || !theirs->is_object()) return {};
  const json::value* mine = closed.if_contains("properties");
  for (const auto& item : theirs->get_object()) {
    if (mine && mine->is_object() && mine->get_object().contains(item.key())) continue;
    return unsupported(fmt::format("additionalProperties cannot be joined with other properties at {}", path));
  }
  return {};
}

}  // namespace

Result<json::object> merge_schemas(const json::object& one, const json::object& other, const std::string& path) {
  SW_TRY(check_closed(one, other, path));
  SW_TRY(check_closed(other, one, path));
  json::object out = one;
  for (const auto& item : other) {
    const std::string_view key = item.key();
    json::value* mine = out.if_contains(key);
    const json::value& theirs = item.value();
    if (!mine) {
      out[key] = theirs;
    } else if (*mine == theirs || is_annotation(key)) {
      continue;
    } else if (key == "properties" && mine->is_object() && theirs.is_object()) {
      SW_TRY(merge_properties(mine->get_object(), theirs.get_object(), path));
    } else if (key == "required" && mine->is_array() && theirs.is_array()) {
      for (const json::value& name : theirs.get_array()) mine->get_array().push_back(name);
    } else if (key == "type" || key == "enum") {
      *mine = intersection(as_array(*mine), as_array(theirs));
      if (mine->get_array().empty()) return invalid(fmt::format("expected schemas that agree at {}.{}", path, key));
    } else if (key == "minimum" || key == "exclusiveMinimum" || key == "minLength" || key == "minItems") {
      if (as_number(theirs) > as_number(*mine)) *mine = theirs;
    } else if (key == "maximum" || key == "exclusiveMaximum" || key == "maxLength" || key == "maxItems") {
      if (as_number(theirs) < as_number(*mine)) *mine = theirs;
    } else {
      return unsupported(fmt::format("two different values of {} cannot be joined at {}", key, path));
    }
  }
  return out;
}

}  // namespace spillway::text
