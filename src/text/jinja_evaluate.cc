// The expressions half of the interpreter: names, attributes, items, slices, calls, global functions.
#include <algorithm>
#include <ctime>

#include "text/jinja_interpreter.h"
#include "text/jinja_string.h"

namespace spillway::text::jinja {

const Value* Arguments::get(size_t index, std::string_view name) const {
  if (index < positional.size()) return &positional[index];
  for (const auto& [key, value] : named) {
    if (key == name) return &value;
  }
  return nullptr;
}

bool Arguments::flag(size_t index, std::string_view name, bool otherwise) const {
  const Value* value = get(index, name);
  return value ? value->truthy() : otherwise;
}

int64_t Arguments::integer(size_t index, std::string_view name, int64_t otherwise) const {
  const Value* value = get(index, name);
  if (!value || value->is_none()) return otherwise;
  if (!value->is_integral()) fail("expected an integer for '" + std::string(name) + "', found " + value->type_name());
  return value->integer();
}

const std::string* Arguments::text(size_t index, std::string_view name) const {
  const Value* value = get(index, name);
  if (!value || value->is_none()) return nullptr;
  if (!value->is_string()) fail("expected a string for '" + std::string(name) + "', found " + value->type_name());
  return &value->string();
}

const Value& Arguments::need(size_t index, std::string_view name) const {
  const Value* value = get(index, name);
  if (!value) fail("expected an argument '" + std::string(name) + "', found none");
  return *value;
}

namespace {

constexpr std::string_view kGlobals[] = {"range", "dict", "namespace", "raise_exception", "strftime_now"};

std::string object_name(const Value& value) {
  return value.is_none() ? "None" : std::string(value.type_name()) + " object";
}

Value missing(const Value& base, const Value& key) {
  const std::string message = key.is_string() ? "'" + object_name(base) + "' has no attribute " + to_repr(key)
                                              : object_name(base) + " has no element " + to_repr(key);
  return Undefined{std::make_shared<const std::string>(message)};
}

[[noreturn]] void fail_undefined(const Value& value) {
  fail(value.undefined().what ? *value.undefined().what : "expected a defined value");
}

Value bound_method(const Value& self, const std::string& name) {
  auto method = std::make_shared<Callable>();
  method->kind = Callable::Kind::kMethod;
  method->name = name;
  method->self = self;
  return std::shared_ptr<const Callable>(std::move(method));
}

std::string now_text(const std::string& format) {
  const std::time_t now = std::time(nullptr);
  std::tm local{};
  localtime_r(&now, &local);
  if (format.empty()) return "";
  std::string out(256 + format.size() * 4, '\0');
  out.resize(std::strftime(out.data(), out.size(), format.c_str(), &local));
  return out;
}

}  // namespace

Value Interpreter::lookup(const std::string& name) const {
  for (const Scope* scope = scope_.get(); scope; scope = scope->parent.get()) {
    for (const auto& [key, value] : scope->variables) {
      if (key == name) return value;
    }
  }
  if (std::find(std::begin(kGlobals), std::end(kGlobals), name) != std::end(kGlobals)) {
    auto global = std::make_shared<Callable>();
    global->name = name;
    return std::shared_ptr<const Callable>(std::move(global));
  }
  return undefined_name(name);
}

Value Interpreter::evaluate(const Expression& node) {
  step();
  Deeper deeper(*this);
  position_ = node.position;
  return evaluate_node(node);
}

Value Interpreter::evaluate_node(const Expression& node) {
  using Kind = Expression::Kind;
  switch (node.kind) {
    case Kind::kConst:
      return node.value;
    case Kind::kName:
      return lookup(node.text);
    case Kind::kList:
    case Kind::kTuple: {
      std::vector<Value> items;
      for (const auto& item : node.items) items.push_back(evaluate(*item));
      charge(items.size() * sizeof(Value));
      return make_list(std::move(items), node.kind == Kind::kList ? Sequence::kList : Sequence::kTuple);
    }
    case Kind::kDict:
      return evaluate_dict(node);
    case Kind::kNot:
      return !evaluate(*node.items[0]).truthy();
    case Kind::kAnd: {
      Value left = evaluate(*node.items[0]);
      return left.truthy() ? evaluate(*node.items[1]) : left;
    }
    case Kind::kOr: {
      Value left = evaluate(*node.items[0]);
      return left.truthy() ? left : evaluate(*node.items[1]);
    }
    case Kind::kNegate:
      return binary_operation(Op::kSub, int64_t(0), evaluate(*node.items[0]));
    case Kind::kPlus:
      return binary_operation(Op::kAdd, int64_t(0), evaluate(*node.items[0]));
    case Kind::kBinary: {
      const Value left = evaluate(*node.items[0]);
      const Value right = evaluate(*node.items[1]);
      position_ = node.position;
      Value out = binary_operation(node.ops[0], left, right);
      if (out.is_string()) charge(out.string().size());
      if (out.is_list()) charge(out.list().items.size() * sizeof(Value));
      return out;
    }
    case Kind::kConcat: {
      std::string out;
      for (const auto& item : node.items) out += to_text(evaluate(*item));
      charge(out.size());
      return out;
    }
    case Kind::kCompare:
      return evaluate_compare(node);
    case Kind::kConditional:
      if (evaluate(*node.items[1]).truthy()) return evaluate(*node.items[0]);
      if (node.items[2]) return evaluate(*node.items[2]);
      return Undefined{std::make_shared<const std::string>(
          "the inline if-expression evaluated to false and no else section was defined.")};
    case Kind::kAttribute:
      return attribute(evaluate(*node.items[0]), node.text);
    case Kind::kSubscript: {
      const Value base = evaluate(*node.items[0]);
      return subscript(base, evaluate(*node.items[1]));
    }
    case Kind::kSlice:
      return evaluate_slice(node);
    case Kind::kCall: {
      const Value callee = evaluate(*node.items[0]);
      const Arguments given = arguments(node);
      position_ = node.position;
      return call(callee, given);
    }
    case Kind::kFilter: {
      const Value input = node.items[0] ? evaluate(*node.items[0]) : filter_input_;
      const Arguments given = arguments(node);
      position_ = node.position;
      return filter(node.text, input, given);
    }
    case Kind::kTest: {
      const Value subject = evaluate(*node.items[0]);
      return test(node.text, subject, arguments(node));
    }
  }
  return Value();
}

Value Interpreter::evaluate_dict(const Expression& node) {
  std::vector<std::pair<Value, Value>> items;
  for (size_t i = 0; i < node.items.size(); i += 2) {
    Value key = evaluate(*node.items[i]);
    dict_set(items, std::move(key), evaluate(*node.items[i + 1]));
  }
  charge(items.size() * 2 * sizeof(Value));
  return make_dict(std::move(items));
}

Value Interpreter::evaluate_compare(const Expression& node) {
  Value left = evaluate(*node.items[0]);
  for (size_t i = 0; i < node.ops.size(); ++i) {
    Value right = evaluate(*node.items[i + 1]);
    bool holds = false;
    switch (node.ops[i]) {
      case Op::kEq:
        holds = equal(left, right);
        break;
      case Op::kNe:
        holds = !equal(left, right);
        break;
      case Op::kLt:
        holds = compare(left, right, "<") == -1;
        break;
      case Op::kLe:
        holds = compare(left, right, "<=") <= 0;
        break;
      case Op::kGt:
        holds = compare(left, right, ">") == 1;
        break;
      case Op::kGe: {
        const int order = compare(left, right, ">=");
        holds = order == 0 || order == 1;
        break;
      }
      case Op::kIn:
        holds = contains(right, left);
        break;
      default:
        holds = !contains(right, left);
    }
    if (!holds) return false;
    left = std::move(right);
  }
  return true;
}

Value Interpreter::attribute(const Value& base, const std::string& name) {
  if (base.is_undefined()) fail_undefined(base);
  if (has_method(base, name)) return bound_method(base, name);
  const Dict* fields = base.is_dict() ? &base.dict() : base.is_namespace() ? &base.space().attributes : nullptr;
  const Value* found = fields ? fields->find(std::string_view(name)) : nullptr;
  return found ? *found : missing(base, name);
}

Value Interpreter::subscript(const Value& base, const Value& key) {
  if (base.is_undefined()) fail_undefined(base);
  if (base.is_dict()) {
    step(base.dict().items.size() / 64);
    if (const Value* found = base.dict().find(key)) return *found;
  } else if (key.is_integral() && (base.is_list() || base.is_string())) {
    if (base.is_string()) step(base.string().size() / 64);
    const int64_t size = length_of(base);
    int64_t at = key.integer();
    if (at < 0) at += size;
    if (at < 0 || at >= size) return missing(base, key);
    return base.is_list() ? base.list().items[size_t(at)] : Value(std::string(characters(base.string())[size_t(at)]));
  }
  if (key.is_string()) {
    if (base.is_namespace()) return attribute(base, key.string());
    if (has_method(base, key.string())) return bound_method(base, key.string());
  }
  return missing(base, key);
}

Value Interpreter::evaluate_slice(const Expression& node) {
  const Value base = evaluate(*node.items[0]);
  if (base.is_undefined()) fail_undefined(base);
  if (!base.is_string() && !base.is_list()) return missing(base, std::string("slice"));
  const auto bound = [&](const ExpressionPtr& part, int64_t otherwise) {
    if (!part) return otherwise;
    const Value value = evaluate(*part);
    if (value.is_none()) return otherwise;
    if (!value.is_integral()) fail("slice indices must be integers or None or have an __index__ method");
    return value.integer();
  };
  const int64_t size = length_of(base);
  const int64_t step = bound(node.items[3], 1);
  if (step == 0) fail("slice step cannot be zero");
  const auto clamp = [&](int64_t at) {
    if (at < 0) at = at < -size ? -1 - (step > 0 ? -1 : 0) : at + size;
    return std::clamp<int64_t>(at, step > 0 ? 0 : -1, step > 0 ? size : size - 1);
  };
  const int64_t from = node.items[1] ? clamp(bound(node.items[1], step > 0 ? 0 : size - 1)) : (step > 0 ? 0 : size - 1);
  constexpr int64_t kOpen = INT64_MIN;
  const int64_t asked = bound(node.items[2], kOpen);
  const int64_t to = asked == kOpen ? (step > 0 ? size : -1) : clamp(asked);
  std::vector<int64_t> at;
  for (int64_t i = from; step > 0 ? i < to : i > to;) {
    at.push_back(i);
    if (__builtin_add_overflow(i, step, &i)) break;
  }
  charge(at.size() * sizeof(Value));
  if (base.is_string()) {
    const auto all = characters(base.string());
    std::string out;
    for (int64_t i : at) out += all[size_t(i)];
    return out;
  }
  std::vector<Value> out;
  for (int64_t i : at) out.push_back(base.list().items[size_t(i)]);
  return make_list(std::move(out), base.list().kind);
}

Arguments Interpreter::arguments(const Expression& node) {
  Arguments out;
  for (size_t i = 1; i < node.items.size(); ++i) out.positional.push_back(evaluate(*node.items[i]));
  for (const auto& [name, value] : node.keywords) out.named.emplace_back(name, evaluate(*value));
  return out;
}

Value Interpreter::call(const Value& callee, const Arguments& given) {
  if (callee.is_undefined()) fail_undefined(callee);
  if (!callee.is_callable()) fail(std::string("'") + callee.type_name() + "' object is not callable");
  const Value hold = callee;  // the callee may be replaced while it runs
  const Callable& callable = hold.callable();
  switch (callable.kind) {
    case Callable::Kind::kGlobal:
      return call_global(callable.name, given);
    case Callable::Kind::kMethod:
      return call_method(*this, callable.self, callable.name, given);
    case Callable::Kind::kLoopCycle:
      if (given.positional.empty()) fail("no items for cycling given");
      return given.positional[size_t(callable.self.integer()) % given.positional.size()];
    default:
      return call_macro(callable, given);
  }
}

Value Interpreter::call_global(const std::string& name, const Arguments& given) {
  if (name == "raise_exception") fail(to_text(given.need(0, "message")));
  if (name == "strftime_now") return now_text(to_text(given.need(0, "format")));
  if (name == "range") {
    const bool one = given.positional.size() == 1;
    const int64_t from = one ? 0 : given.integer(0, "start", 0);
    const int64_t to = one ? given.integer(0, "stop", 0) : given.integer(1, "stop", 0);
    const int64_t by = given.integer(2, "step", 1);
    if (by == 0) fail("range() arg 3 must not be zero");
    constexpr size_t kRangeMax = 100000;  // the sandbox's own bound
    std::vector<Value> items;
    for (int64_t i = from; by > 0 ? i < to : i > to;) {
      if (items.size() >= kRangeMax) fail("Range too big. The sandbox blocks ranges larger than MAX_RANGE (100000).");
      items.emplace_back(i);
      if (__builtin_add_overflow(i, by, &i)) break;
    }
    step(items.size() / 8);
    charge(items.size() * sizeof(Value));
    return make_list(std::move(items));
  }
  std::vector<std::pair<Value, Value>> items;
  if (!given.positional.empty()) {
    if (!given.positional[0].is_dict()) fail(name + "() expects a mapping");
    items = given.positional[0].dict().items;
  }
  for (const auto& [key, value] : given.named) dict_set(items, key, value);
  charge(items.size() * 2 * sizeof(Value) + 64);
  Value dict = make_dict(std::move(items));
  if (name == "dict") return dict;
  if (dict.depth() > 100) fail("expected a value nested at most 100 deep in a namespace");
  auto space = std::make_shared<Namespace>();
  space->attributes = dict.dict();
  spaces_.push_back(space);
  return space;
}

}  // namespace spillway::text::jinja
