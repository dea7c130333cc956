#include "text/jinja_value.h"

#include <boost/json/array.hpp>
#include <boost/json/object.hpp>
#include <cmath>

#include "text/jinja_string.h"

namespace spillway::text::jinja {

namespace {
constexpr int kDepthMax = 200;

int checked_depth(int depth) {
  if (depth > kDepthMax) fail("expected values nested at most " + std::to_string(kDepthMax) + " deep, found deeper");
  return depth;
}
}  // namespace

void fail(const std::string& message) { throw Failure(message); }

const Value* Dict::find(const Value& key) const {
  if (key.is_string()) return find(std::string_view(key.string()));
  for (const auto& [k, v] : items) {
    if (!k.is_string() && equal(k, key)) return &v;
  }
  return nullptr;
}

const Value* Dict::find(std::string_view key) const {
  for (const auto& [k, v] : items) {
    if (k.is_string() && k.string() == key) return &v;
  }
  return nullptr;
}

bool Value::truthy() const {
  if (is_undefined() || is_none()) return false;
  if (is_bool()) return boolean();
  if (is_int()) return integer() != 0;
  if (is_float()) return number() != 0;
  if (is_string()) return !string().empty();
  if (is_list()) return list().kind == Sequence::kIterator || !list().items.empty();
  if (is_dict()) return !dict().items.empty();
  return true;
}

int Value::depth() const {
  if (is_list()) return list().depth;
  if (is_dict()) return dict().depth;
  if (is_callable()) return callable().self.depth() + 1;
  return 0;
}

const char* Value::type_name() const {
  if (is_undefined()) return "Undefined";
  if (is_none()) return "NoneType";
  if (is_bool()) return "bool";
  if (is_int()) return "int";
  if (is_float()) return "float";
  if (is_string()) return "str";
  if (is_list()) {
    return list().kind == Sequence::kList ? "list" : list().kind == Sequence::kTuple ? "tuple" : "generator";
  }
  if (is_dict()) return "dict";
  return is_namespace() ? "Namespace" : "function";
}

bool Value::same_object(const Value& other) const {
  if (state_.index() != other.state_.index()) return false;
  if (is_list()) return &list() == &other.list();
  if (is_dict()) return &dict() == &other.dict();
  if (is_namespace()) return &space() == &other.space();
  if (is_callable()) return &callable() == &other.callable();
  return equal(*this, other);
}

Value undefined_name(std::string_view name) {
  return Undefined{std::make_shared<const std::string>("'" + std::string(name) + "' is undefined")};
}

Value make_list(std::vector<Value> items, Sequence kind) {
  auto list = std::make_shared<List>();
  for (const Value& item : items) list->depth = std::max(list->depth, item.depth() + 1);
  checked_depth(list->depth);
  list->items = std::move(items);
  list->kind = kind;
  return std::shared_ptr<const List>(std::move(list));
}

Value make_dict(std::vector<std::pair<Value, Value>> items) {
  auto dict = std::make_shared<Dict>();
  for (const auto& [key, value] : items) dict->depth = std::max({dict->depth, key.depth() + 1, value.depth() + 1});
  checked_depth(dict->depth);
  dict->items = std::move(items);
  return std::shared_ptr<const Dict>(std::move(dict));
}

void dict_set(std::vector<std::pair<Value, Value>>& items, Value key, Value value) {
  if (key.is_dict() || (key.is_list() && key.list().kind == Sequence::kList)) {
    fail(std::string("unhashable type: '") + key.type_name() + "'");
  }
  for (auto& [k, v] : items) {
    if (equal(k, key)) {
      v = std::move(value);
      return;
    }
  }
  items.emplace_back(std::move(key), std::move(value));
}

namespace {
Value convert(const boost::json::value& json, int depth) {
  checked_depth(depth);
  switch (json.kind()) {
    case boost::json::kind::null:
      return None{};
    case boost::json::kind::bool_:
      return json.get_bool();
    case boost::json::kind::int64:
      return int64_t(json.get_int64());
    case boost::json::kind::uint64:
      return double(json.get_uint64());
    case boost::json::kind::double_:
      return json.get_double();
    case boost::json::kind::string:
      return std::string(json.get_string());
    case boost::json::kind::array: {
      std::vector<Value> items;
      items.reserve(json.get_array().size());
      for (const auto& item : json.get_array()) items.push_back(convert(item, depth + 1));
      return make_list(std::move(items));
    }
    case boost::json::kind::object: {
      std::vector<std::pair<Value, Value>> items;
      items.reserve(json.get_object().size());
      for (const auto& item : json.get_object()) {
        items.emplace_back(std::string(item.key()), convert(item.value(), depth + 1));
      }
      return make_dict(std::move(items));
    }
  }
  return None{};
}
}  // namespace

Value from_json(const boost::json::value& json) { return convert(json, 1); }

bool equal(const Value& a, const Value& b) {
  if (a.is_number() && b.is_number()) {
    return a.is_float() || b.is_float() ? a.number() == b.number() : a.integer() == b.integer();
  }
  if (a.is_string() && b.is_string()) return a.string() == b.string();
  if (a.is_undefined()) return b.is_undefined();
  if (a.is_none()) return b.is_none();
  if (a.is_list() && b.is_list()) {
    const auto &x = a.list(), &y = b.list();
    if (x.kind != y.kind || x.items.size() != y.items.size()) return false;
    for (size_t i = 0; i < x.items.size(); ++i) {
      if (!equal(x.items[i], y.items[i])) return false;
    }
    return true;
  }
  if (a.is_dict() && b.is_dict()) {
    if (a.dict().items.size() != b.dict().items.size()) return false;
    for (const auto& [key, value] : a.dict().items) {
      const Value* other = b.dict().find(key);
      if (!other || !equal(value, *other)) return false;
    }
    return true;
  }
  return (a.is_namespace() || a.is_callable()) && a.same_object(b);
}

int compare(const Value& a, const Value& b, const char* op) {
  if (a.is_number() && b.is_number()) {
    if (a.is_float() || b.is_float()) {
      const double x = a.number(), y = b.number();
      if (std::isnan(x) || std::isnan(y)) return 2;
      return x < y ? -1 : x > y ? 1 : 0;
    }
    return a.integer() < b.integer() ? -1 : a.integer() > b.integer() ? 1 : 0;
  }
  if (a.is_string() && b.is_string()) {
    const int order = a.string().compare(b.string());
    return order < 0 ? -1 : order > 0 ? 1 : 0;
  }
  if (a.is_undefined() && a.undefined().what) fail(*a.undefined().what);
  if (b.is_undefined() && b.undefined().what) fail(*b.undefined().what);
  if (a.is_list() && b.is_list() && a.list().kind == b.list().kind && a.list().kind != Sequence::kIterator) {
    const auto &x = a.list().items, &y = b.list().items;
    for (size_t i = 0; i < x.size() && i < y.size(); ++i) {
      if (!equal(x[i], y[i])) return compare(x[i], y[i], op);
    }
    return x.size() < y.size() ? -1 : x.size() > y.size() ? 1 : 0;
  }
  fail(std::string("'") + op + "' not supported between instances of '" + a.type_name() + "' and '" + b.type_name() +
       "'");
}

bool contains(const Value& container, const Value& item) {
  if (container.is_string()) {
    if (!item.is_string()) {
      fail(std::string("'in <string>' requires string as left operand, not ") + item.type_name());
    }
    return container.string().find(item.string()) != std::string::npos;
  }
  if (container.is_dict()) return container.dict().find(item) != nullptr;
  if (container.is_list()) {
    for (const Value& entry : container.list().items) {
      if (equal(entry, item)) return true;
    }
    return false;
  }
  if (container.is_undefined()) return false;
  fail(std::string("argument of type '") + container.type_name() + "' is not iterable");
}

std::vector<Value> iterate(const Value& value) {
  if (value.is_list()) return value.list().items;
  std::vector<Value> items;
  if (value.is_dict()) {
    for (const auto& item : value.dict().items) items.push_back(item.first);
  } else if (value.is_string()) {
    for (std::string_view c : characters(value.string())) items.emplace_back(std::string(c));
  } else if (!value.is_undefined()) {
    fail(std::string("'") + value.type_name() + "' object is not iterable");
  }
  return items;
}

int64_t length_of(const Value& value) {
  if (value.is_list()) return int64_t(value.list().items.size());
  if (value.is_dict()) return int64_t(value.dict().items.size());
  if (value.is_string()) return int64_t(count_characters(value.string()));
  if (value.is_undefined()) return 0;
  fail(std::string("object of type '") + value.type_name() + "' has no len()");
}

}  // namespace spillway::text::jinja
