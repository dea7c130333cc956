#include "text/json_schema.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <boost/json/parse.hpp>
#include <boost/json/serialize.hpp>

#include "text/grammar.h"
#include "text/json_schema_validate_test.h"
#include "text/tokenizer_regex.h"

namespace spillway::text {

namespace json = boost::json;

namespace {

bool is_type(const json::value& value, std::string_view type) {
  if (type == "integer")
    return value.is_int64() || value.is_uint64() ||
           (value.is_double() && value.get_double() == int64_t(value.get_double()));
  return (type == "null" && value.is_null()) || (type == "boolean" && value.is_bool()) ||
         (type == "string" && value.is_string()) || (type == "number" && value.is_number()) ||
         (type == "object" && value.is_object()) || (type == "array" && value.is_array());
}

bool number_conforms(double value, const json::object& schema) {
  const auto bound = [&](const char* key, double fallback) {
    return schema.contains(key) ? schema.at(key).to_number<double>() : fallback;
  };
  return value >= bound("minimum", value) && value <= bound("maximum", value) &&
         value > bound("exclusiveMinimum", value - 1) && value < bound("exclusiveMaximum", value + 1);
}

bool size_conforms(size_t size, const json::object& schema, const char* least, const char* most) {
  return (!schema.contains(least) || int64_t(size) >= schema.at(least).as_int64()) &&
         (!schema.contains(most) || int64_t(size) <= schema.at(most).as_int64());
}

bool string_conforms(const json::string& value, const json::object& schema) {
  const auto characters =
      size_t(std::count_if(value.begin(), value.end(), [](char c) { return (uint8_t(c) & 0xC0) != 0x80; }));
  if (!size_conforms(characters, schema, "minLength", "maxLength")) return false;
  if (!schema.contains("pattern")) return true;
  Regex::Match match;
  return Regex::compile(std::string_view(schema.at("pattern").as_string())).value().find(value, 0, match);
}

bool object_conforms(const json::object& value, const json::object& schema, const json::value& document) {
  if (schema.contains("required")) {
    for (const json::value& name : schema.at("required").as_array()) {
      if (!value.contains(name.as_string())) return false;
    }
  }
  for (const auto& item : value) {
    if (schema.contains("properties") && schema.at("properties").as_object().contains(item.key())) {
      if (!conforms(item.value(), schema.at("properties").at(item.key()), document)) return false;
    } else if (schema.contains("additionalProperties") &&
               !conforms(item.value(), schema.at("additionalProperties"), document)) {
      return false;
    }
  }
  return true;
}

bool array_conforms(const json::array& value, const json::object& schema, const json::value& document) {
  if (!size_conforms(value.size(), schema, "minItems", "maxItems")) return false;
  for (size_t i = 0; i < value.size(); ++i) {
    const bool prefixed = schema.contains("prefixItems") && i < schema.at("prefixItems").as_array().size();
    if (prefixed && !conforms(value[i], schema.at("prefixItems").as_array()[i], document)) return false;
    if (!prefixed && schema.contains("items") && !conforms(value[i], schema.at("items"), document)) return false;
  }
  return true;
}

bool any_conforms(const json::value& value, const json::value& schemas, const json::value& document) {
  return std::any_of(schemas.as_array().begin(), schemas.as_array().end(),
                     [&](const json::value& one) { return conforms(value, one, document); });
}

}  // namespace

bool conforms(const json::value& value, const json::value& schema, const json::value& document) {
  if (schema.is_bool()) return schema.get_bool();
  const json::object& object = schema.as_object();
  if (object.contains("$ref")) {
    const std::string pointer(object.at("$ref").as_string());
    if (!conforms(value, pointer == "#" ? document : document.at_pointer(pointer.substr(1)), document)) return false;
  }
  if (object.contains("const") && object.at("const") != value) return false;
  if (object.contains("enum")) {
    const json::array& list = object.at("enum").as_array();
    if (std::find(list.begin(), list.end(), value) == list.end()) return false;
  }
  if (object.contains("anyOf") && !any_conforms(value, object.at("anyOf"), document)) return false;
  if (object.contains("oneOf") && !any_conforms(value, object.at("oneOf"), document)) return false;
  if (object.contains("allOf")) {
    for (const json::value& one : object.at("allOf").as_array()) {
      if (!conforms(value, one, document)) return false;
    }
  }
  if (object.contains("type")) {
    const json::value& type = object.at("type");
    const json::array types = type.is_array() ? type.get_array() : json::array{type};
    const bool null = value.is_null() && object.contains("nullable");
    if (!null && std::none_of(types.begin(), types.end(),
                              [&](const json::value& one) { return is_type(value, one.as_string()); }))
      return false;
  }
  if (value.is_number() && !number_conforms(value.to_number<double>(), object)) return false;
  if (value.is_string() && !string_conforms(value.get_string(), object)) return false;
  if (value.is_object() && !object_conforms(value.get_object(), object, document)) return false;
  return !value.is_array() || array_conforms(value.get_array(), object, document);
}

namespace {

bool accepts(const char* schema, std::string_view text) {
  const auto grammar = Grammar::json_schema(json::parse(schema));
  EXPECT_TRUE(grammar.ok()) << grammar.error().message;
  return (*grammar)->matches(text);
}

TEST(JsonSchema, TakesWhatConforms) {
  EXPECT_TRUE(accepts("true", R"({"a": [1, -2.5e3, "x\u00e9\n", null, true]})"));
  EXPECT_TRUE(accepts("{}", "{\n  \"a\": {\n    \"b\": []\n  }\n}"));
  EXPECT_FALSE(accepts("{}", "{\"a\":    1}"));
  EXPECT_FALSE(accepts("{}", "[01]"));
  EXPECT_FALSE(accepts("{}", "\"\\ud800\""));
  EXPECT_TRUE(accepts("{}", "\"\\ud83d\\ude00\""));
  EXPECT_FALSE(accepts("{}", "\"\xC3\""));
  EXPECT_FALSE(accepts("{}", "\"\xED\xA0\x80\""));
  const char* const person =
      R"({"type":"object","properties":{"name":{"type":"string"},"age":{"type":"integer"}},"required":["name"]})";
  EXPECT_TRUE(accepts(person, R"({"name": "Ann", "age": 3})"));
  EXPECT_TRUE(accepts(person, R"({"name":"Ann"})"));
  EXPECT_FALSE(accepts(person, R"({"age":3})"));
  EXPECT_FALSE(accepts(person, R"({"name":"Ann","x":1})"));
  const char* const open = R"({"properties":{"name":{"type":"string"}},"additionalProperties":{"type":"integer"}})";
  EXPECT_TRUE(accepts(open, R"({"name": "a", "nam": 1, "names": 2, "é": 3})"));
  EXPECT_FALSE(accepts(open, R"({"nam": 1, "name": 2})"));
  EXPECT_FALSE(accepts(open, R"({"n\u0061me": 2})"));
}

TEST(JsonSchema, IntegersKeepTheirBounds) {
  for (const auto& [least, most] : {std::pair(-120, 99), {0, 0}, {7, 1003}, {-50, -9}, {95, 105}, {-1, 1}}) {
    const std::string schema =
        "{\"type\":\"integer\",\"minimum\":" + std::to_string(least) + ",\"maximum\":" + std::to_string(most) + "}";
    const auto grammar = Grammar::json_schema(json::parse(schema)).value();
    for (int value = -1100; value <= 1100; ++value) {
      EXPECT_EQ(grammar->matches(std::to_string(value)), value >= least && value <= most) << schema << value;
    }
    EXPECT_FALSE(grammar->matches("-0"));
  }
}

TEST(JsonSchema, NumbersKeepTheirBounds) {
  const char* const unit = R"({"type":"number","minimum":0,"exclusiveMaximum":1})";
  for (const char* const in : {"0", "0.0", "0.999"}) EXPECT_TRUE(accepts(unit, in)) << in;
  for (const char* const out : {"1", "1.0", "-0.1", "2", "1e5"}) EXPECT_FALSE(accepts(unit, out)) << out;
}

TEST(JsonSchema, NumbersKeepBoundsWithFractions) {
  struct Case {
    const char* bounds;
    double least, most;
    bool open_least, open_most;
  };
  for (const Case& one : {Case{R"("minimum":0.5,"maximum":12.25)", 0.5, 12.25, false, false},
                          Case{R"("exclusiveMinimum":-1.5,"exclusiveMaximum":0.25)", -1.5, 0.25, true, true},
                          Case{R"("minimum":0.25,"exclusiveMaximum":0.75)", 0.25, 0.75, false, true},
                          Case{R"("exclusiveMinimum":-0.75,"maximum":-0.25)", -0.75, -0.25, true, false},
                          Case{R"("minimum":1.01,"maximum":1.1)", 1.01, 1.1, false, false},
                          Case{R"("exclusiveMinimum":2,"maximum":3)", 2, 3, true, false},
                          Case{R"("minimum":-2.5,"maximum":0)", -2.5, 0, false, false},
                          Case{R"("minimum":0.1,"maximum":0.1)", 0.1, 0.1, false, false},
                          Case{R"("exclusiveMinimum":0)", 0, 1e9, true, false}}) {
    const std::string schema = std::string("{\"type\":\"number\",") + one.bounds + "}";
    const auto grammar = Grammar::json_schema(json::parse(schema));
    ASSERT_TRUE(grammar.ok()) << grammar.error().message;
    for (int hundredths = -300; hundredths <= 1400; ++hundredths) {
      const double value = hundredths / 100.0;
      const bool good = (one.open_least ? value > one.least : value >= one.least) &&
                        (one.open_most ? value < one.most : value <= one.most);
      std::string text = fmt::format("{:.2f}", value);
      if (text == "-0.00") continue;
      EXPECT_EQ((*grammar)->matches(text), good) << schema << text;
      EXPECT_EQ((*grammar)->matches(text + "0"), good) << schema << text;
      while (text.back() == '0') text.pop_back();
      if (text.back() == '.') text.pop_back();
      EXPECT_EQ((*grammar)->matches(text), good) << schema << text;
    }
    EXPECT_FALSE((*grammar)->matches("1."));
    EXPECT_FALSE((*grammar)->matches(".5"));
  }
  EXPECT_TRUE(accepts(R"({"type":"number","exclusiveMinimum":0.5})", "0.5000001"));
  EXPECT_TRUE(accepts(R"({"type":"integer","minimum":1.5,"maximum":2.5})", "2"));
  EXPECT_FALSE(Grammar::json_schema(json::parse(R"({"type":"integer","minimum":1.2,"maximum":1.8})")).ok());
  EXPECT_FALSE(Grammar::json_schema(json::parse(R"({"type":"number","minimum":0.5,"exclusiveMaximum":0.5})")).ok());
}

TEST(JsonSchema, BoundsOfManyDigits) {
  const char* const few = R"({"type":"integer","minimum":9007199254740993,"maximum":9007199254740999})";
  EXPECT_TRUE(accepts(few, "9007199254740993"));
  EXPECT_TRUE(accepts(few, "9007199254740999"));
  EXPECT_FALSE(accepts(few, "9007199254740992"));
  EXPECT_FALSE(accepts(few, "999999999999999"));
  EXPECT_TRUE(accepts(R"({"type":"integer","minimum":1000000000000000})", "1000000000000001"));
  EXPECT_FALSE(accepts(R"({"type":"integer","minimum":1000000000000000})", "5"));
  EXPECT_FALSE(Grammar::json_schema(json::parse(R"({"type":"integer","minimum":1e19})")).ok());
  const char* const all = R"({"type":"integer","minimum":-9223372036854775808,"maximum":18446744073709551615})";
  for (const char* const in : {"-5", "0", "123456789012345"}) EXPECT_TRUE(accepts(all, in)) << in;
}

TEST(JsonSchema, MultiplesAreThose) {
  struct Case {
    const char* schema;
    int step, least, most;
  };
  constexpr int kAll = 2000;
  for (const Case& one : {Case{R"({"type":"integer","multipleOf":7})", 7, -kAll, kAll},
                          Case{R"({"multipleOf":25,"minimum":0})", 25, 0, kAll},
                          Case{R"({"type":"integer","multipleOf":100,"exclusiveMinimum":0})", 100, 1, kAll},
                          Case{R"({"type":"integer","multipleOf":3,"maximum":0})", 3, -kAll, 0},
                          Case{R"({"type":"integer","multipleOf":6,"minimum":-40,"maximum":1000})", 6, -40, 1000}}) {
    const auto grammar = Grammar::json_schema(json::parse(one.schema));
    ASSERT_TRUE(grammar.ok()) << grammar.error().message;
    for (int value = -kAll; value <= kAll; ++value) {
      const bool good = value % one.step == 0 && value >= one.least && value <= one.most;
      EXPECT_EQ((*grammar)->matches(std::to_string(value)), good) << one.schema << value;
    }
    EXPECT_FALSE((*grammar)->matches("-0"));
    EXPECT_FALSE((*grammar)->matches("00"));
  }
  EXPECT_TRUE(accepts(R"({"multipleOf":7})", "700000000000007"));
  EXPECT_FALSE(accepts(R"({"multipleOf":7})", "700000000000008"));
}

TEST(JsonSchema, UniqueItemsOfAnEnum) {
  const char* const schema =
      R"({"type":"array","items":{"enum":["a","b",3]},"uniqueItems":true,"minItems":1,"maxItems":2})";
  for (const char* const in : {R"(["a"])", R"(["b", "a"])", R"([3,"a"])"}) EXPECT_TRUE(accepts(schema, in)) << in;
  for (const char* const out : {"[]", R"(["a","a"])", R"(["a","b",3])", R"(["c"])"})
    EXPECT_FALSE(accepts(schema, out)) << out;
}

TEST(JsonSchema, NotOfValuesAndTypes) {
  const char* const word = R"({"type":"string","not":{"enum":["no","none"]}})";
  for (const char* const in : {R"("yes")", R"("n")", R"("nones")", R"("")"}) EXPECT_TRUE(accepts(word, in)) << in;
  for (const char* const out : {R"("no")", R"("none")", R"("n\u006f")", "1"}) EXPECT_FALSE(accepts(word, out)) << out;
  const char* const some = R"({"not":{"type":"null"}})";
  EXPECT_TRUE(accepts(some, "[null]"));
  EXPECT_FALSE(accepts(some, "null"));
  EXPECT_TRUE(accepts(R"({"enum":[1,2,3],"not":{"const":2}})", "3"));
  EXPECT_FALSE(accepts(R"({"enum":[1,2,3],"not":{"const":2}})", "2"));
  EXPECT_TRUE(accepts(R"({"type":["boolean","null"],"not":{"enum":[true,null]}})", "false"));
  EXPECT_FALSE(accepts(R"({"type":["boolean","null"],"not":{"enum":[true,null]}})", "null"));
}

TEST(JsonSchema, ConditionsOnOneProperty) {
  const char* const shape = R"({"type":"object","properties":{"kind":{"enum":["circle","square"]}},"required":["kind"],
      "if":{"properties":{"kind":{"const":"circle"}}},
      "then":{"properties":{"radius":{"type":"integer"}},"required":["radius"]},
      "else":{"properties":{"side":{"type":"integer"}},"required":["side"]}})";
  EXPECT_TRUE(accepts(shape, R"({"kind":"circle","radius":1})"));
  EXPECT_TRUE(accepts(shape, R"({"kind":"square","side":1})"));
  EXPECT_FALSE(accepts(shape, R"({"kind":"square","radius":1})"));
  EXPECT_FALSE(accepts(shape, R"({"kind":"circle","side":1})"));
  EXPECT_FALSE(accepts(shape, R"({"side":1})"));
}

