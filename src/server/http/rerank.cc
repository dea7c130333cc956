// POST /rerank, /score, /classify.
#include "api/rerank.h"

#include <algorithm>
#include <charconv>
#include <memory>
#include <utility>

#include "api/multipart.h"
#include "server/http/one_shot.h"
#include "server/http/routes.h"

namespace spillway::server {
namespace {

using models::OneShotOutput;

// Runs a score plan; tokens are added up.
struct Scored {
  std::vector<float> values;
  int64_t tokens = 0;
};

asio::awaitable<std::optional<Scored>> run_scores(Exchange& exchange, OneShotPtr model,
                                                  std::function<api::Parsed<ScorePlan>()> plan,
                                                  const api::EncodeCommon& common, bool raw) {
  // The plan's pairs stay here, its requests go to the engine; the job that makes them may run elsewhere.
  auto kept = std::make_shared<ScorePlan>();
  MakeRequests make = [kept, plan = std::move(plan)]() -> api::Parsed<OneShotRequests> {
    auto made = plan();
    if (!made.ok()) return made.error();
    *kept = std::move(*made);
    return std::move(kept->requests);
  };
  std::optional<OneShotOutputs> out = co_await run_one_shot(exchange, std::move(model), std::move(make), &common);
  if (!out) co_return std::nullopt;
  Scored scored;
  scored.values = scores(kept->pairs, kept->cosine, out->values, raw);
  scored.tokens = out->tokens;
  co_return scored;
}

std::vector<OneShotOutput> rankers() { return {OneShotOutput::kScores, OneShotOutput::kEmbedding}; }

api::ResponseHead head_of(const char* prefix, const std::string& asked, const ServedOneShot& model) {
  return {random_id(prefix), unix_seconds(), asked.empty() ? model.name() : asked, ""};
}

}  // namespace

asio::awaitable<void> rerank(Exchange& exchange) {
  if (!co_await takes_requests(exchange)) co_return;
  api::Parsed<api::RerankRequest> parsed = api::parse_rerank_request(exchange.request().body);
  if (!parsed.ok()) {
    co_await exchange.send_error(parsed.error());
    co_return;
  }
  auto request = std::make_shared<const api::RerankRequest>(std::move(parsed).value());
  if (request->tei) exchange.set_dialect(Dialect::kTei);
  std::vector<OneShotOutput> needed = rankers();
  OneShotPtr model = co_await find_one_shot(exchange, request->common.model, "", std::move(needed), InputKind::kText);
  if (!model) co_return;
  std::function<api::Parsed<ScorePlan>()> plan = [request, model] {
    std::vector<TextPair> pairs;
    for (const std::string& document : request->documents) pairs.emplace_back(request->query, document);
    return score_plan(*model, pairs, request->common.truncation);
  };
  std::optional<Scored> scored =
      co_await run_scores(exchange, model, std::move(plan), request->common, request->tei && request->raw_scores);
  if (!scored) co_return;
  std::vector<api::Ranked> ranked;
  for (const int index : api::best(scored->values, request->top_n.value_or(int(scored->values.size())))) {
    ranked.push_back({index, scored->values[index]});
  }
  const api::ResponseHead head = head_of("rerank-", request->common.model, *model);
  std::string body = api::rerank_response(*request, head.id, head.model, ranked, scored->tokens);
  co_await exchange.send_json(200, std::move(body));
}

asio::awaitable<void> score(Exchange& exchange) {
  if (!co_await takes_requests(exchange)) co_return;
  api::Parsed<api::ScoreRequest> parsed = api::parse_score_request(exchange.request().body);
  if (!parsed.ok()) {
    co_await exchange.send_error(parsed.error());
    co_return;
  }
  auto request = std::make_shared<const api::ScoreRequest>(std::move(parsed).value());
  std::vector<OneShotOutput> needed = rankers();
  OneShotPtr model = co_await find_one_shot(exchange, request->common.model, "", std::move(needed), InputKind::kText);
  if (!model) co_return;
  std::function<api::Parsed<ScorePlan>()> plan = [request, model] {
    const std::vector<TextPair> pairs(request->pairs.begin(), request->pairs.end());
    return score_plan(*model, pairs, request->common.truncation);
  };
  std::optional<Scored> scored = co_await run_scores(exchange, model, std::move(plan), request->common, false);
  if (!scored) co_return;
  const api::ResponseHead head = head_of("score-", request->common.model, *model);
  std::string body = api::score_response(head, scored->values, scored->tokens);
  co_await exchange.send_json(200, std::move(body));
}

namespace {

// JSON, or multipart/form-data with the images as files and the other fields as text.
api::Parsed<api::ClassifyRequest> classify_request(const net::HttpRequest& request) {
  const std::string_view type = request.headers.value_or("Content-Type", "");
  if (!api::is_multipart(type)) return api::parse_classify_request(request.body);
  auto parts = api::parse_multipart(type, request.body);
  if (!parts.ok()) return parts.error();
  api::ClassifyRequest out;
  for (const api::FormPart& part : *parts) {
    if (part.is_file) {
      out.images.emplace_back(part.body);
    } else if (part.name == "model") {
      out.common.model = part.body;
    } else if (part.name == "top_k") {
      const auto [end, wrong] = std::from_chars(part.body.data(), part.body.data() + part.body.size(), out.top_k);
      if (wrong != std::errc() || end != part.body.data() + part.body.size() || out.top_k < 0) {
        return api::ApiError{api::ErrorKind::kInvalidFormat, "top_k: expected a number", "top_k", ""};
      }
    }
  }
  if (out.images.empty()) {
    return api::ApiError{api::ErrorKind::kInvalidFormat, "expected at least one part with a file, found none", "", ""};
  }
  return out;
}

}  // namespace

asio::awaitable<void> classify(Exchange& exchange) {
  if (!co_await takes_requests(exchange)) co_return;
  api::Parsed<api::ClassifyRequest> parsed = classify_request(exchange.request());
  if (!parsed.ok()) {
    co_await exchange.send_error(parsed.error());
    co_return;
  }
  auto request = std::make_shared<const api::ClassifyRequest>(std::move(parsed).value());
  std::vector<OneShotOutput> needed{OneShotOutput::kScores};
  const InputKind inputs = request->images.empty() ? InputKind::kText : InputKind::kImages;
  OneShotPtr model = co_await find_one_shot(exchange, request->common.model, "", std::move(needed), inputs);
  if (!model) co_return;
  MakeRequests make = [request, model] {
    if (!request->images.empty()) return image_requests(*model, request->images);
    return text_requests(*model, request->inputs, "", request->common.truncation, OneShotOutput::kScores);
  };
  std::optional<OneShotOutputs> out = co_await run_one_shot(exchange, model, std::move(make), &request->common);
  if (!out) co_return;
  for (std::vector<float>& row : out->values) to_probabilities(row, model->info().multi_label);
  const std::vector<std::string>& labels = model->info().labels;
  if (out->values.size() == 1 && out->values[0].size() == labels.size() && !labels.empty()) {
    // Feedback that gives the true label alone is judged by this one.
    const auto best = std::ranges::max_element(out->values[0]);
    exchange.record().predicted = labels[size_t(best - out->values[0].begin())];
  }
  const api::ResponseHead head = head_of("classify-", request->common.model, *model);
  std::string body = api::classify_response(head, model->info().labels, out->values, request->top_k, out->tokens);
  co_await exchange.send_json(200, std::move(body));
}

}  // namespace spillway::server
