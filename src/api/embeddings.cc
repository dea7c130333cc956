#include "api/embeddings.h"

#include <fmt/format.h>

#include <iterator>

namespace spillway::api {

Parsed<EmbeddingsRequest> parse_embeddings_request(std::string_view body) {
  auto object = parse_body(body);
  if (!object) return object.error();
  std::optional<ApiError> failure;
  FieldReader reader(*object, "", failure);
  EmbeddingsRequest out;
  bool single = false;
  read_common(reader, out.common);
  read_inputs(reader, "input", out.inputs, single);
  size_t format = 0;
  reader.choice("encoding_format", {"float", "base64"}, format);
  out.base64 = format == 1;
  reader.integer("dimensions", 1, 1 << 20, out.dimensions);
  if (reader.find("normalize")) {
    bool normalize = true;
    reader.boolean("normalize", normalize);
    out.normalize = normalize;
  }
  reader.string("prompt_name", out.prompt_name);
  if (failure) return *failure;
  return out;
}

std::string embeddings_response(std::string_view model, std::span<const std::vector<float>> vectors, bool base64,
                                int64_t tokens) {
  std::string out = R"({"object":"list","data":[)";
  out.reserve(256 + vectors.size() * (48 + (vectors.empty() ? 0 : vectors[0].size() * 13)));
  for (size_t i = 0; i < vectors.size(); ++i) {
    if (i > 0) out += ',';
    fmt::format_to(std::back_inserter(out), R"({{"object":"embedding","index":{},"embedding":)", i);
    if (base64) {
      out += '"';
      append_base64(out, vectors[i]);
      out += '"';
    } else {
      append_floats(out, vectors[i]);
    }
    out += '}';
  }
  out += R"(],"model":)";
  append_json_string(out, model);
  fmt::format_to(std::back_inserter(out), R"(,"usage":{{"prompt_tokens":{0},"total_tokens":{0}}}}})", tokens);
  return out;
}

}  // namespace spillway::api
