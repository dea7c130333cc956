// Scores of texts: /rerank in the shapes of Cohere, Jina and TEI, /score and /classify in vLLM's. Pure functions over
// plain values, any thread.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "api/encode.h"

namespace spillway::api {

struct RerankRequest {
  EncodeCommon common;
  std::string query;
  std::vector<std::string> documents;
  std::optional<int> top_n;
  bool return_documents = false;
  bool tei = false;         // it came with "texts": the answer is TEI's plain array
  bool raw_scores = false;  // TEI: without the sigmoid
};

struct Ranked {
  int index = 0;
  float score = 0;
};

Parsed<RerankRequest> parse_rerank_request(std::string_view body);

// ranked: best first, cut to top_n.
std::string rerank_response(const RerankRequest& request, std::string_view id, std::string_view model,
                            const std::vector<Ranked>& ranked, int64_t tokens);

struct ScoreRequest {
  EncodeCommon common;
  std::vector<std::pair<std::string, std::string>> pairs;
};

Parsed<ScoreRequest> parse_score_request(std::string_view body);
std::string score_response(const ResponseHead& head, const std::vector<float>& scores, int64_t tokens);

struct ClassifyRequest {
  EncodeCommon common;
  std::vector<TextOrIds> inputs;    // texts, or
  std::vector<std::string> images;  // bytes of image files
  int top_k = 0;                    // 0: no list of the best labels
};

Parsed<ClassifyRequest> parse_classify_request(std::string_view body);
// probabilities: one row an input, in the order of labels.
std::string classify_response(const ResponseHead& head, const std::vector<std::string>& labels,
                              const std::vector<std::vector<float>>& probabilities, int top_k, int64_t tokens);

// Indices of the highest values, best first.
std::vector<int> best(const std::vector<float>& values, size_t count);

}  // namespace spillway::api
