#include <fmt/format.h>

#include <algorithm>
#include <boost/json/object.hpp>
#include <cmath>

#include "text/json_schema.h"

namespace spillway::text {

namespace json = boost::json;

namespace {

constexpr int64_t kMost = 999'999'999'999'999;

std::string power_digits(int64_t value) { return fmt::format("{}", value); }

// Numbers of the same length from low to high (as decimal text), both included.
Element same_length(std::string_view low, std::string_view high, JsonRules& json) {
  GrammarRules& rules = json.rules();
  if (low.empty()) return rules.one_of({{}});
  const std::string nines(low.size() - 1, '9'), zeros(low.size() - 1, '0');
  if (low[0] == high[0])
    return rules.concat({rules.range(low[0], low[0]), same_length(low.substr(1), high.substr(1), json)});
  int first = low[0], last = high[0];
  std::vector<Sequence> out;
  if (low.substr(1) != zeros)
    out.push_back({rules.range(first, first), same_length(low.substr(1), nines, json)}), ++first;
  if (high.substr(1) != nines)
    out.push_back({rules.range(last, last), same_length(zeros, high.substr(1), json)}), --last;
  if (first <= last) {
    const int rest = int(low.size()) - 1;
    out.push_back({rules.range(first, last), rules.repeat(json.digit(), rest, rest)});
  }
  return rules.one_of(std::move(out));
}

// 0 <= least <= most
Element naturals_between(int64_t least, int64_t most, JsonRules& json) {
  std::vector<Sequence> out;
  for (int64_t low = least; low <= most;) {
    const std::string text = power_digits(low);
    const int64_t high = std::min(most, int64_t(std::pow(10, double(text.size()))) - 1);
    out.push_back({same_length(text, power_digits(high), json)});
    low = high + 1;
  }
  return json.rules().one_of(std::move(out));
}

// Magnitudes from least to most with an optional fraction; least_open leaves out the bound itself, most likewise.
Element magnitudes(int64_t least, int64_t most, bool least_open, bool most_open, JsonRules& json) {
  GrammarRules& rules = json.rules();
  const Element zeros = rules.concat({rules.bytes("."), rules.repeat(rules.bytes("0"), 1, 4)});
  const Element some = rules.concat({rules.bytes("."), rules.repeat(rules.bytes("0"), 0, 8), rules.range('1', '9'),
                                     rules.repeat(json.digit(), 0, 6)});
  std::vector<Sequence> out;
  const auto exactly = [&](int64_t value) { return rules.literal(fmt::format("{}", value)); };
  if (least < most) {
    out.push_back({exactly(least), least_open ? some : rules.optional(json.fraction())});
    if (least + 1 < most) out.push_back({naturals_between(least + 1, most - 1, json), rules.optional(json.fraction())});
  }
  if (!most_open && (least < most || !least_open)) out.push_back({exactly(most), rules.optional(zeros)});
  return rules.one_of(std::move(out));
}

Result<bool> read_bound(const json::object& schema, std::string_view key, const std::string& path, int64_t& out) {
  const json::value* value = schema.if_contains(key);
  if (!value) return false;
  double number = 0;
  if (value->is_int64()) {
    number = double(value->get_int64());
  } else if (value->is_uint64()) {
    number = double(value->get_uint64());
  } else if (value->is_double()) {
    number = value->get_double();
  } else {
    return invalid(fmt::format("expected a number at {}.{}", path, key));
  }
  number = std::clamp(number, -double(kMost), double(kMost));
  if (number != std::floor(number))
    return unsupported(fmt::format("expected a whole number at {}.{}, found {}", path, key, number));
  out = int64_t(number);
  return true;
}

}  // namespace

Result<NumberBounds> parse_number_bounds(const json::object& schema, const std::string& path) {
  NumberBounds bounds;
  int64_t open = 0;
  SW_ASSIGN(const bool least, read_bound(schema, "minimum", path, bounds.least));
  SW_ASSIGN(const bool open_least, read_bound(schema, "exclusiveMinimum", path, open));
  if (open_least && (!least || open >= bounds.least)) bounds.least = open, bounds.open_least = true;
  SW_ASSIGN(const bool most, read_bound(schema, "maximum", path, bounds.most));
  SW_ASSIGN(const bool open_most, read_bound(schema, "exclusiveMaximum", path, open));
  if (open_most && (!most || open <= bounds.most)) bounds.most = open, bounds.open_most = true;
  return bounds;
}

Element integers_between(int64_t least, int64_t most, JsonRules& json) {
  GrammarRules& rules = json.rules();
  std::vector<Sequence> out;
  if (least < 0) out.push_back({rules.bytes("-"), naturals_between(std::max<int64_t>(1, -most), -least, json)});
  if (most >= 0) out.push_back({naturals_between(std::max<int64_t>(0, least), most, json)});
  return rules.one_of(std::move(out));
}

Result<Element> numbers_between(const NumberBounds& bounds, bool integer, const std::string& path, JsonRules& json) {
  const int64_t least = bounds.least + (integer && bounds.open_least ? 1 : 0);
  const int64_t most = bounds.most - (integer && bounds.open_most ? 1 : 0);
  const bool open = !integer && (bounds.open_least || bounds.open_most);
  if (least > most || (least == most && open))
    return invalid(fmt::format("expected minimum below maximum at {}", path));
  if (integer) return integers_between(least, most, json);
  GrammarRules& rules = json.rules();
  std::vector<Sequence> out;
  if (least < 0) {
    const bool below_zero = most < 0;
    out.push_back({rules.bytes("-"), magnitudes(below_zero ? -most : 0, -least, below_zero ? bounds.open_most : true,
                                                bounds.open_least, json)});
  }
  if (most > 0) {
    const bool above_zero = least > 0;
    out.push_back({magnitudes(above_zero ? least : 0, most, least >= 0 && bounds.open_least, bounds.open_most, json)});
  } else if (most == 0 && !bounds.open_most) {
    out.push_back({rules.bytes("0")});
  }
  return rules.one_of(std::move(out));
}

}  // namespace spillway::text
