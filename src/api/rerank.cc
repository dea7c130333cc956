#include "api/rerank.h"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>
#include <numeric>

namespace spillway::api {
namespace json = boost::json;
namespace {

void append_head(std::string& out, const ResponseHead& head) {
  out += R"({"id":)";
  append_json_string(out, head.id);
  fmt::format_to(std::back_inserter(out), R"(,"object":"list","created":{},"model":)", head.created);
  append_json_string(out, head.model);
}

void append_usage(std::string& out, int64_t tokens) {
  fmt::format_to(std::back_inserter(out),
                 R"(,"usage":{{"prompt_tokens":{0},"total_tokens":{0},"completion_tokens":0}}}})", tokens);
}

// One side of a score request: a text or an array of them.
std::vector<std::string> texts_of(FieldReader& reader, std::string_view key) {
  std::vector<std::string> out;
  const json::value* value = reader.find(key);
  if (value != nullptr && value->is_string()) {
    out.emplace_back(value->get_string());
  } else {
    read_texts(reader, key, out);
  }
  return out;
}

// "data:image/png;base64,...." or the base64 alone.
bool read_image(const json::value& value, std::string& out) {
  if (!value.is_string()) return false;
  std::string_view text(value.get_string());
  if (text.starts_with("data:")) {
    const size_t comma = text.find(";base64,");
    if (comma == std::string_view::npos) return false;
    text.remove_prefix(comma + 8);
  }
  auto bytes = decode_base64(text);
  if (!bytes || bytes->empty()) return false;
  out = std::move(*bytes);
  return true;
}

void read_images(FieldReader& reader, std::vector<std::string>& out) {
  const char* key = reader.find("images") ? "images" : "image";
  const json::value* value = reader.find(key);
  if (value == nullptr) return;
  const auto add = [&](const json::value& item) {
    std::string bytes;
    if (read_image(item, bytes)) {
      out.push_back(std::move(bytes));
    } else {
      reader.fail(ErrorKind::kInvalidFormat, key, "expected base64 of an image file, found " + describe(item));
    }
  };
  if (const json::array* items = value->if_array()) {
    if (items->empty() || items->size() > kInputsMax) {
      return reader.fail(ErrorKind::kInvalidParameters, key,
                         fmt::format("expected 1 to {} images, found {}", kInputsMax, items->size()));
    }
    for (const json::value& item : *items) add(item);
  } else {
    add(*value);
  }
}

}  // namespace

std::vector<int> best(const std::vector<float>& values, size_t count) {
  std::vector<int> order(values.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int a, int b) { return values[a] > values[b]; });
  order.resize(std::min(count, order.size()));
  return order;
}

Parsed<RerankRequest> parse_rerank_request(std::string_view body) {
  auto object = parse_body(body);
  if (!object) return object.error();
  std::optional<ApiError> failure;
  FieldReader reader(*object, "", failure);
  RerankRequest out;
  read_common(reader, out.common);
  // Rerankers cut long documents unless told otherwise; that is what all three APIs do.
  if (out.common.truncation.tokens_max == 0) out.common.truncation.cut = true;
  if (!reader.find("query")) reader.fail(ErrorKind::kInvalidFormat, "query", "expected a string, found nothing");
  reader.string("query", out.query);
  out.tei = reader.find("texts") != nullptr;
  read_texts(reader, out.tei ? "texts" : "documents", out.documents);
  reader.integer("top_n", 1, 1 << 30, out.top_n);
  reader.boolean("return_documents", out.return_documents);
  reader.boolean("raw_scores", out.raw_scores);
  std::optional<int> tokens;
  reader.integer("max_tokens_per_doc", 1, 1 << 30, tokens);
  if (tokens) out.common.truncation.tokens_max = *tokens;
  if (out.tei) {
    reader.boolean("return_text", out.return_documents);
    read_tei_truncation(reader, out.common.truncation);
  }
  if (failure) return *failure;
  return out;
}

