// The statements half of the interpreter.
#include "text/jinja_interpreter.h"

#include <algorithm>
#include <utility>

namespace spillway::text::jinja {

void Scope::set(std::string_view name, Value value) {
  for (auto& [key, held] : variables) {
    if (key == name) {
      held = std::move(value);
      return;
    }
  }
  variables.emplace_back(std::string(name), std::move(value));
}

struct Interpreter::Inner {
  explicit Inner(Interpreter& interpreter, std::shared_ptr<Scope> parent)
      : interpreter(interpreter), saved(interpreter.scope_) {
    interpreter.scope_ = std::make_shared<Scope>();
    interpreter.scope_->parent = std::move(parent);
  }
  explicit Inner(Interpreter& interpreter) : Inner(interpreter, interpreter.scope_) {}
  ~Inner() { interpreter.scope_ = std::move(saved); }
  Interpreter& interpreter;
  std::shared_ptr<Scope> saved;
};

Interpreter::Deeper::Deeper(Interpreter& interpreter) : interpreter(interpreter) {
  if (++interpreter.depth_ > kDepthMax) {
    --interpreter.depth_;
    fail("expected a nesting of at most " + std::to_string(kDepthMax) + ", found a deeper one");
  }
}

Interpreter::Interpreter(const boost::json::object& variables) : scope_(std::make_shared<Scope>()) {
  for (const auto& item : variables) scope_->variables.emplace_back(std::string(item.key()), from_json(item.value()));
}

Interpreter::~Interpreter() {
  for (auto& space : spaces_) space->attributes.items.clear();
  for (auto& scope : closures_) scope->variables.clear();
}

std::string Interpreter::run(const Body& body) {
  std::string out;
  output_ = &out;
  try {
    execute(body);
  } catch (Failure& failure) {
    if (failure.line == 0) {
      failure.line = position_.line;
      failure.column = position_.column;
    }
    throw;
  }
  return out;
}

void Interpreter::step(size_t count) {
  steps_ += count;
  if (steps_ > kStepsMax)
    fail("expected a rendering of at most " + std::to_string(kStepsMax) + " steps, found a longer one");
}

void Interpreter::charge(size_t bytes) {
  bytes_ += bytes;
  if (bytes_ > kBytesMax) fail("expected a rendering that makes at most " + std::to_string(kBytesMax) + " bytes");
}

void Interpreter::emit(std::string_view text) {
  output_bytes_ += text.size();
  if (output_bytes_ > kOutputMax) fail("expected an output of at most " + std::to_string(kOutputMax) + " bytes");
  output_->append(text);
}

Interpreter::Flow Interpreter::execute(const Body& body) {
  for (const auto& node : body) {
    const Flow flow = execute(*node);
    if (flow != Flow::kNext) return flow;
  }
  return Flow::kNext;
}

Interpreter::Flow Interpreter::execute(const Statement& node) {
  step();
  Deeper deeper(*this);
  position_ = node.position;
  switch (node.kind) {
    case Statement::Kind::kText:
      emit(node.text);
      break;
    case Statement::Kind::kOutput: {
      const Value value = evaluate(*node.expression);
      value.is_string() ? emit(value.string()) : emit(to_text(value));
      break;
    }
    case Statement::Kind::kIf:
      for (const Branch& branch : node.branches) {
        if (evaluate(*branch.condition).truthy()) return execute(branch.body);
      }
      return execute(node.otherwise);
    case Statement::Kind::kFor:
      return execute_for(node);
    case Statement::Kind::kSet:
      execute_set(node);
      break;
    case Statement::Kind::kSetBlock: {
      std::string text;
      {
        Inner inner(*this);
        text = capture(node.body);
      }
      scope_->set(node.names[0], apply_filters(node.expression.get(), std::move(text)));
      break;
    }
    case Statement::Kind::kMacro: {
      auto macro = std::make_shared<Callable>();
      macro->kind = Callable::Kind::kMacro;
      macro->name = node.text;
      macro->macro = &node;
      macro->closure = scope_;
      closures_.push_back(scope_);
      charge(sizeof(Callable));
      scope_->set(node.text, std::shared_ptr<const Callable>(std::move(macro)));
      break;
    }
    case Statement::Kind::kCallBlock:
      execute_call(node);
      break;
    case Statement::Kind::kFilter: {
      std::string text;
      {
        Inner inner(*this);
        text = capture(node.body);
      }
      emit(to_text(apply_filters(node.expression.get(), std::move(text))));
      break;
    }
    case Statement::Kind::kWith:
      return execute_with(node);
    case Statement::Kind::kScope:
      return execute(node.body);
    case Statement::Kind::kBreak:
      return Flow::kBreak;
    case Statement::Kind::kContinue:
      return Flow::kContinue;
  }
  return Flow::kNext;
}

Interpreter::Flow Interpreter::execute_for(const Statement& node) {
  std::vector<Value> items = iterate(evaluate(*node.expression));
  charge(items.size() * sizeof(Value));
  if (node.filter) {
    std::vector<Value> kept;
    for (Value& item : items) {
      step();
      Inner inner(*this);
      bind(node.names, item);
      if (evaluate(*node.filter).truthy()) kept.push_back(std::move(item));
    }
    items = std::move(kept);
  }
  if (items.empty()) {
    Inner inner(*this);
    return execute(node.otherwise);
  }
  for (size_t i = 0; i < items.size(); ++i) {
    step();
    Inner inner(*this);
    bind(node.names, items[i]);
    scope_->set("loop", loop_object(items, i));
    const Flow flow = execute(node.body);
    if (flow == Flow::kBreak) break;
  }
  return Flow::kNext;
}

Value Interpreter::loop_object(const std::vector<Value>& items, size_t index) {
  const auto number = [](size_t n) { return Value(int64_t(n)); };
  auto cycle = std::make_shared<Callable>();
  cycle->kind = Callable::Kind::kLoopCycle;
  cycle->name = "cycle";
  cycle->self = number(index);
  const Value none = Undefined{std::make_shared<const std::string>("there is no previous or next item")};
  return make_dict({{"index", number(index + 1)},
                    {"index0", number(index)},
                    {"first", index == 0},
                    {"last", index + 1 == items.size()},
                    {"length", number(items.size())},
                    {"revindex", number(items.size() - index)},
                    {"revindex0", number(items.size() - index - 1)},
                    {"depth", int64_t(1)},
                    {"depth0", int64_t(0)},
                    {"previtem", index > 0 ? items[index - 1] : none},
                    {"nextitem", index + 1 < items.size() ? items[index + 1] : none},
                    {"cycle", std::shared_ptr<const Callable>(std::move(cycle))}});
}

Interpreter::Flow Interpreter::execute_with(const Statement& node) {
  std::vector<Value> values;
  for (const auto& value : node.values) values.push_back(evaluate(*value));
  Inner inner(*this);
  for (size_t i = 0; i < values.size(); ++i) scope_->set(node.names[i], std::move(values[i]));
  return execute(node.body);
}

void Interpreter::bind(const std::vector<std::string>& names, Value value) {
  if (names.size() == 1) return scope_->set(names[0], std::move(value));
  const std::vector<Value> parts = iterate(value);
  if (parts.size() != names.size()) {
    fail("expected " + std::to_string(names.size()) + " values to unpack, found " + std::to_string(parts.size()));
  }
  for (size_t i = 0; i < names.size(); ++i) scope_->set(names[i], parts[i]);
}

void Interpreter::execute_set(const Statement& node) {
  Value value = evaluate(*node.expression);
  if (node.attribute.empty()) return bind(node.names, std::move(value));
  const Value space = lookup(node.names[0]);
  if (!space.is_namespace()) fail("cannot assign attribute on non-namespace object");
  if (value.depth() > 100) fail("expected a value nested at most 100 deep in a namespace");
  dict_set(space.space().attributes.items, node.attribute, std::move(value));
}

std::string Interpreter::capture(const Body& body) {
  std::string text;
  std::string* saved = std::exchange(output_, &text);
  try {
    execute(body);
  } catch (...) {
    output_ = saved;
    throw;
  }
  output_ = saved;
  charge(text.size());
  return text;
}

Value Interpreter::apply_filters(const Expression* filters, Value input) {
  if (!filters) return input;
  std::swap(filter_input_, input);
  const Value out = evaluate(*filters);
  std::swap(filter_input_, input);
  return out;
}

void Interpreter::execute_call(const Statement& node) {
  auto caller = std::make_shared<Callable>();
  caller->kind = Callable::Kind::kCaller;
  caller->name = "caller";
  caller->macro = &node;
  caller->closure = scope_;
  closures_.push_back(scope_);
  const Value callee = evaluate(*node.expression->items[0]);
  Arguments given = arguments(*node.expression);
  given.named.emplace_back("caller", std::shared_ptr<const Callable>(std::move(caller)));
  emit(to_text(call(callee, given)));
}

Value Interpreter::call_macro(const Callable& callable, const Arguments& given) {
  const Statement& macro = *callable.macro;
  if (given.positional.size() > macro.names.size()) {
    fail("macro '" + callable.name + "' takes not more than " + std::to_string(macro.names.size()) + " argument(s)");
  }
  Inner inner(*this, callable.closure);
  const size_t required = macro.names.size() - macro.values.size();
  for (size_t i = 0; i < macro.names.size(); ++i) {
    const Value* value = given.get(i, macro.names[i]);
    if (value) {
      scope_->set(macro.names[i], *value);
    } else if (i >= required) {
      scope_->set(macro.names[i], evaluate(*macro.values[i - required]));
    } else {
      scope_->set(macro.names[i], Undefined{std::make_shared<const std::string>("parameter '" + macro.names[i] +
                                                                                "' was not provided")});
    }
  }
  for (const auto& [name, value] : given.named) {
    const bool known = std::find(macro.names.begin(), macro.names.end(), name) != macro.names.end();
    if (!known && name != "caller") {
      fail("macro '" + callable.name + "' takes no keyword argument '" + name + "'");
    }
    if (name == "caller") scope_->set(name, value);
  }
  return capture(macro.body);
}

}  // namespace spillway::text::jinja
