// What the protocols do with a one-shot model, independent of their wording: embeddings, scores of pairs, classes. Pure
// functions that make engine requests of inputs and results of outputs; any thread. Not its job: running them.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "api/encode.h"
#include "engine/one_shot_engine.h"
#include "server/served_one_shot.h"

namespace spillway::server {

using OneShotRequests = std::vector<engine::OneShotRequest>;
using Vectors = std::vector<std::vector<float>>;

// An error of the inputs names them: "input[3]".
api::Parsed<OneShotRequests> text_requests(const ServedOneShot& model, std::span<const api::TextOrIds> inputs,
                                           std::string_view prompt_name, const api::Truncation& truncation,
                                           models::OneShotOutput output);
api::Parsed<OneShotRequests> image_requests(const ServedOneShot& model, std::span<const std::string> files);

// Of a pair: a reranker's score, or the cosine of two embeddings where the model only gives those.
using TextPair = std::pair<std::string_view, std::string_view>;
struct ScorePlan {
  bool cosine = false;
  OneShotRequests requests;                      // cosine: one for each different text
  std::vector<std::pair<size_t, size_t>> pairs;  // cosine: which of them
};
api::Parsed<ScorePlan> score_plan(const ServedOneShot& model, std::span<const TextPair> pairs,
                                  const api::Truncation& truncation);
// raw: a reranker's logit, without the sigmoid.
std::vector<float> scores(const std::vector<std::pair<size_t, size_t>>& pairs, bool cosine, const Vectors& outputs,
                          bool raw);

// The first dimensions of it (none: all), of length 1 where asked for or cut.
void shape_embedding(std::vector<float>& vector, std::optional<int> dimensions, bool normalize);

// Softmax, or a sigmoid each for models whose labels do not exclude each other.
void to_probabilities(std::vector<float>& logits, bool multi_label);

int64_t token_count(const OneShotRequests& requests);

// What a model has to offer for a task, or an error that says what it offers instead.
std::optional<api::ApiError> lacks(const ServedOneShot& model, models::OneShotOutput output);
std::string_view name_of(models::OneShotOutput output);

}  // namespace spillway::server