TEST(JsonSchema, MembersNamedByAPattern) {
  const char* const schema =
      R"({"type":"object","patternProperties":{"^x-[a-z]+$":{"type":"integer"}},"additionalProperties":false})";
  for (const char* const in : {"{}", R"({"x-a": 1})", R"({"x-a":1,"x-bc":2})"}) EXPECT_TRUE(accepts(schema, in)) << in;
  for (const char* const out : {R"({"y":1})", R"({"x-":1})", R"({"x-a":"1"})"})
    EXPECT_FALSE(accepts(schema, out)) << out;
}

TEST(JsonSchema, FormatsAndPatterns) {
  EXPECT_TRUE(accepts(R"({"type":"string","format":"date"})", "\"2024-02-28\""));
  EXPECT_FALSE(accepts(R"({"type":"string","format":"date"})", "\"2024-13-01\""));
  EXPECT_TRUE(accepts(R"({"type":"string","format":"uuid"})", "\"123e4567-e89b-12d3-a456-426614174000\""));
  EXPECT_TRUE(accepts(R"({"type":"string","format":"email"})", "\"a.b@c-d.org\""));
  EXPECT_TRUE(accepts(R"({"type":"string","format":"made-up"})", "\"anything\""));
  EXPECT_TRUE(accepts(R"({"pattern":"b+|^c$"})", "\"abbc\""));
  EXPECT_TRUE(accepts(R"({"pattern":"b+|^c$"})", "\"c\""));
  EXPECT_FALSE(accepts(R"({"pattern":"b+|^c$"})", "\"cd\""));
  EXPECT_TRUE(accepts(R"({"pattern":"^\"\\t$"})", R"("\"\t")"));
}

