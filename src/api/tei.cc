#include "api/tei.h"

#include <fmt/format.h>

#include <boost/json/serialize.hpp>
#include <iterator>

#include "api/encode.h"
#include "api/request_parts.h"
#include "api/rerank.h"

namespace spillway::api {
namespace json = boost::json;
namespace {

using Input = TeiPredictRequest::Input;

void read_embed_fields(FieldReader& reader, TeiEmbedRequest& out) {
  read_common(reader, out.common);
  out.common.truncation.cut = true;  // TEI's --auto-truncate, which it has on
  read_tei_truncation(reader, out.common.truncation);
  reader.boolean("normalize", out.normalize);
  reader.integer("dimensions", 1, 1 << 20, out.dimensions);
  reader.string("prompt_name", out.prompt_name);
}

std::optional<Input> predict_input(const json::array& texts) {
  if (texts.empty() || texts.size() > 2) return std::nullopt;
  for (const json::value& text : texts) {
    if (!text.is_string()) return std::nullopt;
  }
  Input input{std::string(texts[0].get_string()), std::nullopt};
  if (texts.size() == 2) input.second = std::string(texts[1].get_string());
  return input;
}

// "text", ["text"], ["first", "second"], or an array of such arrays.
void read_predict_inputs(FieldReader& reader, TeiPredictRequest& out) {
  constexpr std::string_view kExpected = "expected a text, a pair of texts or an array of these as arrays, found ";
  const auto wrong = [&](const std::string& found) {
    reader.fail(ErrorKind::kInvalidFormat, "inputs", std::string(kExpected) + found);
  };
  const json::value* value = reader.find("inputs");
  if (value == nullptr) return wrong("nothing");
  if (value->is_string()) {
    out.inputs.push_back({std::string(value->get_string()), std::nullopt});
    return;
  }
  const json::array* items = value->if_array();
  if (items == nullptr || items->empty()) return wrong(items ? "an empty array" : describe(*value));
  if (auto one = predict_input(*items)) {
    out.inputs.push_back(std::move(*one));
    return;
  }
  out.batch = true;
  if (items->size() > kInputsMax) return wrong(fmt::format("{} inputs, more than {}", items->size(), kInputsMax));
  for (const json::value& item : *items) {
    auto one = item.is_array() ? predict_input(item.get_array()) : std::nullopt;
    if (!one) return wrong(describe(item) + " in it");
    out.inputs.push_back(std::move(*one));
  }
}

}  // namespace

Parsed<TeiEmbedRequest> parse_tei_embed_request(std::string_view body) {
  auto object = parse_body(body);
  if (!object) return object.error();
  std::optional<ApiError> failure;
  FieldReader reader(*object, "", failure);
  TeiEmbedRequest out;
  read_embed_fields(reader, out);
  read_inputs(reader, "inputs", out.inputs, out.single);
  if (failure) return *failure;
  return out;
}

Parsed<TeiEmbedRequest> parse_tei_similarity_request(std::string_view body) {
  auto object = parse_body(body);
  if (!object) return object.error();
  std::optional<ApiError> failure;
  FieldReader reader(*object, "", failure);
  TeiEmbedRequest out;
  read_common(reader, out.common);
  out.common.truncation.cut = true;
  const json::object* inputs = reader.object("inputs");
  if (inputs == nullptr) {
    reader.fail(ErrorKind::kInvalidFormat, "inputs",
                "expected an object with source_sentence and sentences, found nothing");
    return *failure;
  }
  FieldReader pair(*inputs, "inputs", failure);
  std::optional<std::string> source;
  pair.string("source_sentence", source);
  if (!source) pair.fail(ErrorKind::kInvalidFormat, "source_sentence", "expected a string, found nothing");
  std::vector<std::string> sentences;
  read_texts(pair, "sentences", sentences);
  if (const json::object* parameters = reader.object("parameters")) {
    FieldReader inner(*parameters, "parameters", failure);
    read_tei_truncation(inner, out.common.truncation);
    inner.string("prompt_name", out.prompt_name);
  }
  if (failure) return *failure;
  out.inputs.emplace_back(std::move(*source));
  for (std::string& sentence : sentences) out.inputs.emplace_back(std::move(sentence));
  return out;
}

Parsed<TeiPredictRequest> parse_tei_predict_request(std::string_view body) {
  auto object = parse_body(body);
  if (!object) return object.error();
  std::optional<ApiError> failure;
  FieldReader reader(*object, "", failure);
  TeiPredictRequest out;
  read_common(reader, out.common);
  out.common.truncation.cut = true;
  read_tei_truncation(reader, out.common.truncation);
  reader.boolean("raw_scores", out.raw_scores);
  if (!reader.failed()) read_predict_inputs(reader, out);
  if (failure) return *failure;
  return out;
}

Parsed<TeiDecodeRequest> parse_tei_decode_request(std::string_view body) {
  auto object = parse_body(body);
  if (!object) return object.error();
  std::optional<ApiError> failure;
  FieldReader reader(*object, "", failure);
  TeiDecodeRequest out;
  reader.string("model", out.model);
  reader.boolean("skip_special_tokens", out.skip_special_tokens);
  const json::array* ids = reader.array("ids");
  if (failure) return *failure;
  if (ids == nullptr || ids->empty()) {
    return ApiError{ErrorKind::kInvalidFormat, "ids: expected an array of token ids or of arrays of them.", "ids", ""};
  }
  const bool several = ids->front().is_array();
  for (const json::value& each : several ? *ids : json::array{*ids}) {
    const json::object one{{"ids", each}};
    FieldReader inner(one, "", failure);
    read_ids(inner, "ids", out.ids.emplace_back());
    if (failure) return *failure;
  }
  return out;
}

std::string tei_decode_response(std::span<const std::string> texts) {
  std::string out = "[";
  for (const std::string& text : texts) {
    if (out.size() > 1) out += ',';
    append_json_string(out, text);
  }
  return out + "]";
}

std::string tei_vectors_response(std::span<const std::vector<float>> vectors) {
  std::string out = "[";
  for (const std::vector<float>& vector : vectors) {
    if (out.size() > 1) out += ',';
    append_floats(out, vector);
  }
  return out + "]";
}

std::string tei_matrices_response(std::span<const std::vector<float>> matrices, size_t row_width) {
  std::string out = "[";
  for (const std::vector<float>& matrix : matrices) {
    if (out.size() > 1) out += ',';
    out += '[';
    for (size_t at = 0; at + row_width <= matrix.size() && row_width > 0; at += row_width) {
      if (at > 0) out += ',';
      append_floats(out, std::span(matrix).subspan(at, row_width));
    }
    out += ']';
  }
  return out + "]";
}

std::string tei_sparse_response(std::span<const std::vector<float>> weights) {
  std::string out = "[";
  for (const std::vector<float>& row : weights) {
    if (out.size() > 1) out += ',';
    out += '[';
    for (size_t i = 0; i < row.size(); ++i) {
      if (row[i] == 0) continue;
      fmt::format_to(std::back_inserter(out), R"({}{{"index":{},"value":)", out.back() == '[' ? "" : ",", i);
      append_float(out, row[i]);
      out += '}';
    }
    out += ']';
  }
  return out + "]";
}

std::string tei_predict_response(const TeiPredictRequest& request, const std::vector<std::string>& labels,
                                 const std::vector<std::vector<float>>& scores) {
  std::string out;
  if (request.batch) out += '[';
  for (size_t i = 0; i < scores.size(); ++i) {
    out += i > 0 ? ",[" : "[";
    for (const int label : best(scores[i], scores[i].size())) {
      if (out.back() != '[') out += ',';
      out += R"({"score":)";
      append_float(out, scores[i][label]);
      out += R"(,"label":)";
      append_json_string(out, labels[label]);
      out += '}';
    }
    out += ']';
  }
  if (request.batch) out += ']';
  return out;
}

std::string tei_info_response(const TeiInfo& info) {
  json::object type;
  if (info.model_type == "embedding") {
    type["embedding"] = json::object{{"pooling", "model"}};
  } else {
    json::object id2label, label2id;
    for (size_t i = 0; i < info.labels.size(); ++i) {
      id2label[std::to_string(i)] = info.labels[i];
      label2id[info.labels[i]] = i;
    }
    type[info.model_type] = json::object{{"id2label", std::move(id2label)}, {"label2id", std::move(label2id)}};
  }
  return json::serialize(json::object{{"model_id", info.model_id},
                                      {"model_sha", nullptr},
                                      {"model_dtype", info.dtype},
                                      {"model_type", std::move(type)},
                                      {"max_concurrent_requests", info.max_concurrent_requests},
                                      {"max_input_length", info.max_input_length},
                                      {"max_batch_tokens", info.max_batch_tokens},
                                      {"max_batch_requests", info.max_batch_requests},
                                      {"max_client_batch_size", kInputsMax},
                                      {"auto_truncate", true},
                                      {"tokenization_workers", 1},
                                      {"version", info.version},
                                      {"sha", nullptr},
                                      {"docker_label", nullptr}});
}

}  // namespace spillway::api
