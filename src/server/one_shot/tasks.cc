#include "server/one_shot/tasks.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>

#include "api/encode.h"
#include "engine/batching/one_shot_admission.h"

namespace spillway::server {

static_assert(api::kInputsMax <= engine::kInputsAtOnce, "a request that was read could be too long for every line");

using api::ApiError;
using api::ErrorKind;
using models::OneShotOutput;

namespace {

engine::OneShotRequest request_of(text::Encoding encoding, OneShotOutput output) {
  engine::OneShotRequest request;
  request.tokens = std::move(encoding.ids);
  request.types = std::move(encoding.type_ids);
  request.output = output;
  return request;
}

ApiError at_input(ApiError error, std::string_view name, size_t index) {
  error.message = fmt::format("{}[{}]: {}", name, index, error.message);
  return error;
}

float dot(const std::vector<float>& a, const std::vector<float>& b) {
  double sum = 0;
  for (size_t i = 0; i < a.size(); ++i) sum += double(a[i]) * b[i];
  return static_cast<float>(sum);
}

}  // namespace

std::string_view name_of(OneShotOutput output) {
  switch (output) {
    case OneShotOutput::kEmbedding:
      return "embeddings";
    case OneShotOutput::kTokenVectors:
      return "token vectors";
    case OneShotOutput::kScores:
      return "scores";
    case OneShotOutput::kPooled:
      return "pooled vectors";
    case OneShotOutput::kSparse:
      break;
  }
  return "sparse embeddings";
}

std::optional<ApiError> lacks(const ServedOneShot& model, OneShotOutput output) {
  if (model.offers(output)) return std::nullopt;
  std::string offered;
  for (const OneShotOutput each : model.info().outputs)
    offered += fmt::format("{}{}", offered.empty() ? "" : ", ", name_of(each));
  return ApiError{ErrorKind::kUnsupported,
                  fmt::format("The model {} ({}) gives no {}; it gives {}.", model.name(), model.info().architecture,
                              name_of(output), offered),
                  "model", "model_not_suitable"};
}

api::Parsed<OneShotRequests> text_requests(const ServedOneShot& model, std::span<const api::TextOrIds> inputs,
                                           std::string_view prompt_name, const api::Truncation& truncation,
                                           OneShotOutput output) {
  if (auto error = lacks(model, output)) return std::move(*error);
  if (model.text() == nullptr) {
    return ApiError{ErrorKind::kUnsupported, "The model " + model.name() + " takes images, not text.", "model", ""};
  }
  const auto prompt = model.text()->prompt(prompt_name);
  if (!prompt.ok()) return prompt.error();
  OneShotRequests requests;
  requests.reserve(inputs.size());
  for (size_t i = 0; i < inputs.size(); ++i) {
    auto encoding = model.text()->any(inputs[i], *prompt, truncation);
    if (!encoding.ok()) return at_input(encoding.error(), "input", i);
    requests.push_back(request_of(std::move(*encoding), output));
  }
  return requests;
}

api::Parsed<OneShotRequests> image_requests(const ServedOneShot& model, std::span<const std::string> files) {
  if (auto error = lacks(model, OneShotOutput::kScores)) return std::move(*error);
  if (model.images() == nullptr) {
    return ApiError{ErrorKind::kUnsupported, "The model " + model.name() + " takes text, not images.", "model", ""};
  }
  OneShotRequests requests;
  for (size_t i = 0; i < files.size(); ++i) {
    auto pixels = model.images()->pixels(files[i]);
    // Bytes that are no image are the client's fault, whatever is wrong with them.
    if (!pixels.ok()) return at_input({ErrorKind::kInvalidFormat, pixels.error().message, "image", ""}, "image", i);
    engine::OneShotRequest request;
    request.pixels = std::move(pixels).value();
    request.output = OneShotOutput::kScores;
    requests.push_back(std::move(request));
  }
  return requests;
}

api::Parsed<ScorePlan> score_plan(const ServedOneShot& model, std::span<const TextPair> pairs,
                                  const api::Truncation& truncation) {
  if (model.text() == nullptr) {
    return ApiError{ErrorKind::kUnsupported, "The model " + model.name() + " takes images, not text.", "model", ""};
  }
  ScorePlan plan;
  if (model.offers(OneShotOutput::kScores) && model.info().labels.size() <= 1) {
    for (size_t i = 0; i < pairs.size(); ++i) {
      auto encoding = model.text()->pair(pairs[i].first, pairs[i].second, truncation);
      if (!encoding.ok()) return at_input(encoding.error(), "documents", i);
      plan.requests.push_back(request_of(std::move(*encoding), OneShotOutput::kScores));
    }
    return plan;
  }
  if (auto error = lacks(model, OneShotOutput::kEmbedding)) {
    error->message += " Ranking needs a reranker (one label) or embeddings.";
    return std::move(*error);
  }
  plan.cosine = true;
  std::map<std::string_view, size_t> known;
  const auto index_of = [&](std::string_view text) -> api::Parsed<size_t> {
    const auto found = known.find(text);
    if (found != known.end()) return found->second;
    auto encoding = model.text()->one(text, truncation);
    if (!encoding.ok()) return encoding.error();
    plan.requests.push_back(request_of(std::move(*encoding), OneShotOutput::kEmbedding));
    known[text] = plan.requests.size() - 1;
    return plan.requests.size() - 1;
  };
  for (size_t i = 0; i < pairs.size(); ++i) {
    const auto first = index_of(pairs[i].first), second = index_of(pairs[i].second);
    if (!first.ok()) return at_input(first.error(), "query", i);
    if (!second.ok()) return at_input(second.error(), "documents", i);
    plan.pairs.emplace_back(*first, *second);
  }
  return plan;
}

std::vector<float> scores(const std::vector<std::pair<size_t, size_t>>& pairs, bool cosine, const Vectors& outputs,
                          bool raw) {
  std::vector<float> out;
  if (!cosine) {
    for (const std::vector<float>& logit : outputs) {
      const float value = logit.empty() ? 0 : logit[0];
      out.push_back(raw ? value : 1 / (1 + std::exp(-value)));
    }
    return out;
  }
  for (const auto& [first, second] : pairs) {
    const std::vector<float>&a = outputs[first], &b = outputs[second];
    const double lengths = std::sqrt(double(dot(a, a)) * dot(b, b));
    out.push_back(lengths > 0 ? static_cast<float>(dot(a, b) / lengths) : 0);
  }
  return out;
}

void shape_embedding(std::vector<float>& vector, std::optional<int> dimensions, bool normalize) {
  const bool cut = dimensions && size_t(*dimensions) < vector.size();
  if (cut) vector.resize(*dimensions);
  if (!cut && !normalize) return;
  const double length = std::sqrt(double(dot(vector, vector)));
  if (length == 0) return;
  for (float& value : vector) value = static_cast<float>(value / length);
}

void to_probabilities(std::vector<float>& logits, bool multi_label) {
  if (logits.empty()) return;
  if (multi_label) {
    for (float& value : logits) value = 1 / (1 + std::exp(-value));
    return;
  }
  const float most = *std::ranges::max_element(logits);
  double sum = 0;
  for (float& value : logits) sum += value = std::exp(value - most);
  for (float& value : logits) value = static_cast<float>(value / sum);
}

int64_t token_count(const OneShotRequests& requests) {
  int64_t tokens = 0;
  for (const engine::OneShotRequest& request : requests) tokens += int64_t(request.tokens.size());
  return tokens;
}

}  // namespace spillway::server