TEST(JsonSchema, PatternsOfCharactersBeyondAscii) {
  const char* const chinese = R"({"pattern":"^[\\u4e00-\\u9fa5A-Z]{1,3}$"})";
  for (const char* const in : {"\"中文\"", "\"一龥A\""}) EXPECT_TRUE(accepts(chinese, in)) << in;
  for (const char* const out : {"\"\"", "\"龦\"", "\"ぁ\"", "\"a\"", "\"中文中文\"", "\"\xE4\xB8\""})
    EXPECT_FALSE(accepts(chinese, out)) << out;
  const char* const raw = R"({"pattern":"^[α-ωé\\ud83d\\ude00-🙏]\\x41\\u00df$"})";
  for (const char* const in : {"\"λAß\"", "\"éAß\"", "\"😀Aß\"", "\"🙏Aß\""}) EXPECT_TRUE(accepts(raw, in)) << in;
  for (const char* const out : {"\"ώAß\"", "\"🙐Aß\"", "\"λAs\""}) EXPECT_FALSE(accepts(raw, out)) << out;
}

TEST(JsonSchema, FormatsOfTheStandardAreKept) {
  const std::pair<const char*, std::vector<const char*>> good[] = {
      {"hostname", {"localhost", "a-1.example.org"}},
      {"uri", {"https://example.org:8080/a/%20b?c=d#e", "s3://bucket"}},
      {"ipv6", {"::", "::1", "fe80::1:2", "1:2:3:4:5:6:7:8"}},
      {"duration", {"P3W", "P1Y2M3D", "PT5H30M"}},
      {"json-pointer", {"", "/a/b~0c"}},
  };
  const std::pair<const char*, std::vector<const char*>> bad[] = {
      {"hostname", {"a b", "-a.org", "a..b"}}, {"uri", {"no uri", "https:// x", "//host"}},
      {"ipv6", {"1:2:3", "::1::", "12345::"}}, {"duration", {"P", "PT", "3W"}},
      {"json-pointer", {"a", "/~2"}},
  };
  const auto check = [](const auto& cases, bool expected) {
    for (const auto& [format, texts] : cases) {
      const std::string schema = json::serialize(json::object{{"type", "string"}, {"format", format}});
      for (const char* const text : texts)
        EXPECT_EQ(accepts(schema.c_str(), json::serialize(json::string(text)).c_str()), expected) << format << text;
    }
  };
  check(good, true);
  check(bad, false);
}

