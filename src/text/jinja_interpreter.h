// Runs a template's syntax tree over variables. One object a rendering. Steps, bytes, depth and output are bounded, for
// templates and messages are not trusted. Throws Failure.
#pragma once

#include <boost/json/object.hpp>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "text/jinja_ast.h"
#include "text/jinja_value.h"

namespace spillway::text::jinja {

struct Arguments {
  std::vector<Value> positional;
  std::vector<std::pair<std::string, Value>> named;

  // By place or by name; null when not given.
  const Value* get(size_t index, std::string_view name) const;
  bool flag(size_t index, std::string_view name, bool otherwise) const;
  int64_t integer(size_t index, std::string_view name, int64_t otherwise) const;
  const std::string* text(size_t index, std::string_view name) const;  // null when absent or none
  const Value& need(size_t index, std::string_view name) const;        // fails when absent
};

struct Scope {
  std::vector<std::pair<std::string, Value>> variables;
  std::shared_ptr<Scope> parent;

  void set(std::string_view name, Value value);
};

class Interpreter {
 public:
  explicit Interpreter(const boost::json::object& variables);
  ~Interpreter();
  Interpreter(const Interpreter&) = delete;

  std::string run(const Body& body);

  Value evaluate(const Expression& node);
  Value call(const Value& callee, const Arguments& arguments);
  Value attribute(const Value& base, const std::string& name);
  Value subscript(const Value& base, const Value& key);

  // Filters and tests by name (jinja_filters.cc, jinja_sequence_filters.cc, jinja_tests.cc).
  Value filter(const std::string& name, const Value& input, const Arguments& arguments);
  bool test(const std::string& name, const Value& subject, const Arguments& arguments);

  void charge(size_t bytes);  // of a value made
  void step(size_t count = 1);

 private:
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  static constexpr size_t kStepsMax = 500'000;  // as long a time, for steps under a sanitizer
#else
  static constexpr size_t kStepsMax = 20'000'000;
#endif
  static constexpr size_t kBytesMax = size_t(512) << 20;
  static constexpr size_t kOutputMax = size_t(64) << 20;
  static constexpr int kDepthMax = 700;

  enum class Flow { kNext, kBreak, kContinue };

  struct Deeper {
    explicit Deeper(Interpreter& interpreter);
    ~Deeper() { --interpreter.depth_; }
    Interpreter& interpreter;
  };
  struct Inner;  // a scope for the time of a block

  Flow execute(const Body& body);
  Flow execute(const Statement& node);
  Flow execute_for(const Statement& node);
  Flow execute_with(const Statement& node);
  void execute_set(const Statement& node);
  void execute_call(const Statement& node);
  void bind(const std::vector<std::string>& names, Value value);
  std::string capture(const Body& body);
  Value apply_filters(const Expression* filters, Value input);
  void emit(std::string_view text);

  Value evaluate_node(const Expression& node);
  Value evaluate_compare(const Expression& node);
  Value evaluate_dict(const Expression& node);
  Value evaluate_slice(const Expression& node);
  Value lookup(const std::string& name) const;
  Arguments arguments(const Expression& node);
  Value call_global(const std::string& name, const Arguments& arguments);
  Value call_macro(const Callable& callable, const Arguments& arguments);
  Value loop_object(const std::vector<Value>& items, size_t index);

  std::shared_ptr<Scope> scope_;
  std::vector<std::shared_ptr<Scope>> closures_;    // kept to break cycles at the end
  std::vector<std::shared_ptr<Namespace>> spaces_;  // likewise
  std::string* output_ = nullptr;
  Position position_;
  size_t steps_ = 0;
  size_t bytes_ = 0;
  size_t output_bytes_ = 0;
  int depth_ = 0;
  Value filter_input_;
};

// Arithmetic, and str.__mod__.
Value binary_operation(Op op, const Value& a, const Value& b);
std::string percent_format(const std::string& format, const std::vector<Value>& values);

// Methods of Python's str, list, dict.
bool has_method(const Value& self, std::string_view name);
Value call_method(Interpreter& interpreter, const Value& self, const std::string& name, const Arguments& arguments);

// Filters that see one value, and those that see a sequence: true when the name is theirs.
bool scalar_filter(Interpreter& interpreter, const std::string& name, const Value& input, const Arguments& arguments,
                   Value& out);
bool sequence_filter(Interpreter& interpreter, const std::string& name, const Value& input, const Arguments& arguments,
                     Value& out);

}  // namespace spillway::text::jinja
