// GET /health, /v1/cached_prefixes, /health/live, /health/ready, /metrics. They touch no engine lock that a step could
// hold, so they answer however busy the model is.
#include <boost/json/array.hpp>
#include <boost/json/object.hpp>
#include <boost/json/serialize.hpp>

#include "metrics/exposition.h"
#include "server/http/routes.h"

namespace spillway::server {
namespace {

namespace json = boost::json;

json::object model_state(const ServedModel& model) {
  const engine::EngineState state = model.engine().state();
  return {{"id", model.name()},
          {"running", state.running},
          {"waiting", state.waiting},
          {"waiting_tokens", state.waiting_tokens},
          {"pages_total", state.pages_total},
          {"pages_free", state.pages_free},
          {"pages_cached", state.pages_cached},
          {"tokens_per_s", state.tokens_per_s},
          {"predicted_wait_s", state.predicted_wait_s},
          {"seconds_since_progress", state.seconds_since_progress}};
}

json::object model_state(const ServedOneShot& model) {
  const engine::OneShotState state = model.engine().state();
  return {{"id", model.name()},
          {"version", model.version()},
          {"busy", state.busy},
          {"waiting", state.waiting},
          {"waiting_cost", state.waiting_cost},
          {"cost_per_s", state.cost_per_s},
          {"predicted_wait_s", state.predicted_wait_s},
          {"seconds_since_progress", state.seconds_since_progress}};
}

asio::awaitable<void> send_state(Exchange& exchange, bool details) {
  const char* status = exchange.server().status();
  const bool ready = std::string_view(status) == "ready";
  json::object body{{"status", status}};
  if (details) {
    if (std::string fault = exchange.server().device_fault(); !fault.empty()) body["reason"] = std::move(fault);
    body["requests_in_flight"] = exchange.server().requests_in_flight();
    json::array& models = (body["models"] = json::array()).as_array();
    for (const LanguagePtr& model : exchange.server().models()) models.push_back(model_state(*model));
    for (const OneShotPtr& model : exchange.server().catalogue()->ready()) models.push_back(model_state(*model));
  }
  if (!ready) exchange.set_header("Retry-After", "1");
  co_await exchange.send_json(ready ? 200 : 503, json::serialize(body));
}

}  // namespace

asio::awaitable<void> health(Exchange& exchange) { return send_state(exchange, true); }
asio::awaitable<void> health_ready(Exchange& exchange) { return send_state(exchange, false); }

// For gateways: what of the prompts that they sent here the models' prefix caches still hold.
asio::awaitable<void> cached_prefixes(Exchange& exchange) {
  int64_t tokens = 0;
  for (const LanguagePtr& model : exchange.server().models()) tokens += model->engine().state().tokens_cached;
  std::string body = exchange.server().prefixes().json(tokens);
  co_await exchange.send_json(200, std::move(body));
}

asio::awaitable<void> health_live(Exchange& exchange) { co_await exchange.send_json(200, R"({"status":"live"})"); }

// Written aside, on a thread of its own: with many series it takes longer than other connections should wait.
asio::awaitable<void> metrics_text(Exchange& exchange) {
  const metrics::Format format = metrics::choose_format(exchange.request().headers.value_or("Accept", ""));
  auto text = std::make_shared<std::string>();  // the job may outlive this frame when the server stops
  std::function<void()> job = [text, format] { *text = metrics::expose(format); };
  co_await exchange.server().run_scrape(std::move(job));
  std::string body = std::move(*text);
  co_await exchange.send_text(200, metrics::content_type(format).data(), std::move(body));
}

}  // namespace spillway::server
