#include "text/json_schema.h"

#include <fmt/format.h>

#include <algorithm>
#include <boost/json/array.hpp>
#include <boost/json/serialize.hpp>

#include "text/json_schema_compiler.h"
#include "text/tokenizer_json.h"

namespace spillway::text {

namespace json = boost::json;

namespace {

// Keywords that constrain and that no grammar here can keep.
constexpr std::string_view kRefused[] = {
    "propertyNames", "dependentRequired", "dependentSchemas",      "dependencies",     "contains",
    "minContains",   "maxContains",       "unevaluatedProperties", "unevaluatedItems", "minProperties",
    "maxProperties", "additionalItems",   "$dynamicRef",           "$recursiveRef"};

Status check_keywords(const json::object& schema, const std::string& path) {
  for (const std::string_view key : kRefused) {
    const json::value* value = schema.if_contains(key);
    if (!value || *value == false) continue;
    return unsupported(fmt::format("the keyword {} at {} is not supported in constrained output", key, path));
  }
  return {};
}

constexpr size_t kTextMax = 2000;  // of one value of enum or const

json::object without(const json::object& schema, std::string_view key) {
  json::object out = schema;
  out.erase(key);
  return out;
}

bool has_type(const json::value& value, const std::vector<std::string>& types) {
  return std::any_of(types.begin(), types.end(), [&](const std::string& type) { return text::has_type(value, type); });
}

}  // namespace

Result<Element> compile_json_schema(const json::value& schema, const std::string& path, JsonRules& json) {
  return SchemaCompiler(schema, json).compile(schema, path);
}

Result<Element> SchemaCompiler::compile(const json::value& schema, const std::string& path) {
  if (schema == true) return json_.value();
  if (schema == false)
    return invalid(fmt::format("expected a schema that some value satisfies at {}, found false", path));
  if (!schema.is_object()) return invalid(fmt::format("expected a schema at {}, found {}", path, json_kind(schema)));
  if (++depth_ > kDepthMax)
    return unsupported(fmt::format("schemas nested deeper than {} at {:.100}", kDepthMax, path));
  if (rules_.too_large()) return unsupported(fmt::format("the schema is too large at {}", path));
  auto out = compile_object_schema(schema.get_object(), path);
  --depth_;
  return out;
}

Result<Element> SchemaCompiler::compile_object_schema(const json::object& schema, const std::string& path) {
  SW_TRY(check_keywords(schema, path));
  if (schema.contains("$ref")) return compile_reference(schema, path);
  if (schema.contains("allOf")) return compile_all_of(schema, path);
  if (schema.contains("if")) return compile_conditional(schema, path);
  if (schema.contains("anyOf")) return compile_choices(schema, "anyOf", path);
  if (schema.contains("oneOf")) return compile_choices(schema, "oneOf", path);
  if (schema.contains("not")) return compile_not(schema, path);
  if (schema.contains("enum") || schema.contains("const")) return compile_values(schema, path);
  SW_ASSIGN(const std::vector<std::string> types, types_of(schema, path));
  if (types.empty()) return json_.value();
  std::vector<Sequence> out;
  for (const std::string& type : types) {
    SW_ASSIGN(const Element one, compile_type(type, schema, path));
    out.push_back({one});
  }
  return rules_.one_of(std::move(out));
}

Result<const json::value*> SchemaCompiler::resolve(const std::string& pointer, const std::string& path) const {
  if (pointer == "#") return &document_;
  boost::system::error_code error;
  const json::value* found = pointer.starts_with("#/") ? document_.find_pointer(pointer.substr(1), error) : nullptr;
  if (!found || error)
    return invalid(fmt::format("expected a reference into the schema at {}.$ref, found \"{:.80}\"", path, pointer));
  return found;
}

Result<Element> SchemaCompiler::compile_reference(const json::object& schema, const std::string& path) {
  const json::value& reference = schema.at("$ref");
  if (!reference.is_string()) return invalid(fmt::format("expected a string at {}.$ref", path));
  const std::string pointer(reference.get_string());
  SW_ASSIGN(const json::value* target, resolve(pointer, path));
  json::object rest = without(schema, "$ref");
  for (const std::string_view key :
       {"title", "description", "default", "$defs", "definitions", "$schema", "$id", "examples"}) {
    rest.erase(key);
  }
  if (!rest.empty() && target->is_object()) {  // $ref beside other keywords: both hold
    SW_ASSIGN(const json::object merged, merge_schemas(rest, target->get_object(), path));
    return compile(merged, path);
  }
  if (const auto found = references_.find(pointer); found != references_.end()) return found->second;
  const Element rule = rules_.declare();  // known before its body, for schemas that contain themselves
  references_.emplace(pointer, rule);
  SW_ASSIGN(const Element body, compile(*target, pointer));
  rules_.add(rule, {body});
  return rule;
}

Result<Element> SchemaCompiler::compile_choices(const json::object& schema, const std::string& key,
                                                const std::string& path) {
  const json::value& list = schema.at(key);
  if (!list.is_array() || list.get_array().empty()) return invalid(fmt::format("expected schemas at {}.{}", path, key));
  const json::object rest = without(schema, key);
  std::vector<Sequence> out;
  json::array branches;
  for (size_t i = 0; i < list.get_array().size(); ++i) {
    const std::string at = fmt::format("{}.{}[{}]", path, key, i);
    json::value branch = list.get_array()[i];
    if (branch == false) continue;
    if (branch == true) branch = json::object();
    if (branch.is_object()) {
      SW_ASSIGN(branch, merge_schemas(rest, branch.get_object(), at));
    }
    SW_ASSIGN(const Element one, compile(branch, at));
    out.push_back({one});
    branches.push_back(std::move(branch));
  }
  if (key == "oneOf") SW_TRY(check_exclusive(branches, path));
  return rules_.one_of(std::move(out));
}

// A value that one branch writes must not conform to another one as well.
Status SchemaCompiler::check_exclusive(const json::array& branches, const std::string& path) {
  for (size_t i = 0; i < branches.size(); ++i) {
    for (size_t j = 0; j < branches.size(); ++j) {
      if (i == j || excludes(branches[i], branches[j], 0)) continue;
      return unsupported(fmt::format(
          "oneOf is supported for schemas that exclude each other (by type, const, required properties or "
          "bounds) in constrained output, found {} and {} at {}.oneOf that one value may satisfy; say anyOf",
          std::min(i, j), std::max(i, j), path));
    }
  }
  return {};
}

Result<Element> SchemaCompiler::compile_all_of(const json::object& schema, const std::string& path) {
  const json::value& list = schema.at("allOf");
  if (!list.is_array()) return invalid(fmt::format("expected schemas at {}.allOf", path));
  json::object merged = without(schema, "allOf");
  for (const json::value& item : list.get_array()) {
    const json::value* part = &item;
    for (int hops = 0; part->is_object() && part->get_object().size() == 1 && part->get_object().contains("$ref");
         ++hops) {
      const json::value& reference = part->get_object().at("$ref");
      if (!reference.is_string() || hops > kDepthMax)
        return invalid(fmt::format("expected a schema at {}.allOf", path));
      SW_ASSIGN(part, resolve(std::string(reference.get_string()), path));
    }
    if (*part == true) continue;
    if (!part->is_object())
      return invalid(fmt::format("expected a schema at {}.allOf, found {}", path, json_kind(*part)));
    SW_ASSIGN(merged, merge_schemas(merged, part->get_object(), path));
  }
  return compile(merged, path);
}

Result<std::vector<std::string>> SchemaCompiler::types_of(const json::object& schema, const std::string& path) const {
  std::vector<std::string> types;
  if (const json::value* type = schema.if_contains("type")) {
    const json::array list = type->is_array() ? type->get_array() : json::array{*type};
    for (const json::value& item : list) {
      if (!item.is_string())
        return invalid(fmt::format("expected type names at {}.type, found {}", path, json_kind(item)));
      types.emplace_back(item.get_string());
    }
    if (types.empty()) return invalid(fmt::format("expected type names at {}.type, found none", path));
  } else if (schema.contains("properties") || schema.contains("required") || schema.contains("additionalProperties") ||
             schema.contains("patternProperties")) {
    types.emplace_back("object");  // narrower than the schema, and what is meant
  } else if (schema.contains("items") || schema.contains("prefixItems") || schema.contains("minItems") ||
             schema.contains("maxItems") || schema.contains("uniqueItems")) {
    types.emplace_back("array");
  } else if (schema.contains("pattern") || schema.contains("minLength") || schema.contains("maxLength") ||
             schema.contains("format")) {
    types.emplace_back("string");
  } else if (schema.contains("minimum") || schema.contains("maximum") || schema.contains("exclusiveMinimum") ||
             schema.contains("exclusiveMaximum") || schema.contains("multipleOf")) {
    types.emplace_back("number");
  }
  const json::value* nullable = schema.if_contains("nullable");
  if (nullable && *nullable == true && !types.empty()) types.emplace_back("null");
  return types;
}

Result<Element> SchemaCompiler::compile_values(const json::object& schema, const std::string& path) {
  for (const std::string_view key :
       {"pattern", "minLength", "maxLength", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "required",
        "minItems", "maxItems", "properties", "items", "multipleOf", "uniqueItems", "patternProperties"}) {
    if (schema.contains(key))
      return unsupported(fmt::format("{} beside enum or const is not supported at {}", key, path));
  }
  SW_ASSIGN(const std::vector<std::string> types, types_of(schema, path));
  json::array values;
  if (const json::value* list = schema.if_contains("enum")) {
    if (!list->is_array()) return invalid(fmt::format("expected values at {}.enum, found {}", path, json_kind(*list)));
    values = list->get_array();
  } else {
    values.push_back(schema.at("const"));
  }
  const json::value* constant = schema.if_contains("const");
  std::vector<std::string> out;
  for (const json::value& value : values) {
    if ((constant && *constant != value) || (!types.empty() && !has_type(value, types))) continue;
    out.push_back(json::serialize(value));
    if (out.back().size() > kTextMax) return unsupported(fmt::format("a value above {} bytes at {}", kTextMax, path));
  }
  if (out.empty()) return invalid(fmt::format("expected a value that the schema allows at {}, found none", path));
  return rules_.any_of_texts(std::move(out));
}

Result<Element> SchemaCompiler::compile_type(const std::string& type, const json::object& schema,
                                             const std::string& path) {
  if (type == "object") return compile_object(schema, path);
  if (type == "array") return compile_array(schema, path);
  if (type == "string") return compile_string(schema, path);
  if (type == "boolean") return rules_.one_of({{rules_.literal("true")}, {rules_.literal("false")}});
  if (type == "null") return rules_.literal("null");
  if (type == "integer" || type == "number") {
    const bool bounded = schema.contains("minimum") || schema.contains("maximum") ||
                         schema.contains("exclusiveMinimum") || schema.contains("exclusiveMaximum");
    if (schema.contains("multipleOf")) {
      SW_ASSIGN(const NumberBounds within, parse_number_bounds(schema, path));
      return compile_multiples(schema, within, path);
    }
    if (!bounded) return type == "integer" ? json_.integer() : json_.number();
    SW_ASSIGN(const NumberBounds bounds, parse_number_bounds(schema, path));
    return numbers_between(bounds, type == "integer", path, json_);
  }
  return invalid(fmt::format(
      "expected object, array, string, number, integer, boolean or null at {}.type, found \"{:.40}\"", path, type));
}

}  // namespace spillway::text
