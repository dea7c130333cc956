// POST /v1/embeddings.
#include "api/embeddings.h"

#include <fmt/format.h>

#include <memory>
#include <utility>

#include "server/http/one_shot.h"
#include "server/http/routes.h"

namespace spillway::server {

using models::OneShotOutput;

asio::awaitable<void> embeddings(Exchange& exchange) {
  if (!co_await takes_requests(exchange)) co_return;
  api::Parsed<api::EmbeddingsRequest> parsed = api::parse_embeddings_request(exchange.request().body);
  if (!parsed.ok()) {
    co_await exchange.send_error(parsed.error());
    co_return;
  }
  auto request = std::make_shared<const api::EmbeddingsRequest>(std::move(parsed).value());
  std::vector<OneShotOutput> needed{OneShotOutput::kEmbedding};
  OneShotPtr model = co_await find_one_shot(exchange, request->common.model, "", std::move(needed), InputKind::kText);
  if (!model) co_return;
  if (request->dimensions && *request->dimensions > model->info().embedding_dims) {
    api::ApiError error{api::ErrorKind::kInvalidParameters,
                        fmt::format("dimensions: expected at most the model's {}, found {}",
                                    model->info().embedding_dims, *request->dimensions),
                        "dimensions", ""};
    co_await exchange.send_error(std::move(error));
    co_return;
  }
  MakeRequests make = [request, model] {
    return text_requests(*model, request->inputs, request->prompt_name, request->common.truncation,
                         OneShotOutput::kEmbedding);
  };
  std::optional<OneShotOutputs> out = co_await run_one_shot(exchange, model, std::move(make), &request->common);
  if (!out) co_return;
  for (std::vector<float>& vector : out->values) {
    shape_embedding(vector, request->dimensions, request->normalize.value_or(false));
  }
  const std::string& name = request->common.model.empty() ? model->name() : request->common.model;
  std::string body = api::embeddings_response(name, out->values, request->base64, out->tokens);
  co_await exchange.send_json(200, std::move(body));
}

}  // namespace spillway::server