TEST(JsonSchema, OneOfIsKeptWhereItsSchemasExcludeEachOther) {
  const auto compiles = [](const char* schema) { return Grammar::json_schema(json::parse(schema)).ok(); };
  const char* const exclusive[] = {
      R"({"oneOf":[{"type":"string"},{"type":"integer"},{"type":"array"}]})",
      R"({"oneOf":[{"const":"a"},{"enum":["b",1]},{"type":"null"}]})",
      R"({"oneOf":[{"type":"integer","maximum":5},{"type":"number","exclusiveMinimum":5}]})",
      R"({"oneOf":[{"type":"string","maxLength":2},{"type":"string","minLength":3}]})",
      R"({"oneOf":[{"$ref":"#/$defs/cat"},{"$ref":"#/$defs/dog"}],"$defs":{)"
      R"("cat":{"type":"object","properties":{"kind":{"const":"cat"},"n":{"type":"integer"}},"required":["kind"]},)"
      R"("dog":{"type":"object","properties":{"kind":{"const":"dog"}},"required":["kind"]}}})",
      R"({"type":"object","oneOf":[{"properties":{"a":{}},"required":["a"]},{"properties":{"b":{}},"required":["b"]}]})",
      R"({"oneOf":[{"anyOf":[{"type":"null"},{"type":"string"}]},{"allOf":[{"type":"boolean"}]}]})",
  };
  for (const char* const schema : exclusive) EXPECT_TRUE(compiles(schema)) << schema;
  const char* const overlapping[] = {
      R"({"oneOf":[{"type":"number"},{"type":"integer"}]})",
      R"({"oneOf":[{},{"type":"string"}]})",
      R"({"oneOf":[{"enum":["a","b"]},{"enum":["b","c"]}]})",
      R"({"oneOf":[{"type":"integer","maximum":5},{"type":"number","minimum":5}]})",
      R"({"oneOf":[{"type":"string"},{"properties":{"a":{"type":"null"}}}]})",
      R"({"type":"object","properties":{"a":{},"b":{}},"oneOf":[{"required":["a"]},{"required":["b"]}]})",
      R"({"oneOf":[{"type":"object","properties":{"a":{"const":1}}},{"type":"object","properties":{"a":{"const":2}}}]})",
      R"({"oneOf":[{"$ref":"#/$defs/a"},{"$ref":"#/$defs/a"}],"$defs":{"a":{"type":"string"}}})",
      R"({"oneOf":[{"type":"object","additionalProperties":true,"required":["a"],"properties":{"a":{}}},)"
      R"({"type":"object","required":["b"],"properties":{"b":{}}}]})",
  };
  for (const char* const schema : overlapping) EXPECT_FALSE(compiles(schema)) << schema;
}

