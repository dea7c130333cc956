// Filters of sequences and mappings.
#include <algorithm>

#include "text/jinja_interpreter.h"
#include "text/jinja_string.h"

namespace spillway::text::jinja {

namespace {

// "a.b.0": attributes and indices one after the other.
Value path(Interpreter& interpreter, Value value, const Value& attribute) {
  if (!attribute.is_string()) return interpreter.subscript(value, attribute);
  const std::string dot = ".";
  for (const std::string& part : split(attribute.string(), &dot, -1)) {
    const bool digits = part.size() < 10 && all_of_class(part, CharacterClass::kDigit);
    value = interpreter.subscript(value, digits ? Value(int64_t(std::stoll(part))) : Value(part));
  }
  return value;
}

Value folded(const Value& value, bool case_sensitive) {
  return !case_sensitive && value.is_string() ? Value(lower(value.string())) : value;
}

Value key_of(Interpreter& interpreter, const Value& item, const Value* attribute, bool case_sensitive) {
  interpreter.step();
  const bool whole = !attribute || attribute->is_none();
  return folded(whole ? item : path(interpreter, item, *attribute), case_sensitive);
}

Arguments rest(const Arguments& given, size_t from) {
  Arguments out;
  for (size_t i = from; i < given.positional.size(); ++i) out.positional.push_back(given.positional[i]);
  out.named = given.named;
  return out;
}

std::vector<Value> map_items(Interpreter& interpreter, const Value& input, const Arguments& given) {
  std::vector<Value> out;
  const Value* attribute = given.positional.empty() ? given.get(SIZE_MAX, "attribute") : nullptr;
  const Value* otherwise = given.get(SIZE_MAX, "default");
  for (const Value& item : iterate(input)) {
    interpreter.step();
    if (attribute) {
      Value value = path(interpreter, item, *attribute);
      out.push_back(value.is_undefined() && otherwise ? *otherwise : value);
    } else {
      out.push_back(interpreter.filter(to_text(given.need(0, "filter")), item, rest(given, 1)));
    }
  }
  return out;
}

std::vector<Value> choose(Interpreter& interpreter, const Value& input, const Arguments& given, bool by_attribute,
                          bool keep) {
  std::vector<Value> out;
  const size_t test_at = by_attribute ? 1 : 0;
  for (const Value& item : iterate(input)) {
    interpreter.step();
    const Value subject = by_attribute ? path(interpreter, item, given.need(0, "attribute")) : item;
    const bool holds = given.positional.size() > test_at
                           ? interpreter.test(to_text(given.positional[test_at]), subject, rest(given, test_at + 1))
                           : subject.truthy();
    if (holds == keep) out.push_back(item);
  }
  return out;
}

std::vector<Value> sorted(Interpreter& interpreter, std::vector<Value> items, const Value* attribute, bool reverse,
                          bool case_sensitive) {
  std::vector<std::pair<Value, Value>> keyed;
  for (Value& item : items) keyed.emplace_back(key_of(interpreter, item, attribute, case_sensitive), std::move(item));
  interpreter.step(keyed.size() * 4);
  for (size_t i = 1; i < keyed.size(); ++i) compare(keyed[0].first, keyed[i].first, "<");  // all must be comparable
  std::stable_sort(keyed.begin(), keyed.end(), [&](const auto& a, const auto& b) {
    const int order = compare(a.first, b.first, "<");
    return reverse ? order == 1 : order == -1;
  });
  std::vector<Value> out;
  for (auto& [key, item] : keyed) out.push_back(std::move(item));
  return out;
}

std::vector<Value> unique(Interpreter& interpreter, const Value& input, const Arguments& given) {
  std::vector<Value> out;
  std::vector<Value> seen;
  for (const Value& item : iterate(input)) {
    Value key = key_of(interpreter, item, given.get(1, "attribute"), given.flag(0, "case_sensitive", false));
    interpreter.step(seen.size() / 4);
    if (std::any_of(seen.begin(), seen.end(), [&](const Value& other) { return equal(other, key); })) continue;
    seen.push_back(std::move(key));
    out.push_back(item);
  }
  return out;
}

std::string joined(Interpreter& interpreter, const Value& input, const Arguments& given) {
  const Value* separator = given.get(0, "d");
  const Value* attribute = given.get(1, "attribute");
  const std::string between = separator ? to_text(*separator) : "";
  std::string out;
  bool first = true;
  for (const Value& item : iterate(input)) {
    if (!first) out += between;
    first = false;
    out += to_text(attribute && !attribute->is_none() ? path(interpreter, item, *attribute) : item);
    interpreter.step(1 + out.size() / (size_t(1) << 20));
  }
  return out;
}

Value sum(Interpreter& interpreter, const Value& input, const Arguments& given) {
  const Value* attribute = given.get(0, "attribute");
  const Value* start = given.get(1, "start");
  Value total = start ? *start : Value(int64_t(0));
  for (const Value& item : iterate(input)) {
    total = binary_operation(Op::kAdd, total, key_of(interpreter, item, attribute, true));
  }
  return total;
}

Value extreme(Interpreter& interpreter, const Value& input, const Arguments& given, int wanted) {
  const std::vector<Value> items = iterate(input);
  if (items.empty()) return Undefined{std::make_shared<const std::string>("No aggregated item, sequence was empty.")};
  const bool case_sensitive = given.flag(0, "case_sensitive", false);
  size_t best = 0;
  Value best_key = key_of(interpreter, items[0], given.get(1, "attribute"), case_sensitive);
  for (size_t i = 1; i < items.size(); ++i) {
    Value key = key_of(interpreter, items[i], given.get(1, "attribute"), case_sensitive);
    if (compare(key, best_key, wanted < 0 ? "<" : ">") != wanted) continue;
    best = i;
    best_key = std::move(key);
  }
  return items[best];
}

std::vector<Value> pairs(const Value& input) {
  if (input.is_undefined()) return {};
  if (!input.is_dict()) fail("Can only get item pairs from a mapping.");
  std::vector<Value> out;
  for (const auto& [key, value] : input.dict().items) out.push_back(make_list({key, value}, Sequence::kTuple));
  return out;
}

std::vector<Value> sorted_pairs(Interpreter& interpreter, const Value& input, const Arguments& given) {
  const std::string* by = given.text(1, "by");
  if (by && *by != "key" && *by != "value") fail("You can only sort by either \"key\" or \"value\"");
  const Value index(int64_t(by && *by == "value"));
  return sorted(interpreter, pairs(input), &index, given.flag(2, "reverse", false),
                given.flag(0, "case_sensitive", false));
}

std::vector<Value> batches(const Value& input, const Arguments& given) {
  const int64_t size = given.integer(0, "linecount", 0);
  if (size < 1) fail("expected a batch of at least 1, found " + std::to_string(size));
  const Value* fill = given.get(1, "fill_with");
  std::vector<Value> out, row;
  for (const Value& item : iterate(input)) {
    row.push_back(item);
    if (int64_t(row.size()) == size) out.push_back(make_list(std::exchange(row, {})));
  }
  if (!row.empty()) {
    while (fill && !fill->is_none() && int64_t(row.size()) < std::min<int64_t>(size, 10000)) row.push_back(*fill);
    out.push_back(make_list(std::move(row)));
  }
  return out;
}

std::vector<Value> groups(Interpreter& interpreter, const Value& input, const Arguments& given) {
  const Value* attribute = &given.need(0, "attribute");
  const bool case_sensitive = given.flag(2, "case_sensitive", false);
  std::vector<Value> out, group;
  Value group_key, group_name;
  const auto close = [&] {
    if (!group.empty()) out.push_back(make_list({group_name, make_list(std::exchange(group, {}))}, Sequence::kTuple));
  };
  for (const Value& item : sorted(interpreter, iterate(input), attribute, false, case_sensitive)) {
    Value key = key_of(interpreter, item, attribute, case_sensitive);
    if (group.empty() || !equal(key, group_key)) {
      close();
      group_name = key_of(interpreter, item, attribute, true);
      group_key = std::move(key);
    }
    group.push_back(item);
  }
  close();
  return out;
}

Value reversed(const Value& input) {
  if (input.is_string()) {
    std::string out;
    const auto all = characters(input.string());
    for (size_t i = all.size(); i > 0; --i) out += all[i - 1];
    return out;
  }
  std::vector<Value> items = iterate(input);
  std::reverse(items.begin(), items.end());
  return make_list(std::move(items), Sequence::kIterator);
}

Value end_item(const Value& input, bool last) {
  const std::vector<Value> items = iterate(input);
  if (items.empty()) {
    return Undefined{std::make_shared<const std::string>(last ? "No last item, sequence was empty."
                                                              : "No first item, sequence was empty.")};
  }
  return last ? items.back() : items.front();
}

}  // namespace

bool sequence_filter(Interpreter& interpreter, const std::string& name, const Value& input, const Arguments& given,
                     Value& out) {
  const auto iterator = [](std::vector<Value> items) { return make_list(std::move(items), Sequence::kIterator); };
  if (name == "length" || name == "count") {
    out = length_of(input);
  } else if (name == "list") {
    out = make_list(iterate(input));
  } else if (name == "join") {
    out = joined(interpreter, input, given);
  } else if (name == "first" || name == "last") {
    out = end_item(input, name == "last");
  } else if (name == "map") {
    out = iterator(map_items(interpreter, input, given));
  } else if (name == "select" || name == "reject") {
    out = iterator(choose(interpreter, input, given, false, name == "select"));
  } else if (name == "selectattr" || name == "rejectattr") {
    out = iterator(choose(interpreter, input, given, true, name == "selectattr"));
  } else if (name == "items") {
    out = iterator(pairs(input));
  } else if (name == "dictsort") {
    out = make_list(sorted_pairs(interpreter, input, given));
  } else if (name == "sort") {
    out = make_list(sorted(interpreter, iterate(input), given.get(2, "attribute"), given.flag(0, "reverse", false),
                           given.flag(1, "case_sensitive", false)));
  } else if (name == "unique") {
    out = iterator(unique(interpreter, input, given));
  } else if (name == "reverse") {
    out = reversed(input);
  } else if (name == "sum") {
    out = sum(interpreter, input, given);
  } else if (name == "min" || name == "max") {
    out = extreme(interpreter, input, given, name == "min" ? -1 : 1);
  } else if (name == "batch") {
    out = iterator(batches(input, given));
  } else if (name == "groupby") {
    out = make_list(groups(interpreter, input, given));
  } else if (name == "attr") {
    out = interpreter.attribute(input, to_text(given.need(0, "name")));
  } else {
    return false;
  }
  return true;
}

}  // namespace spillway::text::jinja
