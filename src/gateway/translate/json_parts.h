// Pieces that all translations use: reading members of untrusted JSON without exceptions. Pure; any thread.
#pragma once

#include <boost/json/array.hpp>
#include <boost/json/object.hpp>
#include <boost/json/parse.hpp>
#include <boost/json/serialize.hpp>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/result.h"

namespace spillway::gateway {

namespace json = boost::json;

inline Result<json::object> parse_json_object(std::string_view text) {
  boost::system::error_code failed;
  json::value value = json::parse({text.data(), text.size()}, failed);
  if (failed) return invalid("expected a JSON object, found " + failed.message());
  if (!value.is_object()) return invalid("expected a JSON object, found another value");
  return std::move(value.get_object());
}

// The member's value when it is of that kind, else null.
inline const json::value* member_of(const json::object& object, std::string_view name) {
  const json::value* found = object.if_contains({name.data(), name.size()});
  return found == nullptr || found->is_null() ? nullptr : found;
}
inline const json::object* object_of(const json::object& object, std::string_view name) {
  const json::value* found = member_of(object, name);
  return found == nullptr ? nullptr : found->if_object();
}
inline const json::array* array_of(const json::object& object, std::string_view name) {
  const json::value* found = member_of(object, name);
  return found == nullptr ? nullptr : found->if_array();
}
inline std::string_view text_of(const json::object& object, std::string_view name) {
  const json::value* found = member_of(object, name);
  if (found == nullptr || !found->is_string()) return {};
  return {found->get_string().data(), found->get_string().size()};
}
inline int64_t number_of(const json::object& object, std::string_view name) {
  const json::value* found = member_of(object, name);
  if (found == nullptr) return 0;
  if (const int64_t* value = found->if_int64()) return *value;
  return found->is_uint64() ? int64_t(found->get_uint64()) : 0;
}
inline bool truth_of(const json::object& object, std::string_view name) {
  const json::value* found = member_of(object, name);
  return found != nullptr && found->is_bool() && found->get_bool();
}
// The objects of a list; none where there is no list.
inline Result<std::vector<const json::object*>> objects_of(const json::object& object, std::string_view name) {
  std::vector<const json::object*> objects;
  const json::array* list = array_of(object, name);
  if (list == nullptr) return objects;
  for (const json::value& value : *list) {
    if (!value.is_object()) return invalid(std::string(name) + ": expected objects");
    objects.push_back(&value.get_object());
  }
  return objects;
}
// What a chat's tool call calls.
inline Result<const json::object*> function_of(const json::value& value) {
  const json::object* call = value.if_object();
  const json::object* function = call == nullptr ? nullptr : object_of(*call, "function");
  if (function == nullptr) return invalid("tool_calls: expected calls of functions");
  return function;
}
// The arguments of a call as an object. Models write broken ones, and answers end in the middle of them: those are
// wrapped as Anthropic tells its clients to do.
inline json::object input_of_call(std::string_view arguments) {
  if (arguments.empty()) return {};
  auto input = parse_json_object(arguments);
  if (input.ok()) return std::move(input).value();
  return {{"INVALID_JSON", json::string_view(arguments.data(), arguments.size())}};
}
// Copies a member that means the same on both sides.
inline void copy_member(const json::object& from, std::string_view name, json::object& to, std::string_view as = {}) {
  const std::string_view target = as.empty() ? name : as;
  if (const json::value* found = member_of(from, name)) to[{target.data(), target.size()}] = *found;
}

}  // namespace spillway::gateway
