// KServe's Open Inference Protocol v2 over HTTP: health, metadata, inference. Triton's extensions are in triton.cc.
#include "api/kserve.h"

#include <boost/json/array.hpp>
#include <boost/json/object.hpp>
#include <boost/json/serialize.hpp>
#include <charconv>
#include <memory>
#include <utility>

#include "server/http/one_shot.h"
#include "server/http/routes.h"
#include "server/kserve/infer.h"
#include "server/kserve/tensors.h"

namespace spillway::server {
namespace {

namespace json = boost::json;
using api::ApiError;
using api::ErrorKind;

constexpr const char* kJsonLength = "Inference-Header-Content-Length";

json::array tensor_list(const std::vector<TensorSpec>& specs) {
  json::array out;
  for (const TensorSpec& spec : specs) {
    json::array shape{-1};
    for (const int64_t side : spec.shape) shape.push_back(side);
    out.push_back(json::object{
        {"name", spec.name}, {"datatype", std::string(datatype_name(spec.datatype))}, {"shape", std::move(shape)}});
  }
  return out;
}

api::Parsed<std::optional<size_t>> json_bytes(const net::HttpRequest& request) {
  const auto header = request.headers.find(kJsonLength);
  if (!header) return std::optional<size_t>();
  size_t bytes = 0;
  const auto [end, error] = std::from_chars(header->data(), header->data() + header->size(), bytes);
  if (error != std::errc() || end != header->data() + header->size()) {
    return ApiError{ErrorKind::kInvalidFormat, std::string(kJsonLength) + ": expected a number of bytes", "", ""};
  }
  return std::optional<size_t>(bytes);
}

asio::awaitable<OneShotPtr> named_model(Exchange& exchange) {
  std::string version = exchange.arguments() > 1 ? exchange.argument(1) : "";
  co_return co_await find_one_shot(exchange, exchange.argument(0), std::move(version), {});
}

}  // namespace

asio::awaitable<void> kserve_server(Exchange& exchange) {
  json::array extensions;
  for (const std::string& each : server_extensions()) extensions.push_back(json::string(each));
  std::string body = json::serialize(
      json::object{{"name", kServerName}, {"version", kServerVersion}, {"extensions", std::move(extensions)}});
  co_await exchange.send_json(200, std::move(body));
}

asio::awaitable<void> kserve_live(Exchange& exchange) { co_await exchange.send_json(200, R"({"live":true})"); }

asio::awaitable<void> kserve_ready(Exchange& exchange) {
  const bool ready = exchange.server().ready();
  co_await exchange.send_json(ready ? 200 : 503, ready ? R"({"ready":true})" : R"({"ready":false})");
}

asio::awaitable<void> kserve_model_ready(Exchange& exchange) {
  const std::string version = exchange.arguments() > 1 ? exchange.argument(1) : "";
  const auto catalogue = exchange.server().catalogue();
  if (!catalogue->contains(exchange.argument(0))) {
    ApiError error{ErrorKind::kNotFound, "unknown model '" + api::utf8_lossy(exchange.argument(0)) + "'", "", ""};
    co_await exchange.send_error(std::move(error));
    co_return;
  }
  const bool ready = catalogue->is_ready(exchange.argument(0), version);
  std::string body = json::serialize(json::object{{"name", exchange.argument(0)}, {"ready", ready}});
  co_await exchange.send_json(ready ? 200 : 503, std::move(body));
}

asio::awaitable<void> kserve_model(Exchange& exchange) {
  OneShotPtr model = co_await named_model(exchange);
  if (!model) co_return;
  const ModelTensors tensors = tensors_of(*model);
  std::string body = json::serialize(json::object{{"name", model->name()},
                                                  {"versions", json::array{json::string(model->version())}},
                                                  {"platform", platform_of(*model)},
                                                  {"inputs", tensor_list(tensors.inputs)},
                                                  {"outputs", tensor_list(tensors.outputs)}});
  co_await exchange.send_json(200, std::move(body));
}

asio::awaitable<void> kserve_infer(Exchange& exchange) {
  if (!co_await takes_requests(exchange)) co_return;
  OneShotPtr model = co_await named_model(exchange);
  if (!model) co_return;
  const auto split = json_bytes(exchange.request());
  if (!split.ok()) {
    co_await exchange.send_error(split.error());
    co_return;
  }
  const api::Parsed<TimePoint> deadline = exchange.deadline(std::nullopt);
  if (!deadline.ok()) {
    co_await exchange.send_error(deadline.error());
    co_return;
  }
  // The body stays in the exchange while the job reads it, also where the job runs elsewhere and the server stops: the
  // connections go after the pools.
  auto plan = std::make_shared<InferPlan>();
  MakeRequests make = [plan, model, &exchange, split = *split, until = *deadline]() -> api::Parsed<OneShotRequests> {
    auto request = api::parse_infer_request(exchange.request().body, split);
    if (!request.ok()) return request.error();
    auto made = plan_infer(*model, *request);
    if (!made.ok()) return made.error();
    *plan = std::move(*made);
    apply_limits(*request, until, plan->requests);
    return std::move(plan->requests);
  };
  std::optional<OneShotOutputs> out = co_await run_one_shot(exchange, model, std::move(make), nullptr);
  if (!out) co_return;
  api::InferBody body = api::infer_response(finish_infer(*model, *plan, std::move(out->values)));
  if (!body.json_bytes) {
    co_await exchange.send_json(200, std::move(body.bytes));
    co_return;
  }
  exchange.set_header(kJsonLength, std::to_string(*body.json_bytes));
  co_await exchange.send_text(200, "application/octet-stream", std::move(body.bytes));
}

}  // namespace spillway::server