std::string rerank_response(const RerankRequest& request, std::string_view id, std::string_view model,
                            const std::vector<Ranked>& ranked, int64_t tokens) {
  std::string out;
  if (!request.tei) {
    out += R"({"id":)";
    append_json_string(out, id);
    out += R"(,"model":)";
    append_json_string(out, model);
    out += R"(,"results":)";
  }
  out += '[';
  for (const Ranked& one : ranked) {
    if (out.back() != '[') out += ',';
    fmt::format_to(std::back_inserter(out), R"({{"index":{},"{}":)", one.index,
                   request.tei ? "score" : "relevance_score");
    append_float(out, one.score);
    if (request.return_documents) {
      out += request.tei ? R"(,"text":)" : R"(,"document":{"text":)";
      append_json_string(out, request.documents[one.index]);
      if (!request.tei) out += '}';
    }
    out += '}';
  }
  out += ']';
  if (request.tei) return out;
  fmt::format_to(std::back_inserter(out),
                 R"(,"meta":{{"api_version":{{"version":"2"}},"billed_units":{{"search_units":1}}}})"
                 R"(,"usage":{{"prompt_tokens":{0},"total_tokens":{0}}}}})",
                 tokens);
  return out;
}

Parsed<ScoreRequest> parse_score_request(std::string_view body) {
  auto object = parse_body(body);
  if (!object) return object.error();
  std::optional<ApiError> failure;
  FieldReader reader(*object, "", failure);
  ScoreRequest out;
  read_common(reader, out.common);
  if (out.common.truncation.tokens_max == 0) out.common.truncation.cut = true;
  // vLLM calls them text_1 and text_2, later also queries and documents.
  const bool named = reader.find("queries") != nullptr;
  const std::vector<std::string> first = texts_of(reader, named ? "queries" : "text_1");
  const std::vector<std::string> second = texts_of(reader, named ? "documents" : "text_2");
  if (!reader.failed() && first.size() != 1 && first.size() != second.size()) {
    reader.fail(
        ErrorKind::kInvalidParameters, named ? "queries" : "text_1",
        fmt::format("expected one text or as many as the other side's {}, found {}", second.size(), first.size()));
  }
  if (failure) return *failure;
  for (size_t i = 0; i < second.size(); ++i) out.pairs.emplace_back(first[first.size() == 1 ? 0 : i], second[i]);
  return out;
}

std::string score_response(const ResponseHead& head, const std::vector<float>& scores, int64_t tokens) {
  std::string out;
  append_head(out, head);
  out += R"(,"data":[)";
  for (size_t i = 0; i < scores.size(); ++i) {
    fmt::format_to(std::back_inserter(out), R"({}{{"index":{},"object":"score","score":)", i > 0 ? "," : "", i);
    append_float(out, scores[i]);
    out += '}';
  }
  out += ']';
  append_usage(out, tokens);
  return out;
}

Parsed<ClassifyRequest> parse_classify_request(std::string_view body) {
  auto object = parse_body(body);
  if (!object) return object.error();
  std::optional<ApiError> failure;
  FieldReader reader(*object, "", failure);
  ClassifyRequest out;
  read_common(reader, out.common);
  reader.integer("top_k", 0, 1 << 20, out.top_k);
  read_images(reader, out.images);
  bool single = false;
  if (out.images.empty() && !reader.failed()) read_inputs(reader, "input", out.inputs, single);
  if (failure) return *failure;
  return out;
}

std::string classify_response(const ResponseHead& head, const std::vector<std::string>& labels,
                              const std::vector<std::vector<float>>& probabilities, int top_k, int64_t tokens) {
  std::string out;
  append_head(out, head);
  out += R"(,"data":[)";
  for (size_t i = 0; i < probabilities.size(); ++i) {
    const std::vector<float>& row = probabilities[i];
    const std::vector<int> order = best(row, std::max(top_k, 1));
    fmt::format_to(std::back_inserter(out), R"({}{{"index":{},"label":)", i > 0 ? "," : "", i);
    append_json_string(out, order.empty() ? std::string_view() : std::string_view(labels[order[0]]));
    out += R"(,"probs":)";
    append_floats(out, row);
    fmt::format_to(std::back_inserter(out), R"(,"num_classes":{})", row.size());
    if (top_k > 0) {
      out += R"(,"scores":[)";
      for (const int label : order) {
        if (out.back() != '[') out += ',';
        out += R"({"label":)";
        append_json_string(out, labels[label]);
        out += R"(,"score":)";
        append_float(out, row[label]);
        out += '}';
      }
      out += ']';
    }
    out += '}';
  }
  out += ']';
  append_usage(out, tokens);
  return out;
}

}  // namespace spillway::api
