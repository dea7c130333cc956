// POST /v1/embeddings as OpenAI has it, with vLLM's and sentence-transformers' extras. Pure functions over plain
// values, any thread.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "api/encode.h"

namespace spillway::api {

struct EmbeddingsRequest {
  EncodeCommon common;
  std::vector<TextOrIds> inputs;
  bool base64 = false;            // encoding_format
  std::optional<int> dimensions;  // the first so many, normalised again
  std::optional<bool> normalize;  // absent: as the model's own files say
  std::string prompt_name;        // of the model's sentence-transformers prompts; empty: its default
};

Parsed<EmbeddingsRequest> parse_embeddings_request(std::string_view body);

// {"object":"list","data":[{"object":"embedding","index":0,"embedding":[...]}],"model":...,"usage":{...}}
std::string embeddings_response(std::string_view model, std::span<const std::vector<float>> vectors, bool base64,
                                int64_t tokens);

}  // namespace spillway::api
