// JSON Schema as a grammar: what a model may write so that the result conforms. The grammar may be narrower than the
// schema (properties come in the order of the schema, once; without "additionalProperties" there are none but those
// listed; white space is bounded, numbers have at most 15 digits, strings with a maxLength beyond 4096 stop there),
// never wider. Understood: type (also a list), nullable, enum, const, properties, required, additionalProperties,
// items, prefixItems, minItems, maxItems, minLength, maxLength, pattern (a subset), format (those of JSON Schema but
// regex; other names are annotations), minimum, maximum, exclusiveMinimum, exclusiveMaximum, multipleOf (whole
// numbers), uniqueItems (of an enum), patternProperties (one pattern, no properties beside it), not (of enum, const or
// type), if/then/else (on one property of enum or const), anyOf, oneOf (of schemas that exclude each other), allOf
// (merged), $ref within the document, $defs. Other keywords that constrain are errors that name them; unknown ones are
// annotations.
#pragma once

#include <boost/json/value.hpp>
#include <string>

#include "text/grammar_json.h"

namespace spillway::text {

Result<Element> compile_json_schema(const boost::json::value& schema, const std::string& path, JsonRules& json);

// One schema that asks for both. An error where they say different things that cannot be joined.
Result<boost::json::object> merge_schemas(const boost::json::object& one, const boost::json::object& other,
                                          const std::string& path);

// A regular expression (subset: literals, classes, groups, alternatives, repetition, anchors at the ends) over the
// characters of a string, as they are written in JSON. Matches anywhere unless anchored, as JSON Schema has it.
Result<Element> compile_string_pattern(std::string_view pattern, const std::string& path, JsonRules& json);

// Integers from least to most, both included; |bounds| < 10^18.
Element integers_between(int64_t least, int64_t most, JsonRules& json);

struct Decimal {
  bool negative = false;
  int64_t whole = 0;     // of its magnitude, below 10^18
  std::string fraction;  // digits after the point, the last of them not 0
};

// Where the schema says nothing, numbers have up to 15 digits before the point, which every reader keeps.
struct NumberBounds {
  Decimal least{true, 999'999'999'999'999, ""};
  Decimal most{false, 999'999'999'999'999, ""};
  bool open_least = false;  // the bound itself is out
  bool open_most = false;
  bool has_least = false;
  bool has_most = false;

  int64_t least_integer() const;
  int64_t most_integer() const;
};
Result<NumberBounds> parse_number_bounds(const boost::json::object& schema, const std::string& path);
Result<Element> numbers_between(const NumberBounds& bounds, bool integer, const std::string& path, JsonRules& json);

}  // namespace spillway::text
