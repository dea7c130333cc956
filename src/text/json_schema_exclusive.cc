// oneOf: whether what the grammar of one branch writes can never conform to another branch. Sound, not complete: where
// it cannot be shown, the schema is refused.
#include <boost/json/array.hpp>
#include <cmath>
#include <optional>

#include "text/json_schema_compiler.h"

namespace spillway::text {

namespace json = boost::json;

namespace {

enum Types : unsigned {
  kNull = 1,
  kBoolean = 2,
  kString = 4,
  kArray = 8,
  kObject = 16,
  kWhole = 32,  // a number without a fraction, 1.0 included
  kFraction = 64,
  kAny = 127,
};

constexpr double kExact = 9007199254740992.0;  // integers below it are doubles

unsigned types_named(std::string_view name) {
  if (name == "null") return kNull;
  if (name == "boolean") return kBoolean;
  if (name == "string") return kString;
  if (name == "array") return kArray;
  if (name == "object") return kObject;
  if (name == "integer") return kWhole;
  if (name == "number") return kWhole | kFraction;
  return kAny;
}

unsigned type_of_value(const json::value& value) {
  if (value.is_null()) return kNull;
  if (value.is_bool()) return kBoolean;
  if (value.is_string()) return kString;
  if (value.is_array()) return kArray;
  if (value.is_object()) return kObject;
  const double number = value.to_number<double>();
  return number == std::floor(number) ? kWhole : kFraction;
}

bool may_be_equal(const json::value& one, const json::value& other) {
  if (type_of_value(one) != type_of_value(other)) return false;
  if (one.is_number()) return one.to_number<double>() == other.to_number<double>();
  return one.is_structured() || one == other;
}

std::optional<json::array> values_of(const json::object& schema) {
  if (const json::value* value = schema.if_contains("const")) return json::array{*value};
  const json::value* list = schema.if_contains("enum");
  return list && list->is_array() ? std::optional(list->get_array()) : std::nullopt;
}

unsigned types_of_values(const json::array& values) {
  unsigned types = 0;
  for (const json::value& value : values) types |= type_of_value(value);
  return types;
}

unsigned types_accepted(const json::object& schema) {
  unsigned types = kAny;
  if (const json::value* type = schema.if_contains("type")) {
    const json::array list = type->is_array() ? type->get_array() : json::array{*type};
    types = 0;
    for (const json::value& item : list) types |= item.is_string() ? types_named(item.get_string()) : kAny;
  }
  if (const auto values = values_of(schema)) types &= types_of_values(*values);
  const json::value* nullable = schema.if_contains("nullable");
  return nullable && *nullable == true ? types | kNull : types;
}

double number_at(const json::object& schema, std::string_view key, double fallback) {
  const json::value* value = schema.if_contains(key);
  return value && value->is_number() ? value->to_number<double>() : fallback;
}

// Whether all that `low` lets through is below all that `high` does.
bool ends_before(const json::object& low, const json::object& high) {
  const double most = number_at(low, "maximum", INFINITY), below = number_at(low, "exclusiveMaximum", INFINITY);
  const double least = number_at(high, "minimum", -INFINITY), above = number_at(high, "exclusiveMinimum", -INFINITY);
  const double end = std::min(most, below), begin = std::max(least, above);
  if (std::abs(end) >= kExact || std::abs(begin) >= kExact) return false;
  return end < begin || (end == begin && (below <= most || above >= least));
}

bool counts_apart(const json::object& one, const json::object& other, std::string_view least, std::string_view most) {
  return number_at(one, most, INFINITY) < number_at(other, least, 0) ||
         number_at(other, most, INFINITY) < number_at(one, least, 0);
}

const json::object* member(const json::object& schema, std::string_view key) {
  const json::value* value = schema.if_contains(key);
  return value ? value->if_object() : nullptr;
}

std::vector<std::string_view> names_required(const json::object& schema) {
  std::vector<std::string_view> out;
  const json::value* list = schema.if_contains("required");
  if (!list || !list->is_array()) return out;
  for (const json::value& name : list->get_array()) {
    if (name.is_string()) out.emplace_back(name.get_string());
  }
  return out;
}

bool lists(const json::object& schema, std::string_view name) {
  const json::object* properties = member(schema, "properties");
  return properties && properties->contains(name);
}

// The grammar of an object writes the properties listed and no others, unless the schema opens it in so many words.
bool never_writes(const json::object& schema, std::string_view name) {
  const json::value* more = schema.if_contains("additionalProperties");
  return !lists(schema, name) && (!more || *more == false) && !schema.contains("patternProperties") &&
         !schema.contains("if");
}

bool never_accepts(const json::object& schema, std::string_view name) {
  const json::value* more = schema.if_contains("additionalProperties");
  return !lists(schema, name) && more && *more == false && !schema.contains("patternProperties");
}

}  // namespace

// References followed and allOf joined, so that what is written stands in one place.
std::optional<json::object> SchemaCompiler::flattened(const json::value& schema) const {
  if (schema == true) return json::object();
  if (!schema.is_object()) return std::nullopt;
  json::object out = schema.get_object();
  for (int hops = 0; out.contains("$ref") || out.contains("allOf"); ++hops) {
    if (hops > kDepthMax) return std::nullopt;
    json::array parts;
    if (const json::value* reference = out.if_contains("$ref")) {
      if (!reference->is_string()) return std::nullopt;
      const auto target = resolve(std::string(reference->get_string()), "schema");
      if (!target.ok()) return std::nullopt;
      parts.push_back(**target);
      out.erase("$ref");
    } else {
      if (!out.at("allOf").is_array()) return std::nullopt;
      parts = out.at("allOf").get_array();
      out.erase("allOf");
    }
    for (const json::value& part : parts) {
      if (part == true) continue;
      if (!part.is_object() || (part.get_object().contains("allOf") && out.contains("allOf"))) return std::nullopt;
      auto merged = merge_schemas(out, part.get_object(), "schema");
      if (!merged.ok()) return std::nullopt;
      out = *std::move(merged);
    }
  }
  return out;
}

bool SchemaCompiler::excludes(const json::value& written, const json::value& accepted, int depth) {
  if (written == false || accepted == false) return true;
  if (depth > 8 || ++exclusion_steps_ > 20'000) return false;
  const std::optional<json::object> from = flattened(written), to = flattened(accepted);
  if (!from || !to) return false;
  for (const char* const key : {"anyOf", "oneOf"}) {
    if (from->contains(key))
      return every_branch(*from, key, [&](const json::value& branch) { return excludes(branch, *to, depth + 1); });
    if (to->contains(key) &&
        every_branch(*to, key, [&](const json::value& branch) { return excludes(*from, branch, depth + 1); }))
      return true;
  }
  const auto mine = values_of(*from), theirs = values_of(*to);
  if (mine && theirs) {
    return std::ranges::none_of(*mine, [&](const json::value& value) {
      return std::ranges::any_of(*theirs, [&](const json::value& other) { return may_be_equal(value, other); });
    });
  }
  unsigned writes = 0;
  if (mine) {
    writes = types_of_values(*mine);
  } else {
    const auto names = types_of(*from, "schema");
    if (!names.ok()) return false;
    for (const std::string& name : *names) writes |= types_named(name);
    if (names->empty()) writes = kAny;
  }
  const unsigned shared = writes & types_accepted(*to);
  if (shared & (kNull | kBoolean)) return false;
  if (shared != 0 && (mine || theirs)) return false;
  if ((shared & kString) && !counts_apart(*from, *to, "minLength", "maxLength")) return false;
  if ((shared & (kWhole | kFraction)) && !ends_before(*from, *to) && !ends_before(*to, *from)) return false;
  if ((shared & kArray) && !arrays_exclude(*from, *to, depth)) return false;
  return !(shared & kObject) || objects_exclude(*from, *to, depth);
}

bool SchemaCompiler::every_branch(const json::object& schema, const char* key,
                                  const std::function<bool(const json::value&)>& holds) const {
  if (!schema.at(key).is_array()) return false;
  json::object rest = schema;
  rest.erase(key);
  return std::ranges::all_of(schema.at(key).get_array(), [&](const json::value& branch) {
    if (branch == false) return true;
    if (branch == true) return holds(rest);
    const std::optional<json::object> flat = flattened(branch);
    if (!flat) return false;
    const auto merged = merge_schemas(rest, *flat, "schema");
    return merged.ok() && holds(*merged);
  });
}

bool SchemaCompiler::arrays_exclude(const json::object& written, const json::object& accepted, int depth) {
  if (counts_apart(written, accepted, "minItems", "maxItems")) return true;
  if (number_at(written, "minItems", 0) < 1 || written.contains("prefixItems") || accepted.contains("prefixItems"))
    return false;
  const json::value *mine = written.if_contains("items"), *theirs = accepted.if_contains("items");
  return mine && theirs && excludes(*mine, *theirs, depth + 1);
}

bool SchemaCompiler::objects_exclude(const json::object& written, const json::object& accepted, int depth) {
  for (const std::string_view name : names_required(accepted)) {
    if (never_writes(written, name)) return true;
  }
  const json::object *mine = member(written, "properties"), *theirs = member(accepted, "properties");
  for (const std::string_view name : names_required(written)) {
    if (never_accepts(accepted, name)) return true;
    if (!mine || !theirs) continue;
    const json::value *one = mine->if_contains(name), *other = theirs->if_contains(name);
    if (one && other && excludes(*one, *other, depth + 1)) return true;
  }
  return false;
}

}  // namespace spillway::text
