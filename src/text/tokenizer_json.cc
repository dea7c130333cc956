#include "text/tokenizer_json.h"

#include <fmt/format.h>

namespace spillway::text {

namespace json = boost::json;

std::string_view json_kind(const json::value& value) {
  switch (value.kind()) {
    case json::kind::null:
      return "null";
    case json::kind::bool_:
      return "a boolean";
    case json::kind::int64:
    case json::kind::uint64:
    case json::kind::double_:
      return "a number";
    case json::kind::string:
      return "a string";
    case json::kind::array:
      return "an array";
    case json::kind::object:
      return "an object";
  }
  return "an unknown value";
}

Result<JsonAt> JsonAt::make(const json::value& value, std::string path) {
  if (!value.is_object()) return invalid(fmt::format("expected an object at {}, found {}", path, json_kind(value)));
  return JsonAt(value.get_object(), std::move(path));
}

std::string JsonAt::path_of(std::string_view key) const { return fmt::format("{}.{}", path_, key); }

const json::value* JsonAt::find(std::string_view key) const {
  const json::value* value = object_->if_contains(key);
  return value && !value->is_null() ? value : nullptr;
}

Error JsonAt::wrong(std::string_view key, std::string_view expected) const {
  const json::value* value = object_->if_contains(key);
  std::string found = "nothing";
  if (value)
    found = value->is_string() ? fmt::format("\"{:.60}\"", std::string_view(value->get_string())) : json_kind(*value);
  return invalid(fmt::format("expected {} at {}, found {}", expected, path_of(key), found));
}

Result<std::string> JsonAt::string(std::string_view key) const {
  const json::value* value = find(key);
  if (!value || !value->is_string()) return wrong(key, "a string");
  return std::string(value->get_string());
}

Result<std::optional<std::string>> JsonAt::optional_string(std::string_view key) const {
  if (!find(key)) return std::optional<std::string>();
  SW_ASSIGN(std::string value, string(key));
  return std::optional<std::string>(std::move(value));
}

Result<bool> JsonAt::boolean(std::string_view key, bool fallback) const {
  const json::value* value = find(key);
  if (!value) return fallback;
  if (!value->is_bool()) return wrong(key, "a boolean");
  return value->get_bool();
}

Result<int64_t> JsonAt::integer(std::string_view key, int64_t least, int64_t most) const {
  const json::value* value = find(key);
  if (!value || !value->is_int64() || value->get_int64() < least || value->get_int64() > most) {
    return wrong(key, fmt::format("an integer of {} to {}", least, most));
  }
  return value->get_int64();
}

Result<JsonAt> JsonAt::child(std::string_view key) const {
  const json::value* value = find(key);
  if (!value || !value->is_object()) return wrong(key, "an object");
  return make(*value, path_of(key));
}

Result<std::vector<JsonAt>> JsonAt::children(std::string_view key) const {
  const json::value* value = find(key);
  if (!value || !value->is_array()) return wrong(key, "an array");
  std::vector<JsonAt> items;
  for (const json::value& item : value->get_array()) {
    SW_ASSIGN(JsonAt at, make(item, fmt::format("{}[{}]", path_of(key), items.size())));
    items.push_back(std::move(at));
  }
  return items;
}

}  // namespace spillway::text