// Readers have doubles: what is written beside an open bound must not become the bound.
TEST(JsonSchema, OpenBoundsHoldForDoublesToo) {
  const char* const open = R"({"type":"number","exclusiveMinimum":1000000000000,"exclusiveMaximum":1000000000002})";
  EXPECT_TRUE(accepts(open, "1000000000000.01"));
  EXPECT_TRUE(accepts(open, "1000000000001.99"));
  EXPECT_FALSE(accepts(open, "1000000000000.00000004"));
  EXPECT_FALSE(accepts(open, "1000000000001.99999"));
  const char* const hundred = R"({"type":"number","minimum":0,"exclusiveMaximum":100})";
  EXPECT_TRUE(accepts(hundred, "99.999999999999"));
  EXPECT_FALSE(accepts(hundred, "99.999999999999999"));
  EXPECT_TRUE(accepts(R"({"type":"number","minimum":0})", "7.25"));
  EXPECT_TRUE(accepts(R"({"type":"number","minimum":0.12345678901234568,"maximum":0.2})", "0.12345678901234568"));
}

TEST(JsonSchema, ManyValuesAndAmbiguousPatternsStayBounded) {
  json::array values;
  for (int i = 0; i < 3000; ++i) values.push_back(json::string("value " + std::to_string(i)));
  const auto many = Grammar::json_schema(json::object{{"enum", values}}).value();
  for (int i = 0; i < 3000; ++i) EXPECT_TRUE(many->matches("\"value " + std::to_string(i) + "\""));
  EXPECT_FALSE(many->matches("\"value 3000\""));
  const auto message = [](const char* pattern) {
    return Grammar::json_schema(json::object{{"pattern", pattern}}).error().message;
  };
  EXPECT_THAT(message("^(a{1,1000}){1000}$"), testing::HasSubstr("counts within counts"));
  EXPECT_THAT(message("^((a?){1000}){1000}$"), testing::HasSubstr("counted repetition"));
}

