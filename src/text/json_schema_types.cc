// Objects, arrays and strings of a schema.
#include <fmt/format.h>

#include <algorithm>
#include <boost/json/array.hpp>
#include <boost/json/serialize.hpp>
#include <set>

#include "text/json_schema_compiler.h"
#include "text/tokenizer_json.h"
#include "text/unicode.h"

namespace spillway::text {

namespace json = boost::json;

namespace {

constexpr int kLengthMax = 4096;
constexpr int kItemsMax = 1024;

// Formats as the patterns of what may be written: a part of what the format allows.
constexpr std::string_view kTimePart =
    R"(([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\.[0-9]{1,6})?(Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9]))";
constexpr std::string_view kDatePart = "[0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|1[0-9]|2[0-8])";
constexpr std::string_view kUuid = "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}";
constexpr std::string_view kIpv4 =
    R"(((25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])\.){3}(25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9]))";
constexpr std::string_view kIpv6 =
    "([0-9a-f]{1,4}:){7}[0-9a-f]{1,4}|::|::([0-9a-f]{1,4}:){0,5}[0-9a-f]{1,4}|"
    "[0-9a-f]{1,4}(:[0-9a-f]{1,4}){0,2}::([0-9a-f]{1,4}:){0,2}[0-9a-f]{1,4}";
constexpr std::string_view kEmail =
    R"([A-Za-z0-9_+-]+(\.[A-Za-z0-9_+-]+)*@[A-Za-z0-9]+(-[A-Za-z0-9]+)*(\.[A-Za-z0-9]+(-[A-Za-z0-9]+)*)+)";
constexpr std::string_view kHostname = R"(([a-z0-9]{1,20}(-[a-z0-9]{1,20})?\.){0,4}[a-z]{2,20})";
constexpr std::string_view kUri =
    R"([a-z][a-z0-9+.-]{0,20}://[a-z0-9]+(-[a-z0-9]+)*(\.[a-z0-9]+(-[a-z0-9]+)*)*(:[1-9][0-9]{0,3})?)"
    R"((/([A-Za-z0-9._~!$&'()*+,;=:@-]|%[0-9A-F]{2})*)*(\?[A-Za-z0-9._~!$&'()*+,;=:@/?-]*)?(#[A-Za-z0-9._~/?-]*)?)";
constexpr std::string_view kDuration =
    "P([0-9]{1,4}W|[0-9]{1,4}D(T[0-9]{1,4}H)?|[0-9]{1,4}Y([0-9]{1,4}M([0-9]{1,4}D)?)?|[0-9]{1,4}M([0-9]{1,4}D)?|"
    "T([0-9]{1,4}H([0-9]{1,4}M([0-9]{1,4}S)?)?|[0-9]{1,4}M([0-9]{1,4}S)?|[0-9]{1,4}S))";
constexpr std::string_view kJsonPointer = "(/([^~/]|~[01])*)*";
constexpr std::string_view kRelativeJsonPointer = "(0|[1-9][0-9]{0,8})(#|(/([^~/]|~[01])*)*)";

// Empty: a name that JSON Schema does not define, an annotation.
std::string pattern_of_format(std::string_view format) {
  const auto whole = [](std::string_view part) { return fmt::format("^({})$", part); };
  if (format == "date") return whole(kDatePart);
  if (format == "time") return whole(kTimePart);
  if (format == "date-time") return fmt::format("^{}T{}$", kDatePart, kTimePart);
  if (format == "uuid") return whole(kUuid);
  if (format == "ipv4") return whole(kIpv4);
  if (format == "ipv6") return whole(kIpv6);
  if (format == "email" || format == "idn-email") return whole(kEmail);
  if (format == "hostname" || format == "idn-hostname") return whole(kHostname);
  for (const char* const name : {"uri", "uri-reference", "uri-template", "iri", "iri-reference"}) {
    if (format == name) return whole(kUri);
  }
  if (format == "duration") return whole(kDuration);
  if (format == "json-pointer") return whole(kJsonPointer);
  if (format == "relative-json-pointer") return whole(kRelativeJsonPointer);
  return {};
}

}  // namespace

Result<int> SchemaCompiler::count_of(const json::object& schema, std::string_view key, int fallback,
                                     const std::string& path) {
  const json::value* value = schema.if_contains(key);
  if (!value) return fallback;
  if (!value->is_int64() || value->get_int64() < 0) return invalid(fmt::format("expected a count at {}.{}", path, key));
  return int(std::min<int64_t>(value->get_int64(), 1 << 30));
}

Result<Element> SchemaCompiler::compile_string(const json::object& schema, const std::string& path) {
  const Element quote = rules_.bytes("\"");
  const json::value* pattern = schema.if_contains("pattern");
  const bool sized = schema.contains("minLength") || schema.contains("maxLength");
  const json::value* format = schema.if_contains("format");
  std::string expression;
  if (format && format->is_string()) {
    if (format->get_string() == "regex")
      return unsupported(fmt::format("the format regex at {} is not supported in constrained output", path));
    expression = pattern_of_format(std::string_view(format->get_string()));
  }
  if (pattern) {
    if (!pattern->is_string()) return invalid(fmt::format("expected a string at {}.pattern", path));
    if (!expression.empty()) return unsupported(fmt::format("pattern beside format is not supported at {}", path));
    expression = std::string(pattern->get_string());
  }
  if (!expression.empty()) {
    if (sized)
      return unsupported(fmt::format("minLength and maxLength beside pattern or format are not supported at {}", path));
    SW_ASSIGN(const Element body, compile_string_pattern(expression, path + ".pattern", json_));
    return rules_.concat({quote, body, quote});
  }
  if (!sized) return json_.string();
  SW_ASSIGN(const int least, count_of(schema, "minLength", 0, path));
  SW_ASSIGN(const int most, count_of(schema, "maxLength", -1, path));
  if (least > kLengthMax)
    return unsupported(fmt::format("a minLength above {} is not supported at {}", kLengthMax, path));
  if (most >= 0 && most < least) return invalid(fmt::format("expected minLength up to maxLength at {}", path));
  return rules_.concat({quote, rules_.repeat(json_.character(), least, std::min(most, kLengthMax)), quote});
}

Result<Element> SchemaCompiler::compile_array(const json::object& schema, const std::string& path) {
  SW_ASSIGN(const int least, count_of(schema, "minItems", 0, path));
  SW_ASSIGN(int most, count_of(schema, "maxItems", -1, path));
  const json::value* unique = schema.if_contains("uniqueItems");
  if (unique && *unique == true && (most < 0 || most > 1)) return compile_unique_items(schema, path);
  if (least > kItemsMax) return unsupported(fmt::format("a minItems above {} is not supported at {}", kItemsMax, path));
  most = std::min(most, kItemsMax);
  std::vector<Element> prefix;
  if (const json::value* items = schema.if_contains("prefixItems")) {
    if (!items->is_array()) return invalid(fmt::format("expected schemas at {}.prefixItems", path));
    for (const json::value& item : items->get_array()) {
      SW_ASSIGN(const Element one, compile(item, fmt::format("{}.prefixItems[{}]", path, prefix.size())));
      prefix.push_back(one);
    }
  }
  const json::value* items = schema.if_contains("items");
  if ((items && *items == false) || (!items && !prefix.empty()))
    most = most < 0 ? int(prefix.size()) : std::min(most, int(prefix.size()));
  if (most >= 0 && most < least)
    return invalid(fmt::format("expected minItems up to the items there can be at {}", path));
  Element item = json_.value();
  if (items && *items != false) {
    SW_ASSIGN(item, compile(*items, path + ".items"));
  }
  // From the back: what may follow when `count` items are there.
  const Element close = rules_.bytes("]"), comma = rules_.bytes(","), end = rules_.concat({json_.space(), close});
  const int fixed = std::max({least, most, int(prefix.size())});
  Element rest = rules_.declare();
  rules_.add(rest, {end});
  if (most < 0) rules_.add(rest, {comma, json_.space(), item, rest});
  for (int count = fixed - 1; count >= 0; --count) {
    const Element one = size_t(count) < prefix.size() ? prefix[size_t(count)] : item;
    std::vector<Sequence> next;
    if (count >= least) next.push_back({count == 0 ? close : end});
    if (most < 0 || count < most) {
      next.push_back(count == 0 ? Sequence{json_.space(), one, rest} : Sequence{comma, json_.space(), one, rest});
    }
    rest = rules_.one_of(std::move(next));
  }
  if (fixed > 0) return rules_.concat({rules_.bytes("["), rest});
  if (most == 0) return rules_.literal("[]");
  return rules_.concat({rules_.bytes("["), rules_.one_of({{close}, {json_.space(), item, rest}})});
}

Result<Element> SchemaCompiler::compile_object(const json::object& schema, const std::string& path) {
  const json::value* patterns = schema.if_contains("patternProperties");
  if (patterns && *patterns != json::object()) return compile_pattern_members(schema, path);
  const bool open =
      !schema.contains("properties") && !schema.contains("required") && !schema.contains("additionalProperties");
  if (open) return json_.object();
  return compile_members(schema, path);
}

Result<Element> SchemaCompiler::compile_members(const json::object& schema, const std::string& path) {
  json::object properties;
  if (const json::value* listed = schema.if_contains("properties")) {
    if (!listed->is_object())
      return invalid(fmt::format("expected an object at {}.properties, found {}", path, json_kind(*listed)));
    properties = listed->get_object();
  }
  const json::value* others = schema.if_contains("additionalProperties");
  std::set<std::string> required;
  if (const json::value* names = schema.if_contains("required")) {
    if (!names->is_array()) return invalid(fmt::format("expected names at {}.required", path));
    for (const json::value& name : names->get_array()) {
      if (!name.is_string())
        return invalid(fmt::format("expected names at {}.required, found {}", path, json_kind(name)));
      required.emplace(name.get_string());
      if (!properties.contains(name.get_string())) properties[name.get_string()] = others ? *others : json::value(true);
    }
  }
  const Element close = rules_.bytes("}"), comma = rules_.bytes(",");
  // From the back; `first` when no member is there yet.
  Element first = rules_.one_of({{close}}), later = rules_.one_of({{json_.space(), close}});
  if (others && *others != false) {
    json::object known = schema;
    known["properties"] = properties;
    SW_ASSIGN(const Element other, other_members(known, path));
    rules_.add(later, {comma, json_.space(), other, later});
    rules_.add(first, {json_.space(), other, later});
  }
  std::vector<std::pair<std::string, Element>> members;
  for (const auto& item : properties) {
    const std::string name(item.key());
    if (item.value() == false && !required.contains(name)) continue;
    SW_ASSIGN(const Element value, compile(item.value(), fmt::format("{}.properties.{}", path, name)));
    const Element key = rules_.literal(json::serialize(json::string(name)) + ":");
    members.emplace_back(name, rules_.concat({key, json_.gap(), value}));
  }
  for (size_t i = members.size(); i-- > 0;) {
    const auto& [name, member] = members[i];
    std::vector<Sequence> from_first = {{json_.space(), member, later}},
                          from_later = {{comma, json_.space(), member, later}};
    if (!required.contains(name)) from_first.push_back({first}), from_later.push_back({later});
    first = rules_.one_of(std::move(from_first));
    later = rules_.one_of(std::move(from_later));
  }
  return rules_.concat({rules_.bytes("{"), first});
}

Result<Element> SchemaCompiler::other_members(const json::object& schema, const std::string& path) {
  SW_ASSIGN(const Element value, compile(schema.at("additionalProperties"), path + ".additionalProperties"));
  SW_ASSIGN(const Element key, other_key(schema.at("properties").as_object(), path));
  return rules_.concat({key, rules_.bytes(":"), json_.gap(), value});
}

// A key that is none of the properties. Those are ASCII and written without escapes, so that nothing else can spell
// them.
Result<Element> SchemaCompiler::other_key(const json::object& properties, const std::string& path) {
  if (properties.empty()) return json_.string();
  std::vector<std::string_view> names;
  for (const auto& item : properties) {
    const std::string_view name = item.key();
    if (!is_ascii(name) || json::serialize(json::string(name)).size() != name.size() + 2) {
      return unsupported(fmt::format("a name that is not plain ASCII cannot be left out at {}", path));
    }
    if (name.size() > 256) return unsupported(fmt::format("a property name above 256 characters at {}", path));
    names.push_back(name);
  }
  return rules_.concat({rules_.bytes("\""), key_beyond(names, 0)});
}

// The rest of a key whose first `depth` characters are those of all names.
Element SchemaCompiler::key_beyond(const std::vector<std::string_view>& names, size_t depth) {
  ByteSet plain;
  for (size_t c = 0x20; c < 0x80; ++c) plain.set(c, c != '"' && c != '\\');
  const Element quote = rules_.bytes("\"");
  const Element tail =
      rules_.concat({rules_.repeat(rules_.one_of({{rules_.bytes(plain)}, {json_.plain_tail()}}), 0, -1), quote});
  std::vector<Sequence> out = {{json_.plain_tail(), tail}};
  std::map<char, std::vector<std::string_view>> by_next;
  bool is_name = false;
  for (const std::string_view name : names) {
    if (name.size() == depth) is_name = true;
    if (name.size() > depth) by_next[name[depth]].push_back(name);
  }
  for (const auto& [next, group] : by_next) {
    out.push_back({rules_.range(next, next), key_beyond(group, depth + 1)});
    plain.reset(uint8_t(next));
  }
  out.push_back({rules_.bytes(plain), tail});
  if (!is_name) out.push_back({quote});
  return rules_.one_of(std::move(out));
}

}  // namespace spillway::text
