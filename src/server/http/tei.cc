// Text Embeddings Inference: POST /embed, /embed_all, /embed_sparse, /predict, /similarity; GET /info.
#include "api/tei.h"

#include <memory>
#include <utility>

#include "server/http/aside.h"
#include "server/http/one_shot.h"
#include "server/http/routes.h"
#include "server/kserve/tensors.h"

namespace spillway::server {
namespace {

using models::OneShotOutput;

// What TEI's clients know a too long input by.
api::ApiError as_tei(api::ApiError error) {
  if (error.code == "context_length_exceeded") error.kind = api::ErrorKind::kPayloadTooLarge;
  return error;
}

using EmbedRequestPtr = std::shared_ptr<const api::TeiEmbedRequest>;

struct Embedded {
  EmbedRequestPtr request;
  OneShotPtr model;
  OneShotOutputs out;
};

asio::awaitable<std::optional<Embedded>> embed(Exchange& exchange, api::Parsed<api::TeiEmbedRequest> parsed,
                                               OneShotOutput output) {
  if (!parsed.ok()) {
    co_await exchange.send_error(parsed.error());
    co_return std::nullopt;
  }
  Embedded embedded;
  embedded.request = std::make_shared<const api::TeiEmbedRequest>(std::move(parsed).value());
  EmbedRequestPtr request = embedded.request;
  std::vector<OneShotOutput> needed{output};
  embedded.model = co_await find_one_shot(exchange, request->common.model, "", std::move(needed), InputKind::kText);
  if (!embedded.model) co_return std::nullopt;
  MakeRequests make = [request, model = embedded.model, output]() -> api::Parsed<OneShotRequests> {
    auto made = text_requests(*model, request->inputs, request->prompt_name, request->common.truncation, output);
    if (!made.ok()) return as_tei(made.error());
    return made;
  };
  std::optional<OneShotOutputs> out =
      co_await run_one_shot(exchange, embedded.model, std::move(make), &request->common);
  if (!out) co_return std::nullopt;
  embedded.out = std::move(*out);
  co_return embedded;
}

}  // namespace

asio::awaitable<void> tei_embed(Exchange& exchange) {
  if (!co_await takes_requests(exchange)) co_return;
  auto parsed = api::parse_tei_embed_request(exchange.request().body);
  std::optional<Embedded> embedded = co_await embed(exchange, std::move(parsed), OneShotOutput::kEmbedding);
  if (!embedded) co_return;
  const api::TeiEmbedRequest& request = *embedded->request;
  for (auto& vector : embedded->out.values) shape_embedding(vector, request.dimensions, request.normalize);
  std::string body = api::tei_vectors_response(embedded->out.values);
  co_await exchange.send_json(200, std::move(body));
}

asio::awaitable<void> tei_embed_all(Exchange& exchange) {
  if (!co_await takes_requests(exchange)) co_return;
  auto parsed = api::parse_tei_embed_request(exchange.request().body);
  std::optional<Embedded> embedded = co_await embed(exchange, std::move(parsed), OneShotOutput::kTokenVectors);
  if (!embedded) co_return;
  std::string body = api::tei_matrices_response(embedded->out.values, size_t(embedded->model->info().hidden_size));
  co_await exchange.send_json(200, std::move(body));
}

asio::awaitable<void> tei_embed_sparse(Exchange& exchange) {
  if (!co_await takes_requests(exchange)) co_return;
  auto parsed = api::parse_tei_embed_request(exchange.request().body);
  std::optional<Embedded> embedded = co_await embed(exchange, std::move(parsed), OneShotOutput::kSparse);
  if (!embedded) co_return;
  std::string body = api::tei_sparse_response(embedded->out.values);
  co_await exchange.send_json(200, std::move(body));
}

asio::awaitable<void> tei_similarity(Exchange& exchange) {
  if (!co_await takes_requests(exchange)) co_return;
  auto parsed = api::parse_tei_similarity_request(exchange.request().body);
  std::optional<Embedded> embedded = co_await embed(exchange, std::move(parsed), OneShotOutput::kEmbedding);
  if (!embedded) co_return;
  std::vector<std::pair<size_t, size_t>> pairs;
  for (size_t i = 1; i < embedded->out.values.size(); ++i) pairs.emplace_back(0, i);
  std::string body;
  api::append_floats(body, scores(pairs, true, embedded->out.values, false));
  co_await exchange.send_json(200, std::move(body));
}

asio::awaitable<void> tei_predict(Exchange& exchange) {
  if (!co_await takes_requests(exchange)) co_return;
  api::Parsed<api::TeiPredictRequest> parsed = api::parse_tei_predict_request(exchange.request().body);
  if (!parsed.ok()) {
    co_await exchange.send_error(parsed.error());
    co_return;
  }
  auto request = std::make_shared<const api::TeiPredictRequest>(std::move(parsed).value());
  std::vector<OneShotOutput> needed{OneShotOutput::kScores};
  OneShotPtr model = co_await find_one_shot(exchange, request->common.model, "", std::move(needed), InputKind::kText);
  if (!model) co_return;
  MakeRequests make = [request, model]() -> api::Parsed<OneShotRequests> {
    if (model->text() == nullptr) {
      return api::ApiError{api::ErrorKind::kUnsupported, "The model takes images, not text.", "model", ""};
    }
    OneShotRequests requests;
    for (const auto& input : request->inputs) {
      auto encoding = input.second ? model->text()->pair(input.first, *input.second, request->common.truncation)
                                   : model->text()->one(input.first, request->common.truncation);
      if (!encoding.ok()) return as_tei(encoding.error());
      engine::OneShotRequest& one = requests.emplace_back();
      one.tokens = std::move(encoding->ids);
      one.types = std::move(encoding->type_ids);
      one.output = OneShotOutput::kScores;
    }
    return requests;
  };
  std::optional<OneShotOutputs> out = co_await run_one_shot(exchange, model, std::move(make), &request->common);
  if (!out) co_return;
  if (!request->raw_scores) {
    const models::OneShotInfo& info = model->info();
    for (auto& row : out->values) to_probabilities(row, info.multi_label || info.labels.size() == 1);
  }
  std::string body = api::tei_predict_response(*request, model->info().labels, out->values);
  co_await exchange.send_json(200, std::move(body));
}

asio::awaitable<void> tei_decode(Exchange& exchange) {
  api::Parsed<api::TeiDecodeRequest> request = api::parse_tei_decode_request(exchange.request().body);
  if (!request.ok()) {
    co_await exchange.send_error(as_tei(request.error()));
    co_return;
  }
  OneShotPtr model = co_await find_one_shot(exchange, request->model, "", {});
  if (!model) co_return;
  if (model->tokenizer() == nullptr) {
    const api::ApiError images{api::ErrorKind::kUnsupported, "The model takes images, not text.", "model", ""};
    co_await exchange.send_error(as_tei(images));
    co_return;
  }
  std::function<std::string()> make = [model, request = std::move(*request)] {
    std::vector<std::string> texts;
    for (const auto& ids : request.ids)
      texts.push_back(api::utf8_lossy(model->tokenizer()->decode(ids, request.skip_special_tokens)));
    return api::tei_decode_response(texts);
  };
  std::string body = co_await make_here_or_aside<std::string>(exchange, std::move(make));
  co_await exchange.send_json(200, std::move(body));
}

asio::awaitable<void> tei_info(Exchange& exchange) {
  if (!co_await takes_requests(exchange)) co_return;
  const std::string asked = exchange.request().query_parameter("model").value_or("");
  OneShotPtr model = co_await find_one_shot(exchange, asked, "", {});
  if (!model) co_return;
  const models::OneShotInfo& info = model->info();
  api::TeiInfo out;
  out.model_id = model->name();
  out.dtype = info.precision;
  out.model_type = info.outputs.front() != OneShotOutput::kScores ? "embedding"
                   : info.labels.size() == 1                      ? "reranker"
                                                                  : "classifier";
  out.labels = info.labels;
  out.max_concurrent_requests = exchange.server().hot()->admission.queue_requests_max;
  out.max_input_length = model->text() != nullptr ? model->text()->tokens_max() : 0;
  out.max_batch_tokens = model->engine().model().batch_cost_max();
  out.max_batch_requests = model->engine().model().batch_inputs_max();
  out.version = kServerVersion;
  std::string body = api::tei_info_response(out);
  co_await exchange.send_json(200, std::move(body));
}

}  // namespace spillway::server
