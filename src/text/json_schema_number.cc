#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <boost/json/object.hpp>
#include <boost/json/serialize.hpp>
#include <charconv>
#include <cmath>
#include <optional>

#include "text/json_schema.h"

namespace spillway::text {

namespace json = boost::json;

namespace {

constexpr int64_t kMost = 999'999'999'999'999'999;
constexpr size_t kFractionMax = 20;
constexpr int kDigitsExact = 15;  // decimals of so many digits are apart as doubles too

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

// What may follow the whole part of a magnitude that lies between two others: a row of digits after the point, ended
// where it may. A side that the digits so far have left behind is null.
class Fractions {
 public:
  struct Side {
    std::string_view digits;
    bool open = false;
  };
  Fractions(const Side* low, const Side* high, int digits_max, JsonRules& json)
      : low_(low), high_(high), digits_max_(digits_max), json_(json) {}

  // The optional point and digits; nothing when no magnitude with this whole part fits.
  std::optional<Element> any() {
    GrammarRules& rules = json_.rules();
    std::vector<Sequence> out;
    if (may_end(0, low_, high_)) out.push_back({});
    if (const auto some = digits(0, low_, high_)) out.push_back({rules.bytes("."), *some});
    if (out.empty()) return std::nullopt;
    return rules.one_of(std::move(out));
  }

 private:
  static constexpr int kMore = 7;  // digits after those that decide

  static char digit_at(const Side& side, size_t at) { return at < side.digits.size() ? side.digits[at] : '0'; }
  // The digits before `at` are the bound's own: is the number that ends here within it?
  static bool within_low(const Side* low, size_t at) { return !low || (at >= low->digits.size() && !low->open); }
  static bool within_high(const Side* high, size_t at) { return !high || at < high->digits.size() || !high->open; }
  static bool may_end(size_t at, const Side* low, const Side* high) {
    return within_low(low, at) && within_high(high, at);
  }

  // At least one more digit.
  std::optional<Element> digits(size_t at, const Side* low, const Side* high) {
    GrammarRules& rules = json_.rules();
    const int more = std::min(kMore, digits_max_ - int(at));
    if (more < 1) return std::nullopt;
    if (!low && !high) return rules.repeat(json_.digit(), 1, more);
    const bool exhausted = (!low || at >= low->digits.size()) && (!high || at >= high->digits.size());
    if (exhausted && high) {  // only zeros leave it at the upper bound
      if (high->open || (low && low->open)) return std::nullopt;
      return rules.repeat(rules.bytes("0"), 1, std::min(4, more));
    }
    if (exhausted && !low->open) return rules.repeat(json_.digit(), 1, more);
    if (exhausted) {
      std::vector<Sequence> above;
      for (int zeros = 0; zeros < more; ++zeros) {
        above.push_back({rules.repeat(rules.bytes("0"), zeros, zeros), rules.range('1', '9'),
                         rules.repeat(json_.digit(), 0, more - 1 - zeros)});
      }
      return rules.one_of(std::move(above));
    }
    const char least = low ? digit_at(*low, at) : '0', most = high ? digit_at(*high, at) : '9';
    std::vector<Sequence> out;
    int first = least, last = most;
    const auto exactly = [&](char digit, const Side* still_low, const Side* still_high) {
      const Element one = rules.range(digit, digit);
      if (may_end(at + 1, still_low, still_high)) out.push_back({one});
      if (const auto rest = digits(at + 1, still_low, still_high)) out.push_back({one, *rest});
    };
    if (low && high && least == most) {
      exactly(least, low, high);
      last = first - 1;
    } else {
      if (low) exactly(least, low, nullptr), ++first;
      if (high) exactly(most, nullptr, high), --last;
    }
    if (first <= last) out.push_back({rules.range(first, last), rules.repeat(json_.digit(), 0, more - 1)});
    if (out.empty()) return std::nullopt;
    return rules.one_of(std::move(out));
  }

