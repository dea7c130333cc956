// Filters of one value: text, numbers, JSON.
#include <algorithm>
#include <charconv>
#include <cmath>

#include "text/jinja_interpreter.h"
#include "text/jinja_string.h"

namespace spillway::text::jinja {

namespace {

std::string escape_html(const std::string& text) {
  std::string out;
  for (char c : text) {
    switch (c) {
      case '&':
        out += "&amp;";
        break;
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '\'':
        out += "&#39;";
        break;
      case '"':
        out += "&#34;";
        break;
      default:
        out += c;
    }
  }
  return out;
}

// json.dumps as transformers sets it: characters as they are, no HTML escapes.
std::string tojson(const Value& input, const Arguments& given) {
  std::string indent_text;
  const Value* indent = given.get(1, "indent");
  if (given.positional.size() == 1) indent = given.get(SIZE_MAX, "indent");
  if (indent && indent->is_none()) indent = nullptr;
  if (indent && indent->is_integral()) indent_text.assign(size_t(std::clamp<int64_t>(indent->integer(), 0, 32)), ' ');
  if (indent && indent->is_string()) indent_text = indent->string();
  std::string item = indent ? "," : ", ";
  std::string key = ": ";
  if (const Value* separators = given.get(2, "separators"); separators && separators->is_list()) {
    const auto& parts = separators->list().items;
    if (parts.size() != 2) fail("expected two separators");
    item = to_text(parts[0]);
    key = to_text(parts[1]);
  }
  return to_json(input, indent ? &indent_text : nullptr, item, key, given.flag(0, "ensure_ascii", false),
                 given.flag(3, "sort_keys", false));
}

// Text of a number, Python's underscores and white space allowed. False when it is none.
bool parse_integer(const std::string& text, int64_t base, int64_t& out) {
  std::string digits(strip(text, nullptr, true, true));
  if (!digits.empty() && digits[0] == '+') digits.erase(0, 1);
  digits.erase(std::remove(digits.begin(), digits.end(), '_'), digits.end());
  if (base == 16 && (digits.starts_with("0x") || digits.starts_with("0X"))) digits.erase(0, 2);
  if (base == 8 && (digits.starts_with("0o") || digits.starts_with("0O"))) digits.erase(0, 2);
  if (base == 2 && (digits.starts_with("0b") || digits.starts_with("0B"))) digits.erase(0, 2);
  const auto parsed = std::from_chars(digits.data(), digits.data() + digits.size(), out, int(base));
  return !digits.empty() && parsed.ec == std::errc() && parsed.ptr == digits.data() + digits.size();
}

bool parse_float(const std::string& text, double& out) {
  std::string digits(strip(text, nullptr, true, true));
  if (!digits.empty() && digits[0] == '+') digits.erase(0, 1);
  const auto parsed = std::from_chars(digits.data(), digits.data() + digits.size(), out);
  return !digits.empty() && parsed.ec == std::errc() && parsed.ptr == digits.data() + digits.size();
}

Value to_integer(const Value& input, const Arguments& given) {
  const Value* otherwise = given.get(0, "default");
  const int64_t base = given.integer(1, "base", 10);
  if (base < 2 || base > 36) fail("expected a base of 2 to 36, found " + std::to_string(base));
  int64_t out = 0;
  double number = 0;
  if (input.is_integral()) return input.integer();
  if (input.is_string() && parse_integer(input.string(), base, out)) return out;
  if (input.is_float() || (input.is_string() && parse_float(input.string(), number))) {
    if (input.is_float()) number = input.number();
    if (std::isfinite(number) && std::abs(number) < 9.2e18) return int64_t(number);
  }
  return otherwise ? *otherwise : Value(int64_t(0));
}

Value to_float(const Value& input, const Arguments& given) {
  const Value* otherwise = given.get(0, "default");
  double number = 0;
  if (input.is_number()) return input.number();
  if (input.is_string() && parse_float(input.string(), number)) return number;
  return otherwise ? *otherwise : Value(0.0);
}

Value round_number(const Value& input, const Arguments& given) {
  if (!input.is_number()) fail(std::string("expected a number to round, found ") + input.type_name());
  const int64_t digits = std::clamp<int64_t>(given.integer(0, "precision", 0), -20, 20);
  const std::string* method = given.text(1, "method");
  const std::string how = method ? *method : "common";
  if (how == "common" && input.is_integral() && digits >= 0) return input.is_bool() ? Value(input.integer()) : input;
  const double scale = std::pow(10.0, double(digits));
  if (how == "ceil") return std::ceil(input.number() * scale) / scale;
  if (how == "floor") return std::floor(input.number() * scale) / scale;
  if (how != "common") fail("method must be common, ceil or floor");
  char buffer[400];
  if (digits >= 0) {
    std::snprintf(buffer, sizeof buffer, "%.*f", int(digits), input.number());
    return std::strtod(buffer, nullptr);
  }
  return std::nearbyint(input.number() * scale) / scale;
}

std::string indent_text(const std::string& text, const Arguments& given) {
  const Value* width = given.get(0, "width");
  std::string pad = "    ";
  if (width && width->is_string()) pad = width->string();
  if (width && width->is_integral()) pad.assign(size_t(std::clamp<int64_t>(width->integer(), 0, 200)), ' ');
  const bool first = given.flag(1, "first", false);
  const bool blank = given.flag(2, "blank", false);
  std::string out = first ? pad : "";
  std::vector<std::string> lines = split_lines(text + "\n", false);
  for (size_t i = 0; i < lines.size(); ++i) {
    if (i > 0) out += "\n" + (blank || !lines[i].empty() ? pad : "");
    out += lines[i];
  }
  return out;
}

std::string truncate(const std::string& text, const Arguments& given) {
  const int64_t length = given.integer(0, "length", 255);
  const bool kill_words = given.flag(1, "killwords", false);
  const std::string* end_given = given.text(2, "end");
  const std::string end = end_given ? *end_given : "...";
  const int64_t leeway = given.integer(3, "leeway", 5);
  const auto all = characters(text);
  const int64_t keep = length - int64_t(count_characters(end));
  if (keep < 0) fail("expected length >= " + std::to_string(count_characters(end)));
  if (int64_t(all.size()) <= keep + int64_t(count_characters(end)) + leeway) return text;
  std::string out;
  for (int64_t i = 0; i < keep; ++i) out += all[size_t(i)];
  const size_t space = out.rfind(' ');
  if (!kill_words && space != std::string::npos) out.resize(space);
  return out + end;
}

std::string center(const std::string& text, int64_t width) {
  const int64_t have = int64_t(count_characters(text));
  const int64_t pad = std::clamp<int64_t>(width, 0, 10000) - have;
  if (pad <= 0) return text;
  const int64_t left = pad / 2 + (pad & std::clamp<int64_t>(width, 0, 10000) & 1);
  return std::string(size_t(left), ' ') + text + std::string(size_t(pad - left), ' ');
}

bool text_filter(const std::string& name, const Value& input, const Arguments& given, Value& out) {
  if (name == "trim") {
    out = std::string(strip(to_text(input), given.text(0, "chars"), true, true));
  } else if (name == "upper") {
    out = upper(to_text(input));
  } else if (name == "lower") {
    out = lower(to_text(input));
  } else if (name == "title") {
    out = title_filter(to_text(input));
  } else if (name == "capitalize") {
    out = capitalize(to_text(input));
  } else if (name == "replace") {
    out = replace(to_text(input), to_text(given.need(0, "old")), to_text(given.need(1, "new")),
                  given.integer(2, "count", -1));
  } else if (name == "indent") {
    out = indent_text(to_text(input), given);
  } else if (name == "escape" || name == "e" || name == "forceescape") {
    out = escape_html(to_text(input));
  } else if (name == "string" || name == "safe") {
    out = to_text(input);
  } else if (name == "truncate") {
    out = truncate(to_text(input), given);
  } else if (name == "center") {
    out = center(to_text(input), given.integer(0, "width", 80));
  } else if (name == "wordcount") {
    out = int64_t(split(to_text(input), nullptr, -1).size());
  } else if (name == "format") {
    out = percent_format(to_text(input), given.positional);
  } else {
    return false;
  }
  return true;
}

}  // namespace

bool scalar_filter(Interpreter& interpreter, const std::string& name, const Value& input, const Arguments& given,
                   Value& out) {
  if (input.is_string()) interpreter.charge(input.string().size());
  if (text_filter(name, input, given, out)) return true;
  if (name == "tojson") {
    out = tojson(input, given);
  } else if (name == "default" || name == "d") {
    const Value* otherwise = given.get(0, "default_value");
    const bool take = input.is_undefined() || (given.flag(1, "boolean", false) && !input.truthy());
    out = !take ? input : otherwise ? *otherwise : Value("");
  } else if (name == "int") {
    out = to_integer(input, given);
  } else if (name == "float") {
    out = to_float(input, given);
  } else if (name == "round") {
    out = round_number(input, given);
  } else if (name == "abs") {
    if (!input.is_number()) fail(std::string("bad operand type for abs(): '") + input.type_name() + "'");
    if (input.is_float()) {
      out = std::abs(input.number());
    } else {
      out = input.integer() < 0 ? binary_operation(Op::kSub, int64_t(0), input) : Value(input.integer());
    }
  } else {
    return false;
  }
  return true;
}

Value Interpreter::filter(const std::string& name, const Value& input, const Arguments& given) {
  step();
  Deeper deeper(*this);
  Value out;
  if (!scalar_filter(*this, name, input, given, out) && !sequence_filter(*this, name, input, given, out)) {
    fail("No filter named '" + name + "'.");
  }
  if (out.is_string()) charge(out.string().size());
  if (out.is_list()) charge(out.list().items.size() * sizeof(Value));
  return out;
}

}  // namespace spillway::text::jinja
