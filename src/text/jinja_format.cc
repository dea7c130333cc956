// str(), repr() and json.dumps() of values.
#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdio>

#include "text/jinja_string.h"
#include "text/jinja_value.h"

namespace spillway::text::jinja {

namespace {

constexpr int kPrintDepthMax = 250;

void append_hex(std::string& out, const char* format, uint32_t value) {
  char buffer[16];
  std::snprintf(buffer, sizeof buffer, format, value);
  out += buffer;
}

void repr_string(std::string& out, const std::string& text) {
  const bool single = text.find('\'') == std::string::npos || text.find('"') != std::string::npos;
  const char quote = single ? '\'' : '"';
  out += quote;
  for (size_t at = 0; at < text.size();) {
    const std::string_view c = character_at(text, at);
    at += c.size();
    const uint32_t point = uint32_t(code_point(c));
    if (c[0] == quote || c[0] == '\\') {
      out += '\\';
      out += c[0];
    } else if (c[0] == '\n') {
      out += "\\n";
    } else if (c[0] == '\r') {
      out += "\\r";
    } else if (c[0] == '\t') {
      out += "\\t";
    } else if (is_printable(c)) {
      out += c;
    } else if (point < 0x100) {
      append_hex(out, "\\x%02x", point);
    } else if (point < 0x10000) {
      append_hex(out, "\\u%04x", point);
    } else {
      append_hex(out, "\\U%08x", point);
    }
  }
  out += quote;
}

void repr(std::string& out, const Value& value, int depth);

void repr_items(std::string& out, const std::vector<Value>& items, int depth) {
  for (size_t i = 0; i < items.size(); ++i) {
    if (i > 0) out += ", ";
    repr(out, items[i], depth);
  }
}

void repr_dict(std::string& out, const Dict& dict, int depth) {
  out += '{';
  for (size_t i = 0; i < dict.items.size(); ++i) {
    if (i > 0) out += ", ";
    repr(out, dict.items[i].first, depth);
    out += ": ";
    repr(out, dict.items[i].second, depth);
  }
  out += '}';
}

void repr(std::string& out, const Value& value, int depth) {
  if (depth > kPrintDepthMax) fail("expected a value that can be printed, found one nested too deep");
  if (value.is_undefined()) {
    out += "Undefined";
  } else if (value.is_none()) {
    out += "None";
  } else if (value.is_bool()) {
    out += value.boolean() ? "True" : "False";
  } else if (value.is_int()) {
    out += std::to_string(value.integer());
  } else if (value.is_float()) {
    out += float_repr(value.number());
  } else if (value.is_string()) {
    repr_string(out, value.string());
  } else if (value.is_list()) {
    const List& list = value.list();
    if (list.kind == Sequence::kIterator) {
      out += "<generator object>";
    } else {
      out += list.kind == Sequence::kList ? '[' : '(';
      repr_items(out, list.items, depth + 1);
      if (list.kind == Sequence::kTuple && list.items.size() == 1) out += ',';
      out += list.kind == Sequence::kList ? ']' : ')';
    }
  } else if (value.is_dict()) {
    repr_dict(out, value.dict(), depth + 1);
  } else if (value.is_namespace()) {
    out += "<Namespace ";
    repr_dict(out, value.space().attributes, depth + 1);
    out += '>';
  } else {
    out += "<function " + value.callable().name + ">";
  }
}

void json_string(std::string& out, const std::string& text, bool ensure_ascii) {
  out += '"';
  for (size_t at = 0; at < text.size();) {
    const std::string_view c = character_at(text, at);
    at += c.size();
    const uint32_t point = uint32_t(code_point(c));
    switch (c[0]) {
      case '"':
        out += "\\\"";
        continue;
      case '\\':
        out += "\\\\";
        continue;
      case '\n':
        out += "\\n";
        continue;
      case '\r':
        out += "\\r";
        continue;
      case '\t':
        out += "\\t";
        continue;
      case '\f':
        out += "\\f";
        continue;
      case '\b':
        out += "\\b";
        continue;
      default:
        break;
    }
    if (point < 0x20 || (ensure_ascii && point >= 0x7F && point < 0x10000 && point != 0x7F)) {
      append_hex(out, "\\u%04x", point);
    } else if (ensure_ascii && point >= 0x10000) {
      append_hex(out, "\\u%04x", 0xD800 + ((point - 0x10000) >> 10));
      append_hex(out, "\\u%04x", 0xDC00 + ((point - 0x10000) & 0x3FF));
    } else {
      out += c;
    }
  }
  out += '"';
}

class JsonWriter {
 public:
  JsonWriter(const std::string* indent, std::string_view item, std::string_view key, bool ascii, bool sort)
      : indent_(indent), item_(item), key_(key), ascii_(ascii), sort_(sort) {}

