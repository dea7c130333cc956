// Keywords that say what a value must not be, or depend on it, brought down to those that a grammar has: not,
// if/then/else, multipleOf, uniqueItems, patternProperties. Each result is a subset of what the schema allows.
#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <boost/json/array.hpp>
#include <boost/json/serialize.hpp>
#include <optional>

#include "text/json_schema_compiler.h"
#include "text/tokenizer_json.h"

namespace spillway::text {

namespace json = boost::json;

namespace {

constexpr size_t kUniqueMax =
    10;  // values of which an array holds each once: the grammar has a rule for each set of them
constexpr int64_t kListedMax = 2000;  // multiples that are listed one by one
constexpr int64_t kRemaindersMax = 128;
constexpr int kDigitsMax = 15;

// The values of {"enum": [...]} or {"const": x}, if that is all (but for `besides`) that the schema says.
std::optional<json::array> listed_values(const json::value& schema, std::string_view besides) {
  if (!schema.is_object()) return std::nullopt;
  json::object rest = schema.get_object();
  rest.erase(besides);
  for (const std::string_view key : {"title", "description", "default", "examples", "$comment"}) rest.erase(key);
  if (rest.size() != 1) return std::nullopt;
  if (rest.contains("const")) return json::array{rest.at("const")};
  const json::value* list = rest.if_contains("enum");
  return list && list->is_array() ? std::optional(list->get_array()) : std::nullopt;
}

// What holds where the condition does not, or a part of it; nothing for conditions whose opposite no schema of ours
// says.
std::optional<json::object> opposite(const json::object& condition) {
  json::object rest = condition;
  if (const json::value* type = rest.if_contains("type"); type && *type == "object") rest.erase("type");
  const json::value* properties = rest.if_contains("properties");
  if (!properties || !properties->is_object() || properties->get_object().size() != 1) return std::nullopt;
  const auto& [name, asked] = *properties->get_object().begin();
  const auto values = listed_values(asked, "type");
  const json::value* required = rest.if_contains("required");
  if (!values || rest.size() != 1u + (required != nullptr)) return std::nullopt;
  if (required && *required != json::array{json::string(name)}) return std::nullopt;
  json::object property{{"not", {{"enum", *values}}}};
  return json::object{{"properties", {{name, std::move(property)}}}, {"required", json::array{json::string(name)}}};
}

}  // namespace

bool has_type(const json::value& value, const std::string& type) {
  const bool whole = value.is_int64() || value.is_uint64();
  return (type == "string" && value.is_string()) || (type == "number" && value.is_number()) ||
         (type == "integer" && whole) || (type == "boolean" && value.is_bool()) ||
         (type == "null" && value.is_null()) || (type == "object" && value.is_object()) ||
         (type == "array" && value.is_array());
}

Result<Element> SchemaCompiler::compile_not(const Object& schema, const std::string& path) {
  Object rest = schema;
  rest.erase("not");
  const json::value& unwanted = schema.at("not");
  if (unwanted == false) return compile(rest, path);
  const auto values = listed_values(unwanted, "type");
  SW_ASSIGN(std::vector<std::string> types, types_of(rest, path));
  if (types.empty()) types = {"object", "array", "string", "number", "boolean", "null"};
  const json::value* type =
      unwanted.is_object() && unwanted.get_object().size() == 1 ? unwanted.get_object().if_contains("type") : nullptr;
  if (!values && !type) {
    return unsupported(fmt::format(
        "not is supported with enum, const or type alone in constrained output, found another at {}", path));
  }
  if (rest.contains("enum") || rest.contains("const")) {
    json::array kept;
    for (const json::value& value :
         rest.contains("enum") ? rest.at("enum").as_array() : json::array{rest.at("const")}) {
      const bool out = type ? type->is_string() && has_type(value, std::string(type->get_string()))
                            : std::find(values->begin(), values->end(), value) != values->end();
      if (!out) kept.push_back(value);
    }
    rest["enum"] = std::move(kept);
    return compile(rest, path);
  }
  std::vector<Sequence> out;
  for (const std::string& one : types) {
    if (type ? *type == json::string(one) || (one == "integer" && *type == "number")
             : one == "null" && !values->empty() &&
                   std::find(values->begin(), values->end(), json::value(nullptr)) != values->end()) {
      continue;
    }
    if (type && one == "number" && *type == "integer")
      return unsupported(fmt::format("numbers that are not integers at {}", path));
    Object alternative = rest;
    alternative["type"] = one;
    alternative.erase("nullable");
    SW_ASSIGN(const Element element,
              type ? compile(alternative, path) : compile_other_than(one, alternative, *values, path));
    out.push_back({element});
  }
  if (out.empty()) return invalid(fmt::format("expected a value that the schema allows at {}, found none", path));
  return rules_.one_of(std::move(out));
}

// Values of one type but for those listed.
Result<Element> SchemaCompiler::compile_other_than(const std::string& type, const Object& schema,
                                                   const json::array& values, const std::string& path) {
  json::array unwanted;
  std::copy_if(values.begin(), values.end(), std::back_inserter(unwanted), [&](const json::value& value) {
    return has_type(value, type) || (type == "integer" && value.is_double());
  });
  if (unwanted.empty()) return compile(schema, path);
  if (type == "boolean") return compile(json::object{{"enum", {true, false}}, {"not", {{"enum", unwanted}}}}, path);
  if (type != "string" || schema.size() != 1) {
    return unsupported(fmt::format("not beside other keywords, or of {}s, is not supported at {}", type, path));
  }
  Object names;
  for (const json::value& value : unwanted) names[value.get_string()] = true;
  return other_key(names, path);
}

Result<Element> SchemaCompiler::compile_conditional(const Object& schema, const std::string& path) {
  Object rest = schema;
  for (const std::string_view key : {"if", "then", "else"}) rest.erase(key);
  json::value condition = schema.at("if");
  if (condition == true) condition = Object();
  std::vector<Sequence> out;
  const auto add = [&](const Object& when, const char* branch) -> Status {
    const json::value* wanted = schema.if_contains(branch);
    if (wanted && *wanted == false) return {};
    SW_ASSIGN(Object both, merge_schemas(rest, when, path));
    if (wanted && wanted->is_object()) {
      SW_ASSIGN(both, merge_schemas(both, wanted->get_object(), fmt::format("{}.{}", path, branch)));
    }
    auto element = compile(both, path);
    if (element.ok()) out.push_back({*element});
    if (element.ok() || element.error().code == ErrorCode::kInvalidArgument)
      return {};  // nothing satisfies this branch
    return std::move(element).error();
  };
  if (condition != false) {
    if (!condition.is_object())
      return invalid(fmt::format("expected a schema at {}.if, found {}", path, json_kind(condition)));
    SW_TRY(add(condition.get_object(), "then"));
    if (condition.get_object().empty()) return rules_.one_of(std::move(out));
  }
  const auto otherwise = condition == false ? Object() : opposite(condition.get_object());
  if (!otherwise) {
    return unsupported(fmt::format(
        "if is supported with one property of enum or const in constrained output, found another at {}.if", path));
  }
  SW_TRY(add(*otherwise, "else"));
  if (out.empty()) return invalid(fmt::format("expected a value that the schema allows at {}, found none", path));
  return rules_.one_of(std::move(out));
}

Result<Element> SchemaCompiler::compile_multiples(const Object& schema, const NumberBounds& bounds,
                                                  const std::string& path) {
  const json::value& given = schema.at("multipleOf");
  const double asked = given.is_number() ? given.to_number<double>() : 0;
  if (asked <= 0) return invalid(fmt::format("expected a number above 0 at {}.multipleOf", path));
  auto step = int64_t(std::min(asked, 1e15));
  if (double(step) != asked)
    return unsupported(fmt::format("expected a whole number at {}.multipleOf, found {}", path, asked));
  const int64_t least = bounds.least_integer(), most = bounds.most_integer();
  const int64_t first = least >= 0 ? (least + step - 1) / step : -(-least / step);  // in steps
  const int64_t last = most >= 0 ? most / step : -((-most + step - 1) / step);
  if (first > last) return invalid(fmt::format("expected a multiple between the bounds at {}", path));
  if (last - first < kListedMax) {
    std::vector<std::string> texts;
    for (int64_t i = first; i <= last; ++i) texts.push_back(std::to_string(i * step));
    return rules_.any_of_texts(std::move(texts));
  }
  int digits = kDigitsMax;
  std::string zeros;
  for (; step % 10 == 0; step /= 10, --digits) zeros += '0';
  const bool any_negative = !bounds.has_least, any_positive = !bounds.has_most;
  if ((!any_negative && least < 0) || (any_negative && most < 0) || (!any_positive && most > 0) ||
      (any_positive && least > 1) || step > kRemaindersMax) {
    return unsupported(fmt::format("multipleOf {} between these bounds is not supported at {}", asked, path));
  }
  const Element some = rules_.concat({digits_of_multiples(int(step), digits), rules_.literal(zeros)});
  std::vector<Sequence> out;
  if (least <= 0 && most >= 0) out.push_back({rules_.literal("0")});
  if (any_negative && least < 0) out.push_back({rules_.bytes("-"), some});
  if (any_positive) out.push_back({some});
  return rules_.one_of(std::move(out));
}

// Positive multiples of step with up to `digits` digits: a rule for each remainder and number of digits that may
// follow.
Element SchemaCompiler::digits_of_multiples(int step, int digits) {
  std::vector<Element> after(size_t(step), Element{});  // by the remainder so far
  for (int left = 0; left < digits; ++left) {
    std::vector<Element> longer;
    for (int remainder = 0; remainder < step; ++remainder) {
      std::vector<Sequence> next;
      if (remainder == 0) next.push_back({});
      for (int digit = 0; digit <= 9 && left > 0; ++digit) {
        next.push_back({rules_.range('0' + digit, '0' + digit), after[size_t((remainder * 10 + digit) % step)]});
      }
      longer.push_back(rules_.one_of(std::move(next)));
    }
    after = std::move(longer);
  }
  std::vector<Sequence> out;
  for (int digit = 1; digit <= 9; ++digit)
    out.push_back({rules_.range('0' + digit, '0' + digit), after[size_t(digit % step)]});
  return rules_.one_of(std::move(out));
}

Result<Element> SchemaCompiler::compile_unique_items(const Object& schema, const std::string& path) {
  const json::value* items = schema.if_contains("items");
  std::vector<std::string> texts;
  if (const auto values = items ? listed_values(*items, "type") : std::nullopt) {
    for (const json::value& value : *values) {
      if (!(items->get_object().contains("type")) ||
          has_type(value, std::string(items->at("type").is_string() ? items->at("type").get_string() : "")))
        texts.push_back(json::serialize(value));
    }
  }
  std::sort(texts.begin(), texts.end());
  texts.erase(std::unique(texts.begin(), texts.end()), texts.end());
  if (texts.empty() || texts.size() > kUniqueMax || schema.contains("prefixItems")) {
    return unsupported(fmt::format(
        "uniqueItems is supported for items of an enum of up to {} values, found others at {}", kUniqueMax, path));
  }
  SW_ASSIGN(const int least, count_of(schema, "minItems", 0, path));
  SW_ASSIGN(const int most, count_of(schema, "maxItems", int(texts.size()), path));
  if (least > std::min(most, int(texts.size())))
    return invalid(fmt::format("expected minItems up to the items there can be at {}", path));
  // A rule for what may follow each set of values that have been; sets with more come first.
  std::vector<Element> after(size_t(1) << texts.size());
  for (size_t had = after.size(); had-- > 0;) {
    const int count = std::popcount(had);
    std::vector<Sequence> next;
    if (count >= least)
      next.push_back(count == 0 ? Sequence{rules_.bytes("]")} : Sequence{json_.space(), rules_.bytes("]")});
    for (size_t i = 0; i < texts.size() && count < most; ++i) {
      if ((had >> i & 1) != 0) continue;
      Sequence one{json_.space(), rules_.literal(texts[i]), after[had | size_t(1) << i]};
      if (count > 0) one.insert(one.begin(), rules_.bytes(","));
      next.push_back(std::move(one));
    }
    after[had] = rules_.one_of(std::move(next));
  }
  return rules_.concat({rules_.bytes("["), after[0]});
}

// Members whose names match the one pattern there is.
Result<Element> SchemaCompiler::compile_pattern_members(const Object& schema, const std::string& path) {
  const json::value& patterns = schema.at("patternProperties");
  const auto named = [&](const char* key) {
    const json::value* value = schema.if_contains(key);
    return value && !(value->is_object() && value->get_object().empty()) &&
           !(value->is_array() && value->get_array().empty());
  };
  if (!patterns.is_object() || patterns.get_object().size() != 1 || named("properties") || named("required")) {
    return unsupported(
        fmt::format("patternProperties is supported with one pattern and without properties or required in constrained "
                    "output, found others at {}",
                    path));
  }
  const auto& [pattern, value] = *patterns.get_object().begin();
  const std::string at = fmt::format("{}.patternProperties.{:.80}", path, std::string_view(pattern));
  if (value == false) return rules_.literal("{}");
  SW_ASSIGN(const Element key, compile_string_pattern(std::string_view(pattern), at, json_));
  SW_ASSIGN(const Element content, compile(value, at));
  const Element member = rules_.concat({rules_.bytes("\""), key, rules_.literal("\":"), json_.gap(), content});
  const Element more = rules_.repeat(rules_.concat({rules_.bytes(","), json_.space(), member}), 0, -1);
  return rules_.concat(
      {rules_.bytes("{"),
       rules_.one_of({{rules_.bytes("}")}, {json_.space(), member, more, json_.space(), rules_.bytes("}")}})});
}

}  // namespace spillway::text
