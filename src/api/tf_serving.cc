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

bool read_instance(const json::value& value, TfInput& out) {
  if (value.is_string()) {
    out = std::string(value.get_string());
    return true;
  }
  if (const json::array* items = value.if_array()) {
    if (items->empty()) return false;
    if (!(*items)[0].is_array()) {
      std::vector<int32_t> ids;
      if (!read_ids(*items, ids)) return false;
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
  for (const char* key : {"text", "input_ids", "pixel_values", "image"}) {
    if (const json::value* inner = object->if_contains(key))
      return !inner->is_object() || inner->get_object().contains("b64") ? read_instance(*inner, out) : false;
  }
  return false;
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
  const json::value* value = object->if_contains(key);
  if (out.columns && value->is_object() && value->get_object().size() == 1)
    value = &value->get_object().begin()->value();
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
      return wrong(fmt::format("expected a text, token ids, pixels or {{\"b64\": ...}} at {}, found {}", i,
                               describe((*items)[i])));
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