TEST(JsonSchema, ErrorsNameTheKeyword) {
  const auto message = [](const char* schema) {
    const auto grammar = Grammar::json_schema(json::parse(schema));
    return grammar.ok() ? std::string("compiled") : grammar.error().message;
  };
  EXPECT_EQ(message(R"({"properties":{"a":{"contains":{}}}})"),
            "the keyword contains at schema.properties.a is not supported in constrained output");
  EXPECT_THAT(message(R"({"properties":{"a":{"not":{}}}})"), testing::HasSubstr("another at schema.properties.a"));
  EXPECT_THAT(message(R"({"if":{"minProperties":1},"then":{}})"), testing::HasSubstr("schema"));
  EXPECT_THAT(message(R"({"multipleOf":0.1})"), testing::HasSubstr("a whole number at schema.multipleOf"));
  EXPECT_THAT(message(R"({"items":{"type":"string"},"uniqueItems":true})"), testing::HasSubstr("uniqueItems"));
  EXPECT_THAT(message(R"({"patternProperties":{"^a":{},"b$":{}}})"), testing::HasSubstr("one pattern"));
  EXPECT_THAT(message(R"({"type":"string","not":{"type":"string"}})"), testing::HasSubstr("found none"));
  EXPECT_THAT(message(R"({"not":{"type":"integer"}})"), testing::HasSubstr("not integers"));
  EXPECT_THAT(message(R"({"oneOf":[{"type":"null"},{"type":"number"},{"type":"integer"}]})"),
              testing::HasSubstr("found 1 and 2 at schema.oneOf"));
  EXPECT_THAT(message(R"({"format":"regex"})"), testing::HasSubstr("the format regex at schema"));
  EXPECT_THAT(message(R"({"format":"date","pattern":"^2"})"), testing::HasSubstr("pattern beside format"));
  EXPECT_EQ(message("[]"), "expected a schema at schema, found an array");
  EXPECT_EQ(message(R"({"type":"text"})"),
            "expected object, array, string, number, integer, boolean or null at schema.type, found \"text\"");
  EXPECT_THAT(message(R"({"$ref":"#/$defs/x"})"), testing::HasSubstr("found \"#/$defs/x\""));
  EXPECT_THAT(message(R"({"$ref":"#"})"), testing::HasSubstr("without end"));
  EXPECT_THAT(message(R"({"properties":{"a":{"$ref":"#"}},"required":["a"]})"), testing::HasSubstr("without end"));
  EXPECT_THAT(message(R"x({"pattern":"(?=a)"})x"), testing::HasSubstr("look-around"));
  EXPECT_THAT(message(R"({"pattern":"\\ud800"})"), testing::HasSubstr("not half of one"));
  EXPECT_THAT(message(R"({"pattern":"\\u12"})"), testing::HasSubstr("4 hexadecimal digits"));
  EXPECT_THAT(message(R"({"pattern":"[^é]"})"), testing::HasSubstr("negated class"));
  EXPECT_THAT(message(R"({"pattern":"[b-a]"})"), testing::HasSubstr("ascending range"));
  EXPECT_THAT(message(R"({"type":"number","minimum":1e20})"),
              testing::HasSubstr("at most 18 digits at schema.minimum"));
  EXPECT_THAT(message(R"({"type":"integer","minimum":2,"maximum":1})"), testing::HasSubstr("minimum below maximum"));
  EXPECT_THAT(message(R"({"allOf":[{"type":"string"},{"type":"null"}]})"), testing::HasSubstr("schemas that agree"));
}

}  // namespace
}  // namespace spillway::text
