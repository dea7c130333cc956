#include "api/tf_serving.h"

#include <fmt/format.h>

namespace spillway::api {
namespace json = boost::json;
namespace {

constexpr size_t kValuesMax = size_t{1} << 26;
constexpr int kNestingMax = 4;

bool flatten(const json::value& value, std::vector<float>& out, int depth = 0) {
  if (const json::array* items = value.if_array()) {
    if (depth > kNestingMax) return false;
    for (const json::value& item : *items) {
      if (!flatten(item, out, depth + 1)) return false;
    }
    return true;
  }
  if (!value.is_number() || out.size() == kValuesMax) return false;
  out.push_back(value.to_number<float>());
  return true;
}

bool read_ids(const json::array& items, std::vector<int32_t>& out) {
  for (const json::value& item : items) {
    boost::system::error_code inexact;
    if (!item.is_int64() && !item.is_uint64()) return false;
    out.push_back(item.to_number<int32_t>(inexact));
    if (inexact) return false;
  }
  return !items.empty();
}

// Ids with the mask and the types that stand beside them.
bool read_token_rows(const json::object& object, TfInput& out) {
  std::vector<int32_t> ids, mask, types;
  for (const auto& [name, value] : object) {
    std::vector<int32_t>* row = name == "input_ids"        ? &ids
                                : name == "attention_mask" ? &mask
                                : name == "token_type_ids" ? &types
                                                           : nullptr;
    if (!row || !value.is_array() || !read_ids(value.get_array(), *row)) return false;
  }
  if ((!mask.empty() && mask.size() != ids.size()) || (!types.empty() && types.size() != ids.size())) return false;
  TfIds kept;
  for (size_t i = 0; i < ids.size(); ++i) {
    if (!mask.empty() && mask[i] == 0) continue;
    kept.ids.push_back(ids[i]);
    if (!types.empty()) kept.types.push_back(types[i]);
  }
  if (kept.ids.empty()) return false;
  out = std::move(kept);
  return true;
}

bool read_instance(const json::value& value, TfInput& out) {
  if (value.is_string()) {
    out = std::string(value.get_string());
    return true;
  }
  if (const json::array* items = value.if_array()) {
    if (items->empty()) return false;
    if (!(*items)[0].is_array()) {
      TfIds ids;
      if (!read_ids(*items, ids.ids)) return false;
      out = std::move(ids);
      return true;
    }
    TfPixels pixels;
    if (!flatten(value, pixels.values)) return false;
    out = std::move(pixels);
    return true;
  }
  const json::object* object = value.if_object();
  if (object == nullptr) return false;
  if (const json::value* bytes = object->if_contains("b64")) {
    auto file = bytes->is_string() ? decode_base64(bytes->get_string()) : std::nullopt;
    if (!file) return false;
    out = TfImage{std::move(*file)};
    return true;
  }
  if (object->contains("input_ids")) return read_token_rows(*object, out);
  if (object->size() != 1) return false;
  for (const char* key : {"text", "pixel_values", "image"}) {
    if (const json::value* inner = object->if_contains(key))
      return !inner->is_object() || inner->get_object().contains("b64") ? read_instance(*inner, out) : false;
  }
  return false;
}

// {"a": [1, 2], "b": [3, 4]} as [{"a": 1, "b": 3}, {"a": 2, "b": 4}]; nothing where the columns are not equally long.
std::optional<json::array> rows_of(const json::object& columns) {
  json::array rows;
  for (const auto& [name, column] : columns) {
    const json::array* items = column.if_array();
    if (!items || items->size() > kInputsMax || (!rows.empty() && items->size() != rows.size())) return std::nullopt;
    if (rows.empty()) rows.resize(items->size(), json::object());
    for (size_t i = 0; i < items->size(); ++i) rows[i].as_object()[name] = (*items)[i];
  }
  return rows;
}

}  // namespace

Parsed<TfPredictRequest> parse_tf_predict_request(std::string_view body) {
  auto object = parse_body(body);
  if (!object) return object.error();
  TfPredictRequest out;
  out.columns = object->contains("inputs");
  const char* key = out.columns ? "inputs" : "instances";
  const auto wrong = [&](std::string message) {
    return ApiError{ErrorKind::kInvalidFormat, std::string(key) + ": " + std::move(message), key, ""};
  };
  if (out.columns && object->contains("instances")) return wrong("expected inputs or instances, found both");
  if (const json::value* name = object->if_contains("signature_name"); name && *name != "serving_default") {
    return ApiError{ErrorKind::kInvalidFormat, "signature_name: expected serving_default, found " + describe(*name),
                    "signature_name", ""};
  }
  const json::value* value = object->if_contains(key);
  json::value rows;
  if (out.columns && value->is_object()) {
    std::optional<json::array> of_columns = rows_of(value->get_object());
    if (!of_columns) return wrong("expected arrays of the same length by name");
    rows = std::move(*of_columns);
    value = &rows;
  }
  const json::array* items = value != nullptr ? value->if_array() : nullptr;
  if (items == nullptr || items->empty() || items->size() > kInputsMax) {
    return wrong(fmt::format("expected an array of 1 to {} inputs, found {}", kInputsMax,
                             items   ? fmt::format("{}", items->size())
                             : value ? describe(*value)
                                     : "nothing"));
  }
  for (size_t i = 0; i < items->size(); ++i) {
    TfInput input;
    if (!read_instance((*items)[i], input)) {
      return wrong(
          fmt::format("expected a text, token ids, pixels or {{\"b64\": ...}} at {}, or an object with text, "
                      "input_ids (with attention_mask and token_type_ids, as long), pixel_values or image, found {}",
                      i, describe((*items)[i])));
    }
    out.inputs.push_back(std::move(input));
  }
  return out;
}

std::string tf_predict_response(std::span<const std::vector<float>> rows, bool columns) {
  std::string out = columns ? R"({"outputs":[)" : R"({"predictions":[)";
  for (size_t i = 0; i < rows.size(); ++i) {
    if (i > 0) out += ',';
    append_floats(out, rows[i]);
  }
  return out + "]}";
}

}  // namespace spillway::api
