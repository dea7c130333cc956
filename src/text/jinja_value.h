// Values of the Jinja interpreter: Python's objects as templates see them. Containers are immutable (the sandbox that
// transformers uses forbids mutation too), except namespaces; so values cannot form cycles, and their depth is bounded.
// Internal to ChatTemplate; one rendering, one thread.
#pragma once

#include <boost/json/value.hpp>
#include <cstdint>
#include <memory>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

namespace spillway::text::jinja {

// A failure while parsing or rendering, thrown inside the interpreter alone and turned into an Error at its edge.
struct Failure : std::runtime_error {
  using std::runtime_error::runtime_error;
  int line = 0;  // 0: not known yet
  int column = 0;
};

[[noreturn]] void fail(const std::string& message);

class Value;
struct Callable;

struct Undefined {
  std::shared_ptr<const std::string> what;  // "'x' is undefined"
};
struct None {};

// tuple and iterator (the result of map, select, items, ...) differ from list only in how they print and test.
enum class Sequence { kList, kTuple, kIterator };

struct List {
  std::vector<Value> items;
  Sequence kind = Sequence::kList;
  int depth = 1;
};

struct Dict {
  std::vector<std::pair<Value, Value>> items;  // in insertion order
  int depth = 1;

  const Value* find(const Value& key) const;
  const Value* find(std::string_view key) const;
};

struct Namespace {
  Dict attributes;
};

class Value {
 public:
  Value() : state_(Undefined{}) {}
  Value(None) : state_(None{}) {}
  Value(Undefined undefined) : state_(std::move(undefined)) {}
  Value(bool value) : state_(value) {}
  Value(int64_t value) : state_(value) {}
  Value(double value) : state_(value) {}
  Value(std::string text) : state_(std::make_shared<const std::string>(std::move(text))) {}
  Value(const char* text) : Value(std::string(text)) {}
  Value(std::shared_ptr<const List> list) : state_(std::move(list)) {}
  Value(std::shared_ptr<const Dict> dict) : state_(std::move(dict)) {}
  Value(std::shared_ptr<Namespace> space) : state_(std::move(space)) {}
  Value(std::shared_ptr<const Callable> callable) : state_(std::move(callable)) {}

  bool is_undefined() const { return holds<Undefined>(); }
  bool is_none() const { return holds<None>(); }
  bool is_bool() const { return holds<bool>(); }
  bool is_int() const { return holds<int64_t>(); }
  bool is_float() const { return holds<double>(); }
  bool is_number() const { return is_bool() || is_int() || is_float(); }
  bool is_integral() const { return is_bool() || is_int(); }
  bool is_string() const { return holds<std::shared_ptr<const std::string>>(); }
  bool is_list() const { return holds<std::shared_ptr<const List>>(); }
  bool is_dict() const { return holds<std::shared_ptr<const Dict>>(); }
  bool is_namespace() const { return holds<std::shared_ptr<Namespace>>(); }
  bool is_callable() const { return holds<std::shared_ptr<const Callable>>(); }

  const Undefined& undefined() const { return std::get<Undefined>(state_); }
  bool boolean() const { return std::get<bool>(state_); }
  int64_t integer() const { return is_bool() ? int64_t(boolean()) : std::get<int64_t>(state_); }
  double number() const { return is_float() ? std::get<double>(state_) : double(integer()); }
  const std::string& string() const { return *std::get<std::shared_ptr<const std::string>>(state_); }
  const List& list() const { return *std::get<std::shared_ptr<const List>>(state_); }
  const Dict& dict() const { return *std::get<std::shared_ptr<const Dict>>(state_); }
  Namespace& space() const { return *std::get<std::shared_ptr<Namespace>>(state_); }
  const Callable& callable() const { return *std::get<std::shared_ptr<const Callable>>(state_); }

  bool truthy() const;
  int depth() const;
  const char* type_name() const;               // Python's: "str", "dict", ...
  bool same_object(const Value& other) const;  // Python's "is" for what has identity here

 private:
  template <class T>
  bool holds() const {
    return std::holds_alternative<T>(state_);
  }

  std::variant<Undefined, None, bool, int64_t, double, std::shared_ptr<const std::string>, std::shared_ptr<const List>,
               std::shared_ptr<const Dict>, std::shared_ptr<Namespace>, std::shared_ptr<const Callable>>
      state_;
};

struct Statement;
struct Scope;

// What call brackets can follow.
struct Callable {
  enum class Kind { kGlobal, kMethod, kMacro, kCaller, kLoopCycle } kind = Kind::kGlobal;
  std::string name;
  Value self;                        // of a method; of kLoopCycle, the loop's index
  const Statement* macro = nullptr;  // of a macro or caller
  std::shared_ptr<Scope> closure;
};

Value undefined_name(std::string_view name);
Value make_list(std::vector<Value> items, Sequence kind = Sequence::kList);
Value make_dict(std::vector<std::pair<Value, Value>> items);  // keys already distinct
void dict_set(std::vector<std::pair<Value, Value>>& items, Value key, Value value);
Value from_json(const boost::json::value& json);

bool equal(const Value& a, const Value& b);
// Negative, zero or positive; fails on what Python cannot order. op: for the message.
int compare(const Value& a, const Value& b, const char* op);
bool contains(const Value& container, const Value& item);

// The items a for loop visits: characters of a string, keys of a dict, nothing of an undefined value.
std::vector<Value> iterate(const Value& value);
int64_t length_of(const Value& value);

// Text as Python has it: str() and repr().
std::string to_text(const Value& value);
std::string to_repr(const Value& value);
std::string float_repr(double value);
std::string to_json(const Value& value, const std::string* indent, std::string_view item_separator,
                    std::string_view key_separator, bool ensure_ascii, bool sort_keys);

}  // namespace spillway::text::jinja
