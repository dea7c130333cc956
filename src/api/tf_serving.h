// TensorFlow Serving's REST API: :predict in its row form ("instances") and its column form ("inputs"). Pure functions
// over plain values, any thread.
#pragma once

#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "api/encode.h"

namespace spillway::api {

struct TfImage {
  std::string file;  // of {"b64": ...}
};
struct TfPixels {
  std::vector<float> values;  // flattened
};
struct TfIds {
  std::vector<int32_t> ids;    // without what the mask leaves out
  std::vector<int32_t> types;  // empty, or one an id
};
using TfInput = std::variant<std::string, TfIds, TfImage, TfPixels>;

struct TfPredictRequest {
  std::vector<TfInput> inputs;
  bool columns = false;
};

// An instance is a text, an array of token ids, nested arrays of pixels, {"b64": image file}, or an object with one of
// these as "text", "input_ids" (with "attention_mask" and "token_type_ids"), "pixel_values", "image". The column form
// has arrays of them by these names. Anything else that is named is an error, as is a signature other than the one.
Parsed<TfPredictRequest> parse_tf_predict_request(std::string_view body);

// {"predictions": [...]}, or {"outputs": [...]} for the column form.
std::string tf_predict_response(std::span<const std::vector<float>> rows, bool columns);

}  // namespace spillway::api
