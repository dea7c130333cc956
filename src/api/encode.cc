#include "api/encode.h"

#include <fmt/format.h>

#include <array>
#include <boost/json/serialize.hpp>
#include <cmath>
#include <cstring>
#include <iterator>

#include "api/request_parts.h"

namespace spillway::api {
namespace json = boost::json;
namespace {

constexpr std::string_view kBase64 = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

bool read_id(const json::value& value, int32_t& out) {
  boost::system::error_code inexact;
  if (!value.is_number()) return false;
  const int64_t id = value.to_number<int64_t>(inexact);
  if (inexact || id < 0 || id > INT32_MAX) return false;
  out = static_cast<int32_t>(id);
  return true;
}

bool read_id_array(const json::array& items, std::vector<int32_t>& out) {
  out.resize(items.size());
  for (size_t i = 0; i < items.size(); ++i) {
    if (!read_id(items[i], out[i])) return false;
  }
  return !items.empty();
}

constexpr std::array<uint8_t, 256> base64_values() {
  std::array<uint8_t, 256> values{};
  values.fill(255);
  for (size_t i = 0; i < kBase64.size(); ++i) values[static_cast<uint8_t>(kBase64[i])] = static_cast<uint8_t>(i);
  values[static_cast<uint8_t>('-')] = 62;  // the URL alphabet
  values[static_cast<uint8_t>('_')] = 63;
  return values;
}

}  // namespace

void read_inputs(FieldReader& reader, std::string_view key, std::vector<TextOrIds>& out, bool& single) {
  constexpr std::string_view kExpected =
      "expected a string, an array of strings, an array of token ids or an array of such arrays, found ";
  const auto wrong = [&](const std::string& found) {
    reader.fail(ErrorKind::kInvalidFormat, key, std::string(kExpected) + found);
  };
  if (reader.failed()) return;
  const json::value* value = reader.find(key);
  if (!value) return wrong("nothing");
  single = true;
  if (value->is_string()) {
    out.emplace_back(std::string(value->get_string()));
    return;
  }
  const json::array* items = value->if_array();
  if (!items) return wrong(describe(*value));
  if (items->empty()) return wrong("an empty array");
  if ((*items)[0].is_number()) {
    std::vector<int32_t> ids;
    if (!read_id_array(*items, ids)) return wrong("an array that is not all token ids");
    out.emplace_back(std::move(ids));
    return;
  }
  single = false;
  if (items->size() > kInputsMax) {
    return reader.fail(ErrorKind::kInvalidParameters, key,
                       fmt::format("expected at most {} inputs, found {}", kInputsMax, items->size()));
  }
  for (const json::value& item : *items) {
    std::vector<int32_t> ids;
    if (item.is_string()) {
      out.emplace_back(std::string(item.get_string()));
    } else if (item.is_array() && read_id_array(item.get_array(), ids)) {
      out.emplace_back(std::move(ids));
    } else {
      return wrong(describe(item) + " in it");
    }
  }
}

void read_texts(FieldReader& reader, std::string_view key, std::vector<std::string>& out) {
  if (reader.failed()) return;
  const json::array* items = reader.array(key);
  if (reader.failed()) return;
  if (items == nullptr || items->empty()) {
    return reader.fail(ErrorKind::kInvalidFormat, key,
                       fmt::format("expected an array of texts, found {}", items ? "an empty array" : "nothing"));
  }
  if (items->size() > kInputsMax) {
    return reader.fail(ErrorKind::kInvalidParameters, key,
                       fmt::format("expected at most {} texts, found {}", kInputsMax, items->size()));
  }
  for (const json::value& item : *items) {
    const json::value* text = &item;
    if (item.is_object()) text = item.get_object().if_contains("text");
    if (text == nullptr || !text->is_string()) {
      return reader.fail(ErrorKind::kInvalidFormat, key,
                         "expected strings or objects with a \"text\", found " + describe(item) + " in it");
    }
    out.emplace_back(text->get_string());
  }
}

void read_common(FieldReader& reader, EncodeCommon& out) {
  reader.string("model", out.model);
  reader.string("user", out.user);
  read_scheduling(reader, out.priority, out.deadline_ms);
  std::optional<int> tokens;
  reader.integer("truncate_prompt_tokens", -1, kTokensMax, tokens);
  if (tokens && *tokens == 0) {
    reader.fail(ErrorKind::kInvalidParameters, "truncate_prompt_tokens", "expected -1 or a positive integer, found 0");
  }
  if (tokens) out.truncation = {true, false, std::max(*tokens, 0)};
}

void read_tei_truncation(FieldReader& reader, Truncation& out) {
  reader.boolean("truncate", out.cut);
  size_t direction = out.from_left ? 0 : 1;
  // TEI writes the directions capitalised; older clients send them in lower case.
  reader.choice("truncation_direction", {"Left", "Right", "left", "right"}, direction);
  out.from_left = direction % 2 == 0;
}

void append_float(std::string& out, float value) {
  if (!std::isfinite(value)) {
    out += "null";
    return;
  }
  char text[32];
  const auto end = fmt::format_to(text, "{}", value);
  std::string_view written(text, end - text);
  if (written.ends_with(".0")) written.remove_suffix(2);
  out += written;
}

void append_floats(std::string& out, std::span<const float> values) {
  out += '[';
  for (size_t i = 0; i < values.size(); ++i) {
    if (i > 0) out += ',';
    append_float(out, values[i]);
  }
  out += ']';
}

void append_base64(std::string& out, std::span<const float> values) {
  const auto* bytes = reinterpret_cast<const uint8_t*>(values.data());
  const size_t size = values.size_bytes();
  const size_t at = out.size();
  out.resize(at + (size + 2) / 3 * 4);
  char* to = out.data() + at;
  for (size_t i = 0; i < size; i += 3) {
    const uint32_t word = bytes[i] << 16 | (i + 1 < size ? bytes[i + 1] << 8 : 0) | (i + 2 < size ? bytes[i + 2] : 0);
    *to++ = kBase64[word >> 18];
    *to++ = kBase64[word >> 12 & 63];
    *to++ = i + 1 < size ? kBase64[word >> 6 & 63] : '=';
    *to++ = i + 2 < size ? kBase64[word & 63] : '=';
  }
}

std::optional<std::string> decode_base64(std::string_view text) {
  static constexpr auto kValues = base64_values();
  while (text.ends_with('=')) text.remove_suffix(1);
  std::string out;
  out.reserve(text.size() / 4 * 3 + 3);
  uint32_t word = 0;
  int bits = 0;
  for (const char c : text) {
    if (c == '\n' || c == '\r') continue;
    const uint8_t value = kValues[static_cast<uint8_t>(c)];
    if (value == 255) return std::nullopt;
    word = word << 6 | value;
    bits += 6;
    if (bits >= 8) {
      bits -= 8;
      out += static_cast<char>(word >> bits);
    }
  }
  if (bits == 6) return std::nullopt;  // a lone character
  return out;
}

void append_json_string(std::string& out, std::string_view text) {
  constexpr std::string_view kHex = "0123456789abcdef";
  out += '"';
  for (const char c : text) {
    if (c == '"' || c == '\\') {
      out += '\\';
      out += c;
    } else if (static_cast<unsigned char>(c) < 0x20) {
      out += "\\u00";
      out += kHex[static_cast<unsigned char>(c) >> 4];
      out += kHex[c & 15];
    } else {
      out += c;
    }
  }
  out += '"';
}

}  // namespace spillway::api
