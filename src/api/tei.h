// The API of Text Embeddings Inference: /embed, /embed_all, /embed_sparse, /predict, /similarity, /info. (/rerank is in
// rerank.h.) Pure functions over plain values, any thread.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "api/encode.h"

namespace spillway::api {

struct TeiEmbedRequest {
  EncodeCommon common;
  std::vector<TextOrIds> inputs;
  bool single = false;
  bool normalize = true;
  std::optional<int> dimensions;
  std::string prompt_name;
};

// Of /embed, /embed_all and /embed_sparse.
Parsed<TeiEmbedRequest> parse_tei_embed_request(std::string_view body);

// /similarity: the source sentence first, then those it is compared with.
Parsed<TeiEmbedRequest> parse_tei_similarity_request(std::string_view body);

struct TeiPredictRequest {
  struct Input {
    std::string first;
    std::optional<std::string> second;
  };
  EncodeCommon common;
  std::vector<Input> inputs;
  bool batch = false;  // "inputs" was an array of arrays: the answer is an array of arrays
  bool raw_scores = false;
};

Parsed<TeiPredictRequest> parse_tei_predict_request(std::string_view body);

// /decode: "ids" of one text or an array of them.
struct TeiDecodeRequest {
  std::string model;
  std::vector<std::vector<int32_t>> ids;
  bool skip_special_tokens = true;
};
Parsed<TeiDecodeRequest> parse_tei_decode_request(std::string_view body);
std::string tei_decode_response(std::span<const std::string> texts);  // ["...", ...]

std::string tei_vectors_response(std::span<const std::vector<float>> vectors);                      // [[...], ...]
std::string tei_matrices_response(std::span<const std::vector<float>> matrices, size_t row_width);  // [[[...]]]
std::string tei_sparse_response(std::span<const std::vector<float>> weights);  // [[{"index","value"}]], zeros left out
std::string tei_predict_response(const TeiPredictRequest& request, const std::vector<std::string>& labels,
                                 const std::vector<std::vector<float>>& scores);

struct TeiInfo {
  std::string model_id;
  std::string dtype;
  std::string model_type;  // "embedding", "classifier", "reranker"
  std::vector<std::string> labels;
  int max_concurrent_requests = 0;
  int max_input_length = 0;
  int64_t max_batch_tokens = 0;
  int max_batch_requests = 0;
  std::string version;
};
std::string tei_info_response(const TeiInfo& info);

}  // namespace spillway::api
