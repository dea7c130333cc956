// The tests of "is".
#include <cmath>

#include "text/jinja_interpreter.h"
#include "text/jinja_string.h"

namespace spillway::text::jinja {

namespace {

bool is_iterable(const Value& v) { return v.is_list() || v.is_dict() || v.is_string() || v.is_undefined(); }

int64_t integer_of(const Value& value) {
  if (!value.is_integral()) fail(std::string("expected an integer, found ") + value.type_name());
  return value.integer();
}

int64_t remainder(const Value& value, int64_t by) {
  return binary_operation(Op::kMod, integer_of(value), by).integer();
}

bool comparison_test(const std::string& name, const Value& v, const Value& other, bool& out) {
  if (name == "equalto" || name == "eq" || name == "==") {
    out = equal(v, other);
  } else if (name == "ne" || name == "!=") {
    out = !equal(v, other);
  } else if (name == "lt" || name == "lessthan" || name == "<") {
    out = compare(v, other, "<") == -1;
  } else if (name == "le" || name == "<=") {
    out = compare(v, other, "<=") <= 0;
  } else if (name == "gt" || name == "greaterthan" || name == ">") {
    out = compare(v, other, ">") == 1;
  } else if (name == "ge" || name == ">=") {
    const int order = compare(v, other, ">=");
    out = order == 0 || order == 1;
  } else if (name == "in") {
    out = contains(other, v);
  } else if (name == "sameas") {
    out = v.same_object(other);
  } else if (name == "divisibleby") {
    out = remainder(v, integer_of(other)) == 0;
  } else {
    return false;
  }
  return true;
}

}  // namespace

bool Interpreter::test(const std::string& name, const Value& v, const Arguments& given) {
  step();
  if (name == "defined") return !v.is_undefined();
  if (name == "undefined") return v.is_undefined();
  if (name == "none") return v.is_none();
  if (name == "string") return v.is_string();
  if (name == "number") return v.is_number();
  if (name == "mapping") return v.is_dict();
  if (name == "iterable") return is_iterable(v);
  if (name == "sequence") {
    return is_iterable(v) && !(v.is_list() && v.list().kind == Sequence::kIterator);
  }
  if (name == "boolean") return v.is_bool();
  if (name == "true") return v.is_bool() && v.boolean();
  if (name == "false") return v.is_bool() && !v.boolean();
  if (name == "integer") return v.is_int();
  if (name == "float") return v.is_float();
  if (name == "callable") return v.is_callable();
  if (name == "odd") return remainder(v, 2) == 1;
  if (name == "even") return remainder(v, 2) == 0;
  if (name == "lower") return all_of_class(to_text(v), CharacterClass::kLower);
  if (name == "upper") return all_of_class(to_text(v), CharacterClass::kUpper);
  if (name == "escaped") return false;
  static constexpr std::string_view kWithArgument =
      " equalto eq == ne != lt lessthan < le <= gt greaterthan > ge >= in sameas divisibleby ";
  if (kWithArgument.find(" " + name + " ") == std::string_view::npos) fail("No test named '" + name + "'.");
  bool out = false;
  comparison_test(name, v, given.need(0, "other"), out);
  return out;
}

}  // namespace spillway::text::jinja