  const Side* low_;
  const Side* high_;
  int digits_max_;
  JsonRules& json_;
};

// Digits after the point with which a number is still told from an open bound once both are doubles.
int digits_beside(int64_t whole) { return std::max(0, kDigitsExact - int(power_digits(whole).size())); }

// Magnitudes from least to most with an optional fraction.
void add_magnitudes(const Decimal& least, const Decimal& most, bool least_open, bool most_open, std::string_view sign,
                    JsonRules& json, std::vector<Sequence>& out) {
  GrammarRules& rules = json.rules();
  const Fractions::Side low{least.fraction, least_open}, high{most.fraction, most_open};
  const auto with_whole = [&](int64_t whole, const Fractions::Side* from, const Fractions::Side* to) {
    int digits = digits_beside(whole);
    for (const Fractions::Side* side : {from, to}) {
      if (side && !side->open) digits = std::max(digits, int(side->digits.size()));
    }
    const auto rest = Fractions(from, to, digits, json).any();
    if (rest) out.push_back({rules.literal(fmt::format("{}{}", sign, whole)), *rest});
  };
  if (least.whole == most.whole) return with_whole(least.whole, &low, &high);
  with_whole(least.whole, &low, nullptr);
  with_whole(most.whole, nullptr, &high);
  if (least.whole + 1 < most.whole) {
    const int digits = most_open ? digits_beside(most.whole) : kDigitsExact;
    const Element fraction =
        digits < 1 ? rules.one_of({{}}) : rules.concat({rules.bytes("."), rules.repeat(json.digit(), 1, digits)});
    out.push_back({rules.literal(std::string(sign)), naturals_between(least.whole + 1, most.whole - 1, json),
                   rules.optional(fraction)});
  }
}

int compare_magnitudes(const Decimal& a, const Decimal& b) {
  if (a.whole != b.whole) return a.whole < b.whole ? -1 : 1;
  return a.fraction.compare(b.fraction);
}

int compare(const Decimal& a, const Decimal& b) {
  if (a.negative != b.negative) return a.negative ? -1 : 1;
  return a.negative ? compare_magnitudes(b, a) : compare_magnitudes(a, b);
}

// The bound as written, or as the shortest decimal that means the same double.
Result<std::optional<Decimal>> read_bound(const json::object& schema, std::string_view key, const std::string& path) {
  const json::value* value = schema.if_contains(key);
  if (!value) return std::optional<Decimal>();
  if (!value->is_number()) return invalid(fmt::format("expected a number at {}.{}", path, key));
  const double number = value->to_number<double>();
  if (!(std::abs(number) < double(kMost))) {
    // 2^63 and its like say no more than that numbers end somewhere.
    const bool wide = (number < 0) == key.ends_with("inimum");
    if (wide && !std::isnan(number)) return std::optional<Decimal>();
    return unsupported(fmt::format("expected a bound of at most 18 digits at {}.{}, found {}", path, key, number));
  }
  Decimal out;
  std::string text;
  if (value->is_double()) {
    std::array<char, 400> buffer{};
    const auto end = std::to_chars(buffer.begin(), buffer.end(), number, std::chars_format::fixed).ptr;
    text.assign(buffer.begin(), end);
  } else {
    text = json::serialize(*value);
  }
  const size_t point = text.find('.');
  if (point != std::string::npos) out.fraction = text.substr(point + 1);
  out.fraction.erase(out.fraction.find_last_not_of('0') + 1);
  if (out.fraction.size() > kFractionMax) {
    return unsupported(fmt::format("expected a bound of at most {} digits after the point at {}.{}, found {}",
                                   kFractionMax, path, key, number));
  }
  text.resize(std::min(point, text.size()));
  out.negative = text.front() == '-';
  if (out.negative) text.erase(0, 1);
  std::from_chars(text.data(), text.data() + text.size(), out.whole);
  if (out.whole == 0 && out.fraction.empty()) out.negative = false;
  return std::optional<Decimal>(std::move(out));
}

}  // namespace

int64_t NumberBounds::least_integer() const {
  if (least.fraction.empty()) return (least.negative ? -least.whole : least.whole) + (open_least ? 1 : 0);
  return least.negative ? -least.whole : least.whole + 1;
}

int64_t NumberBounds::most_integer() const {
  if (most.fraction.empty()) return (most.negative ? -most.whole : most.whole) - (open_most ? 1 : 0);
  return most.negative ? -most.whole - 1 : most.whole;
}

Result<NumberBounds> parse_number_bounds(const json::object& schema, const std::string& path) {
  NumberBounds bounds;
  SW_ASSIGN(const auto minimum, read_bound(schema, "minimum", path));
  SW_ASSIGN(const auto above, read_bound(schema, "exclusiveMinimum", path));
  SW_ASSIGN(const auto maximum, read_bound(schema, "maximum", path));
  SW_ASSIGN(const auto below, read_bound(schema, "exclusiveMaximum", path));
  bounds.has_least = minimum || above;
  bounds.has_most = maximum || below;
  bounds.open_least = above && (!minimum || compare(*above, *minimum) >= 0);
  bounds.open_most = below && (!maximum || compare(*below, *maximum) <= 0);
  if (bounds.has_least) bounds.least = bounds.open_least ? *above : *minimum;
  if (bounds.has_most) bounds.most = bounds.open_most ? *below : *maximum;
  // The default of the other side gives way to a bound beyond it.
  if (!bounds.has_most && compare(bounds.least, bounds.most) >= 0) bounds.most.whole = kMost;
  if (!bounds.has_least && compare(bounds.least, bounds.most) >= 0) bounds.least.whole = kMost;
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
  const auto nothing = [&] { return invalid(fmt::format("expected minimum below maximum at {}", path)); };
  if (integer) {
    if (bounds.least_integer() > bounds.most_integer()) return nothing();
    return integers_between(bounds.least_integer(), bounds.most_integer(), json);
  }
  const int order = compare(bounds.least, bounds.most);
  if (order > 0 || (order == 0 && (bounds.open_least || bounds.open_most))) return nothing();
  const Decimal zero;
  std::vector<Sequence> out;
  if (bounds.least.negative) {  // -0 is left out
    const bool below = bounds.most.negative;
    add_magnitudes(below ? bounds.most : zero, bounds.least, below ? bounds.open_most : true, bounds.open_least, "-",
                   json, out);
  }
  if (!bounds.most.negative) {
    const bool above = !bounds.least.negative;
    if (above || compare(zero, bounds.most) < 0 || !bounds.open_most) {
      add_magnitudes(above ? bounds.least : zero, bounds.most, above && bounds.open_least, bounds.open_most, "", json,
                     out);
    }
  }
  return json.rules().one_of(std::move(out));
}

}  // namespace spillway::text
