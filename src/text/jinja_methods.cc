// Methods of Python's str, list, tuple and dict. Those that mutate fail as they do in the sandbox transformers uses.
#include <algorithm>

#include "text/jinja_interpreter.h"
#include "text/jinja_string.h"

namespace spillway::text::jinja {

namespace {

constexpr std::string_view kStringMethods[] = {
    "strip",     "lstrip", "rstrip",  "split",        "rsplit",       "splitlines", "startswith", "endswith",
    "replace",   "upper",  "lower",   "title",        "capitalize",   "join",       "find",       "rfind",
    "index",     "count",  "isdigit", "isalpha",      "isalnum",      "isspace",    "isupper",    "islower",
    "isnumeric", "zfill",  "format",  "removeprefix", "removesuffix", "swapcase",   "partition",  "rpartition",
};
constexpr std::string_view kListMethods[] = {"index", "count"};
constexpr std::string_view kDictMethods[] = {"get", "items", "keys", "values", "copy"};
constexpr std::string_view kMutators[] = {"append", "extend",  "insert", "pop",        "remove", "clear",
                                          "sort",   "reverse", "update", "setdefault", "popitem"};

template <size_t N>
bool among(const std::string_view (&names)[N], std::string_view name) {
  return std::find(std::begin(names), std::end(names), name) != std::end(names);
}

bool is_mutator(const Value& self, std::string_view name) {
  static constexpr std::string_view kListMutators = " append extend insert pop remove clear sort reverse ";
  static constexpr std::string_view kDictMutators = " pop clear update setdefault popitem ";
  if (!among(kMutators, name)) return false;
  const std::string padded = " " + std::string(name) + " ";
  if (self.is_dict()) return kDictMutators.find(padded) != std::string_view::npos;
  return self.is_list() && self.list().kind == Sequence::kList && kListMutators.find(padded) != std::string_view::npos;
}

Value strings(std::vector<std::string> parts) {
  std::vector<Value> out;
  for (std::string& part : parts) out.emplace_back(std::move(part));
  return make_list(std::move(out));
}

bool affix(const std::string& text, const Value& wanted, bool start) {
  const auto matches = [&](const Value& value) {
    if (!value.is_string()) fail("startswith/endswith first arg must be str or a tuple of str");
    return start ? text.starts_with(value.string()) : text.ends_with(value.string());
  };
  if (!wanted.is_list()) return matches(wanted);
  return std::any_of(wanted.list().items.begin(), wanted.list().items.end(), matches);
}

int64_t character_index(const std::string& text, size_t at) {
  return at == std::string::npos ? -1 : int64_t(count_characters(std::string_view(text).substr(0, at)));
}

int64_t count_in(const std::string& text, const std::string& part) {
  if (part.empty()) return int64_t(count_characters(text)) + 1;
  int64_t count = 0;
  for (size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + part.size())) ++count;
  return count;
}

// "{}", "{0}", "{name}", "{{", "}}"; no format specifications.
std::string brace_format(const std::string& format, const Arguments& given) {
  std::string out;
  size_t next = 0;
  for (size_t i = 0; i < format.size(); ++i) {
    const char c = format[i];
    if ((c == '{' || c == '}') && i + 1 < format.size() && format[i + 1] == c) {
      out += c;
      ++i;
    } else if (c == '{') {
      const size_t end = format.find('}', i);
      if (end == std::string::npos) fail("expected '}' before end of string");
      const std::string field = format.substr(i + 1, end - i - 1);
      const bool digits = field.size() < 6 && all_of_class(field, CharacterClass::kDigit);
      if (field.find_first_of(":!.[") != std::string::npos)
        fail("expected a format field without options, found '" + field + "'");
      const size_t index = field.empty() ? next++ : digits ? size_t(std::stoul(field)) : given.positional.size();
      const Value* value = given.get(field.empty() || digits ? index : SIZE_MAX, field);
      if (!value) fail("expected a value for the format field '" + field + "', found none");
      out += to_text(*value);
      i = end;
    } else {
      out += c;
    }
  }
  return out;
}

Value partition(const std::string& text, const std::string& separator, bool last) {
  if (separator.empty()) fail("empty separator");
  const size_t at = last ? text.rfind(separator) : text.find(separator);
  std::vector<Value> parts;
  if (at == std::string::npos) {
    parts = last ? std::vector<Value>{"", "", text} : std::vector<Value>{text, "", ""};
  } else {
    parts = {text.substr(0, at), separator, text.substr(at + separator.size())};
  }
  return make_list(std::move(parts), Sequence::kTuple);
}

std::string swap_case(const std::string& text) {
  std::string out;
  for (std::string_view c : characters(text)) {
    const std::string raised = upper(c);
    out += raised == c ? lower(c) : raised;
  }
  return out;
}

bool string_query(const std::string& text, const std::string& name, Value& out) {
  static constexpr std::pair<std::string_view, CharacterClass> kClasses[] = {
      {"isdigit", CharacterClass::kDigit}, {"isnumeric", CharacterClass::kDigit}, {"isalpha", CharacterClass::kAlpha},
      {"isalnum", CharacterClass::kAlnum}, {"isspace", CharacterClass::kSpace},   {"isupper", CharacterClass::kUpper},
      {"islower", CharacterClass::kLower},
  };
  for (const auto& [method, wanted] : kClasses) {
    if (name != method) continue;
    out = all_of_class(text, wanted);
    return true;
  }
  return false;
}

Value split_method(const std::string& text, const std::string& name, const Arguments& given) {
  const std::string* separator = given.text(0, "sep");
  const int64_t limit = given.integer(1, "maxsplit", -1);
  if (separator && separator->empty()) fail("empty separator");
  return strings(name == "split" ? split(text, separator, limit) : rsplit(text, separator, limit));
}

std::string join_method(const std::string& separator, const Value& sequence) {
  std::string out;
  bool first = true;
  for (const Value& item : iterate(sequence)) {
    if (!item.is_string()) fail(std::string("sequence item: expected str instance, ") + item.type_name() + " found");
    if (!first) out += separator;
    first = false;
    out += item.string();
  }
  return out;
}

std::string zero_fill(const std::string& text, int64_t width) {
  const size_t have = count_characters(text);
  if (width > 1000 || width <= int64_t(have)) return text;
  const bool sign = !text.empty() && (text[0] == '-' || text[0] == '+');
  return text.substr(0, sign) + std::string(size_t(width) - have, '0') + text.substr(sign);
}

Value string_method(const std::string& text, const std::string& name, const Arguments& given) {
  Value out;
  if (string_query(text, name, out)) return out;
  if (name == "strip" || name == "lstrip" || name == "rstrip") {
    return std::string(strip(text, given.text(0, "chars"), name != "rstrip", name != "lstrip"));
  }
  if (name == "split" || name == "rsplit") return split_method(text, name, given);
  if (name == "splitlines") return strings(split_lines(text, given.flag(0, "keepends", false)));
  if (name == "startswith") return affix(text, given.need(0, "prefix"), true);
  if (name == "endswith") return affix(text, given.need(0, "suffix"), false);
  if (name == "upper") return upper(text);
  if (name == "lower") return lower(text);
  if (name == "title") return title(text);
  if (name == "capitalize") return capitalize(text);
  if (name == "swapcase") return swap_case(text);
  if (name == "join") return join_method(text, given.need(0, "iterable"));
  if (name == "zfill") return zero_fill(text, given.integer(0, "width", 0));
  if (name == "format") return brace_format(text, given);
  const std::string* part = given.text(0, "");
  if (!part) fail("str." + name + "() expects a string argument");
  if (name == "replace") {
    const std::string* to = given.text(1, "new");
    if (!to) fail("str.replace() expects two string arguments");
    return replace(text, *part, *to, given.integer(2, "count", -1));
  }
  if (name == "find" || name == "index") {
    const int64_t at = character_index(text, text.find(*part));
    if (at < 0 && name == "index") fail("substring not found");
    return at;
  }
  if (name == "rfind") return character_index(text, text.rfind(*part));
  if (name == "count") return count_in(text, *part);
  if (name == "removeprefix") return text.starts_with(*part) ? text.substr(part->size()) : text;
  if (name == "removesuffix") {
    return text.ends_with(*part) ? text.substr(0, text.size() - part->size()) : text;
  }
  return partition(text, *part, name == "rpartition");
}

Value list_method(const List& list, const std::string& name, const Arguments& given) {
  const Value& wanted = given.need(0, "value");
  int64_t count = 0;
  for (size_t i = 0; i < list.items.size(); ++i) {
    if (!equal(list.items[i], wanted)) continue;
    if (name == "index") return int64_t(i);
    ++count;
  }
  if (name == "index") fail(to_repr(wanted) + " is not in list");
  return count;
}

Value dict_method(const Value& self, const std::string& name, const Arguments& given) {
  const Dict& dict = self.dict();
  if (name == "copy") return self;
  if (name == "get") {
    if (const Value* found = dict.find(given.need(0, "key"))) return *found;
    const Value* otherwise = given.get(1, "default");
    return otherwise ? *otherwise : Value(None{});
  }
  std::vector<Value> out;
  for (const auto& [key, value] : dict.items) {
    out.push_back(name == "keys" ? key : name == "values" ? value : make_list({key, value}, Sequence::kTuple));
  }
  return make_list(std::move(out), Sequence::kIterator);
}

}  // namespace

bool has_method(const Value& self, std::string_view name) {
  if (self.is_string()) return among(kStringMethods, name);
  if (self.is_list())
    return (self.list().kind != Sequence::kIterator && among(kListMethods, name)) || is_mutator(self, name);
  return self.is_dict() && (among(kDictMethods, name) || is_mutator(self, name));
}

Value call_method(Interpreter& interpreter, const Value& self, const std::string& name, const Arguments& given) {
  if (is_mutator(self, name)) {
    fail(std::string("access to attribute '") + name + "' of '" + self.type_name() +
         "' object is unsafe: templates may not change values");
  }
  if (self.is_string()) interpreter.charge(self.string().size());
  if (self.is_list()) interpreter.step(self.list().items.size() / 8);
  if (self.is_dict()) interpreter.charge(self.dict().items.size() * 3 * sizeof(Value));
  Value out = self.is_string() ? string_method(self.string(), name, given)
              : self.is_list() ? list_method(self.list(), name, given)
                               : dict_method(self, name, given);
  if (out.is_string()) interpreter.charge(out.string().size());
  if (out.is_list()) interpreter.charge(out.list().items.size() * 48);
  return out;
}

}  // namespace spillway::text::jinja