  void write(const Value& value, int level) {
    if (level > kPrintDepthMax) fail("expected a value that can be printed, found one nested too deep");
    if (value.is_none()) {
      out += "null";
    } else if (value.is_bool()) {
      out += value.boolean() ? "true" : "false";
    } else if (value.is_int()) {
      out += std::to_string(value.integer());
    } else if (value.is_float()) {
      write_float(value.number());
    } else if (value.is_string()) {
      json_string(out, value.string(), ascii_);
    } else if (value.is_list() && value.list().kind != Sequence::kIterator) {
      write_list(value.list(), level);
    } else if (value.is_dict()) {
      write_dict(value.dict(), level);
    } else {
      fail(std::string("Object of type ") + value.type_name() + " is not JSON serializable");
    }
  }

  std::string out;

 private:
  void write_float(double number) {
    out += std::isnan(number)   ? "NaN"
           : std::isinf(number) ? (number > 0 ? "Infinity" : "-Infinity")
                                : float_repr(number);
  }

  void separator(bool first, int level) {
    if (!first) out += item_;
    if (!indent_) return;
    out += '\n';
    for (int i = 0; i < level; ++i) out += *indent_;
  }

  void write_list(const List& list, int level) {
    if (list.items.empty()) {
      out += "[]";
      return;
    }
    out += '[';
    for (size_t i = 0; i < list.items.size(); ++i) {
      separator(i == 0, level + 1);
      write(list.items[i], level + 1);
    }
    if (indent_) separator(true, level);
    out += ']';
  }

  void write_key(const Value& key) {
    if (key.is_string()) return json_string(out, key.string(), ascii_);
    if (!key.is_number() && !key.is_none()) {
      fail(std::string("keys must be str, int, float, bool or None, not ") + key.type_name());
    }
    out += '"';
    write(key, 0);
    out += '"';
  }

  void write_dict(const Dict& dict, int level) {
    if (dict.items.empty()) {
      out += "{}";
      return;
    }
    std::vector<const std::pair<Value, Value>*> items;
    for (const auto& item : dict.items) items.push_back(&item);
    if (sort_) {
      std::stable_sort(items.begin(), items.end(),
                       [](const auto* a, const auto* b) { return compare(a->first, b->first, "<") == -1; });
    }
    out += '{';
    for (size_t i = 0; i < items.size(); ++i) {
      separator(i == 0, level + 1);
      write_key(items[i]->first);
      out += key_;
      write(items[i]->second, level + 1);
    }
    if (indent_) separator(true, level);
    out += '}';
  }

  const std::string* indent_;
  std::string_view item_;
  std::string_view key_;
  bool ascii_;
  bool sort_;
};

}  // namespace

std::string float_repr(double value) {
  if (std::isnan(value)) return "nan";
  if (std::isinf(value)) return value > 0 ? "inf" : "-inf";
  char buffer[40];
  const auto end = std::to_chars(buffer, buffer + sizeof buffer, value, std::chars_format::scientific).ptr;
  const std::string text(buffer, end);
  const size_t e = text.find('e');
  const int exponent = std::atoi(text.c_str() + e + 1);
  std::string sign = text[0] == '-' ? "-" : "";
  std::string digits;
  for (char c : text.substr(0, e)) {
    if (c >= '0' && c <= '9') digits += c;
  }
  if (exponent < -4 || exponent >= 16) {
    std::string out = sign + digits.substr(0, 1);
    if (digits.size() > 1) out += "." + digits.substr(1);
    std::snprintf(buffer, sizeof buffer, "e%c%02d", exponent < 0 ? '-' : '+', std::abs(exponent));
    return out + buffer;
  }
  if (exponent < 0) return sign + "0." + std::string(size_t(-exponent - 1), '0') + digits;
  if (int(digits.size()) <= exponent + 1) {
    return sign + digits + std::string(size_t(exponent) + 1 - digits.size(), '0') + ".0";
  }
  return sign + digits.substr(0, size_t(exponent) + 1) + "." + digits.substr(size_t(exponent) + 1);
}

std::string to_repr(const Value& value) {
  std::string out;
  repr(out, value, 0);
  return out;
}

std::string to_text(const Value& value) {
  if (value.is_string()) return value.string();
  if (value.is_undefined()) return "";
  return to_repr(value);
}

std::string to_json(const Value& value, const std::string* indent, std::string_view item_separator,
                    std::string_view key_separator, bool ensure_ascii, bool sort_keys) {
  JsonWriter writer(indent, item_separator, key_separator, ensure_ascii, sort_keys);
  writer.write(value, 0);
  return std::move(writer.out);
}

}  // namespace spillway::text::jinja
