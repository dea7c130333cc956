// Arithmetic of the Jinja interpreter, as Python computes; integers have 64 bits and overflow is an error.
#include <cmath>
#include <cstdio>

#include "text/jinja_interpreter.h"

namespace spillway::text::jinja {

namespace {

constexpr size_t kRepeatMax = size_t(16) << 20;
constexpr const char* kNames[] = {"+", "-", "*", "/", "//", "%", "** or pow()"};

[[noreturn]] void unsupported(Op op, const Value& a, const Value& b) {
  for (const Value* value : {&a, &b}) {
    if (value->is_undefined() && value->undefined().what) fail(*value->undefined().what);
  }
  if (op == Op::kAdd && a.is_string()) {
    fail(std::string("can only concatenate str (not \"") + b.type_name() + "\") to str");
  }
  fail(std::string("unsupported operand type(s) for ") + kNames[int(op)] + ": '" + a.type_name() + "' and '" +
       b.type_name() + "'");
}

[[noreturn]] void overflow() { fail("expected an integer of at most 64 bits, found a larger result"); }

int64_t integer_power(int64_t base, int64_t exponent) {
  int64_t result = 1;
  while (exponent > 0) {
    if ((exponent & 1) && __builtin_mul_overflow(result, base, &result)) overflow();
    exponent >>= 1;
    if (exponent > 0 && __builtin_mul_overflow(base, base, &base)) overflow();
  }
  return result;
}

Value integer_operation(Op op, int64_t a, int64_t b) {
  int64_t out = 0;
  bool over = false;
  switch (op) {
    case Op::kAdd:
      over = __builtin_add_overflow(a, b, &out);
      break;
    case Op::kSub:
      over = __builtin_sub_overflow(a, b, &out);
      break;
    case Op::kMul:
      over = __builtin_mul_overflow(a, b, &out);
      break;
    case Op::kFloorDiv:
    case Op::kMod: {
      if (b == 0) fail("integer division or modulo by zero");
      if (b == -1) {
        over = op == Op::kFloorDiv && __builtin_sub_overflow(int64_t(0), a, &out);
        break;
      }
      const int64_t quotient = a / b, remainder = a % b;
      const bool adjust = remainder != 0 && (remainder < 0) != (b < 0);
      out = op == Op::kFloorDiv ? quotient - adjust : remainder + (adjust ? b : 0);
      break;
    }
    case Op::kPow:
      if (b < 0) return std::pow(double(a), double(b));
      out = integer_power(a, b);
      break;
    default:
      if (b == 0) fail("division by zero");
      return double(a) / double(b);
  }
  if (over) overflow();
  return out;
}

Value float_operation(Op op, double a, double b) {
  switch (op) {
    case Op::kAdd:
      return a + b;
    case Op::kSub:
      return a - b;
    case Op::kMul:
      return a * b;
    case Op::kPow:
      return std::pow(a, b);
    default:
      break;
  }
  if (b == 0)
    fail(op == Op::kDiv ? "float division by zero" : op == Op::kMod ? "float modulo" : "float floor division by zero");
  if (op == Op::kDiv) return a / b;
  double remainder = std::fmod(a, b);
  if (remainder != 0 && (remainder < 0) != (b < 0)) remainder += b;
  if (op == Op::kMod) return remainder;
  return std::floor((a - remainder) / b + 0.5);
}

Value repeat(const Value& sequence, int64_t count) {
  const size_t times = count > 0 ? size_t(count) : 0;
  const size_t size = sequence.is_string() ? sequence.string().size() : sequence.list().items.size() * sizeof(Value);
  if (size > 0 && times > kRepeatMax / size) fail("expected a repeated value of at most 16 MiB, found a larger one");
  if (sequence.is_string()) {
    std::string out;
    out.reserve(size * times);
    for (size_t i = 0; size > 0 && i < times; ++i) out += sequence.string();
    return out;
  }
  std::vector<Value> out;
  const auto& items = sequence.list().items;
  for (size_t i = 0; size > 0 && i < times; ++i) out.insert(out.end(), items.begin(), items.end());
  return make_list(std::move(out), sequence.list().kind);
}

}  // namespace

Value binary_operation(Op op, const Value& a, const Value& b) {
  if (a.is_number() && b.is_number()) {
    return a.is_float() || b.is_float() ? float_operation(op, a.number(), b.number())
                                        : integer_operation(op, a.integer(), b.integer());
  }
  if (op == Op::kAdd) {
    if (a.is_string() && b.is_string()) {
      std::string out;
      out.reserve(a.string().size() + b.string().size());
      return out.append(a.string()).append(b.string());
    }
    if (a.is_list() && b.is_list() && a.list().kind == b.list().kind && a.list().kind != Sequence::kIterator) {
      std::vector<Value> out = a.list().items;
      out.insert(out.end(), b.list().items.begin(), b.list().items.end());
      return make_list(std::move(out), a.list().kind);
    }
  }
  const auto repeats = [](const Value& v) {
    return v.is_string() || (v.is_list() && v.list().kind != Sequence::kIterator);
  };
  if (op == Op::kMul && repeats(a) && b.is_integral()) return repeat(a, b.integer());
  if (op == Op::kMul && repeats(b) && a.is_integral()) return repeat(b, a.integer());
  if (op == Op::kMod && a.is_string()) {
    return percent_format(a.string(),
                          b.is_list() && b.list().kind == Sequence::kTuple ? b.list().items : std::vector<Value>{b});
  }
  unsupported(op, a, b);
}

std::string percent_format(const std::string& format, const std::vector<Value>& values) {
  std::string out;
  size_t next = 0;
  for (size_t i = 0; i < format.size(); ++i) {
    if (format[i] != '%') {
      out += format[i];
      continue;
    }
    const size_t from = i++;
    while (i < format.size() && std::string_view("-+ #0123456789.").find(format[i]) != std::string::npos) ++i;
    if (i >= format.size() || i - from > 8) fail("incomplete format");
    if (format[i] == '%') {
      out += '%';
      continue;
    }
    if (next >= values.size()) fail("not enough arguments for format string");
    const Value& value = values[next++];
    const std::string flags = format.substr(from, i - from);
    char buffer[400];
    if (format[i] == 's' || format[i] == 'r') {
      if (flags != "%") fail("expected %s without width, found '" + format.substr(from, i - from + 1) + "'");
      out += format[i] == 's' ? to_text(value) : to_repr(value);
    } else if ((format[i] == 'd' || format[i] == 'i' || format[i] == 'x') && value.is_number()) {
      const long long number =
          value.is_float() ? (long long)(std::trunc(value.number())) : (long long)(value.integer());
      std::snprintf(buffer, sizeof buffer, (flags + "ll" + format[i]).c_str(), number);
      out += buffer;
    } else if (std::string_view("feg").find(format[i]) != std::string::npos && value.is_number()) {
      std::snprintf(buffer, sizeof buffer, (flags + format[i]).c_str(), value.number());
      out += buffer;
    } else {
      fail(std::string("%") + format[i] + " format: a number is required, not " + value.type_name());
    }
  }
  if (next < values.size()) fail("not all arguments converted during string formatting");
  return out;
}

}  // namespace spillway::text::jinja
