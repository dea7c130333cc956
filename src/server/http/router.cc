#include "server/http/router.h"

#include <algorithm>
#include <array>
#include <exception>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/log.h"
#include "base/trace.h"
#include "metrics/metrics.h"
#include "metrics/timeline.h"
#include "server/console/live_state.h"
#include "server/http/generate.h"
#include "server/http/routes.h"

namespace spillway::server {
namespace {

using api::ApiError;
using api::ErrorKind;

metrics::Counter requests_total("spillway_http_requests_total", "HTTP requests by route and status.",
                                {"route", "status"});
metrics::Counter outcomes_total("spillway_http_outcomes_total", "HTTP requests by route and outcome.",
                                {"route", "outcome"});
metrics::Gauge in_flight("spillway_http_requests_in_flight", "HTTP requests being answered.");
metrics::Histogram request_seconds("spillway_http_request_seconds", "Time from request to the last byte of its answer.",
                                   {0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100,
                                    300},
                                   {"route"});

enum class Access { kKey, kHealth, kMetrics, kAdmin, kOpen };

struct Route {
  const char* path;  // each "{}" takes text as an argument, as does what follows a '/' at the end
  const char* method;
  asio::awaitable<void> (*handler)(Exchange&);
  Access access = Access::kKey;
  Dialect dialect = Dialect::kOpenAi;
};

constexpr std::array kRoutes = {
    Route{"/v1/chat/completions", "POST", chat_completions},
    Route{"/chat/completions", "POST", chat_completions},
    Route{"/beta/chat/completions", "POST", chat_completions},
    Route{"/v1/completions", "POST", completions},
    Route{"/completions", "POST", beta_completions},
    Route{"/beta/completions", "POST", beta_completions},
    Route{"/v1/messages", "POST", messages, Access::kKey, Dialect::kAnthropic},
    Route{"/anthropic/v1/messages", "POST", messages, Access::kKey, Dialect::kAnthropic},
    Route{"/v1/messages/count_tokens", "POST", count_tokens, Access::kKey, Dialect::kAnthropic},
    Route{"/anthropic/v1/messages/count_tokens", "POST", count_tokens, Access::kKey, Dialect::kAnthropic},
    Route{"/v1/models", "GET", list_models},
    Route{"/models", "GET", list_models},
    Route{"/v1/embeddings", "POST", embeddings},
    Route{"/embeddings", "POST", embeddings},
    Route{"/rerank", "POST", rerank},
    Route{"/v1/rerank", "POST", rerank},
    Route{"/v2/rerank", "POST", rerank},
    Route{"/score", "POST", score},
    Route{"/v1/score", "POST", score},
    Route{"/classify", "POST", classify},
    Route{"/v1/classify", "POST", classify},
    Route{"/embed", "POST", tei_embed, Access::kKey, Dialect::kTei},
    Route{"/embed_all", "POST", tei_embed_all, Access::kKey, Dialect::kTei},
    Route{"/embed_sparse", "POST", tei_embed_sparse, Access::kKey, Dialect::kTei},
    Route{"/predict", "POST", tei_predict, Access::kKey, Dialect::kTei},
    Route{"/decode", "POST", tei_decode, Access::kKey, Dialect::kTei},
    Route{"/similarity", "POST", tei_similarity, Access::kKey, Dialect::kTei},
    Route{"/info", "GET", tei_info, Access::kKey, Dialect::kTei},
    Route{"/v2", "GET", kserve_server, Access::kHealth, Dialect::kPlain},
    Route{"/v2/health/live", "GET", kserve_live, Access::kHealth, Dialect::kPlain},
    Route{"/v2/health/ready", "GET", kserve_ready, Access::kHealth, Dialect::kPlain},
    Route{"/v2/models/stats", "GET", kserve_statistics, Access::kKey, Dialect::kPlain},
    Route{"/v2/models/{}/versions/{}/infer", "POST", kserve_infer, Access::kKey, Dialect::kPlain},
    Route{"/v2/models/{}/infer", "POST", kserve_infer, Access::kKey, Dialect::kPlain},
    Route{"/v2/models/{}/versions/{}/ready", "GET", kserve_model_ready, Access::kKey, Dialect::kPlain},
    Route{"/v2/models/{}/ready", "GET", kserve_model_ready, Access::kKey, Dialect::kPlain},
    Route{"/v2/models/{}/versions/{}/config", "GET", kserve_config, Access::kKey, Dialect::kPlain},
    Route{"/v2/models/{}/config", "GET", kserve_config, Access::kKey, Dialect::kPlain},
    Route{"/v2/models/{}/versions/{}/stats", "GET", kserve_statistics, Access::kKey, Dialect::kPlain},
    Route{"/v2/models/{}/stats", "GET", kserve_statistics, Access::kKey, Dialect::kPlain},
    Route{"/v2/models/{}/versions/{}", "GET", kserve_model, Access::kKey, Dialect::kPlain},
    Route{"/v2/models/{}", "GET", kserve_model, Access::kKey, Dialect::kPlain},
    Route{"/v2/repository/index", "POST", kserve_index, Access::kKey, Dialect::kPlain},
    Route{"/v2/repository/models/{}/load", "POST", kserve_load, Access::kKey, Dialect::kPlain},
    Route{"/v2/repository/models/{}/unload", "POST", kserve_unload, Access::kKey, Dialect::kPlain},
    Route{"/v2/systemsharedmemory/status", "GET", kserve_no_regions, Access::kKey, Dialect::kPlain},
    Route{"/v2/cudasharedmemory/status", "GET", kserve_no_regions, Access::kKey, Dialect::kPlain},
    Route{"/v2/systemsharedmemory/unregister", "POST", kserve_forget_regions, Access::kKey, Dialect::kPlain},
    Route{"/v2/cudasharedmemory/unregister", "POST", kserve_forget_regions, Access::kKey, Dialect::kPlain},
    Route{"/v1/models/{}/versions/{}:predict", "POST", tf_predict, Access::kKey, Dialect::kPlain},
    Route{"/v1/models/{}:predict", "POST", tf_predict, Access::kKey, Dialect::kPlain},
    Route{"/v1/models/{}/versions/{}", "GET", tf_status, Access::kKey, Dialect::kPlain},
    Route{"/v1/models/{}/metadata", "GET", tf_metadata, Access::kKey, Dialect::kPlain},
    Route{"/v1/models/", "GET", one_model},
    Route{"/models/", "GET", one_model},
    Route{"/v1/feedback", "POST", feedback},
    Route{"/tokenize", "POST", tokenize},
    Route{"/detokenize", "POST", detokenize},
    Route{"/v1/cached_prefixes", "GET", cached_prefixes},
    Route{"/health", "GET", health, Access::kHealth},
    Route{"/ping", "GET", health, Access::kHealth},
    Route{"/health/live", "GET", health_live, Access::kHealth},
    Route{"/health/ready", "GET", health_ready, Access::kHealth},
    Route{"/metrics", "GET", metrics_text, Access::kMetrics},
    Route{"/", "GET", front_page, Access::kOpen},
    Route{"/console", "GET", console_page, Access::kOpen},
    Route{"/console/api/state", "GET", console_state, Access::kAdmin},
    Route{"/console/api/events", "GET", console_events, Access::kAdmin},
    Route{"/console/api/requests/", "GET", console_request, Access::kAdmin},
    Route{"/console/api/trace", "POST", console_trace, Access::kAdmin},
    Route{"/console/", "GET", console_file, Access::kOpen},
};

// Whether text is the pattern, with what stood for its "{}"s; the longest text is tried first, so that names may have
// slashes.
bool matches(std::string_view pattern, std::string_view text, std::vector<std::string>& arguments) {
  const size_t hole = pattern.find("{}");
  if (hole == std::string_view::npos) return pattern == text;
  if (text.size() <= hole || text.substr(0, hole) != pattern.substr(0, hole)) return false;
  const std::string_view rest = pattern.substr(hole + 2);
  const std::string_view next = rest.substr(0, rest.find("{}"));
  text.remove_prefix(hole);
  for (size_t end = text.size(); end > 0; --end) {
    if (!text.substr(end).starts_with(next)) continue;
    arguments.emplace_back(text.substr(0, end));
    if (matches(rest, text.substr(end), arguments)) return true;
    arguments.pop_back();
  }
  return false;
}

struct Found {
  const Route* route = nullptr;
  std::vector<std::string> arguments;
};

bool matches(const Route& route, std::string_view path, std::vector<std::string>& arguments) {
  const std::string_view pattern = route.path;
  if (pattern == "/" || !pattern.ends_with('/')) return matches(pattern, path, arguments);
  return path.starts_with(pattern);
}

// The first whose pattern the path is, whatever the method.
Found find_route(std::string_view path) {
  for (const Route& route : kRoutes) {
    Found found{&route, {}};
    if (matches(route, path, found.arguments)) return found;
  }
  return {};
}

// OpenTelemetry's name of what a route does; empty where it makes nothing of a model.
std::string_view operation_of(const Route* route) {
  constexpr std::string_view kOther[] = {"/feedback", "/tokenize", "/detokenize", "/count_tokens",
                                         "/index",    "/load",     "/unload",     "/unregister"};
  if (route == nullptr || route->access != Access::kKey || std::string_view(route->method) != "POST") return "";
  const std::string_view path = route->path;
  if (std::ranges::any_of(kOther, [&](std::string_view end) { return path.ends_with(end); })) return "";
  if (path.ends_with("/chat/completions") || path.ends_with("/messages")) return "chat";
  if (path.ends_with("/completions")) return "text_completion";
  if (path.starts_with("/embed")) return "embeddings";
  return path.substr(path.find_last_of("/:") + 1);  // "embeddings", "rerank", "infer", "predict", ...
}

bool needs_key(const ServerOptions& options, Access access) {
  return access == Access::kKey || access == Access::kAdmin || (access == Access::kHealth && !options.open_health) ||
         (access == Access::kMetrics && !options.open_metrics);
}

// What administers asks for an admin key, or, where there is none, for what everything else asks for.
std::optional<ApiError> check_key(Exchange& exchange, Access access) {
  const std::shared_ptr<const HotOptions> hot = exchange.server().hot();
  const ApiKeys& keys = access == Access::kAdmin && hot->admin_keys.required() ? hot->admin_keys : hot->keys;
  if (!keys.required()) return std::nullopt;
  const std::string_view key = key_of(exchange.request());
  if (keys.find(key)) return std::nullopt;
  if (key.empty()) {
    return ApiError{
        ErrorKind::kAuthentication,
        "Authentication Fails (governor): no API key was given; send it as Authorization: Bearer or x-api-key.", "",
        ""};
  }
  return ApiError{ErrorKind::kAuthentication, "Authentication Fails, Your api key: " + masked_key(key) + " is invalid",
                  "", ""};
}

asio::awaitable<void> preflight(Exchange& exchange, const char* method) {
  exchange.set_header("Access-Control-Allow-Methods", std::string(method) + ", OPTIONS");
  exchange.set_header("Access-Control-Allow-Headers",
                      std::string(exchange.request().headers.value_or("Access-Control-Request-Headers",
                                                                      "Authorization, Content-Type")));
  exchange.set_header("Access-Control-Max-Age", "86400");
  co_await exchange.send_text(204, "", "");
}

// Whether the key is right for the route; otherwise that has been told.
asio::awaitable<bool> may_pass(Exchange& exchange, const Route* route) {
  const Access access = route == nullptr ? Access::kKey : route->access;
  if (!needs_key(exchange.server().options(), access)) co_return true;
  std::optional<ApiError> error = check_key(exchange, access);
  if (!error) co_return true;
  exchange.set_header("WWW-Authenticate", "Bearer");
  co_await exchange.send_error(std::move(*error));
  co_return false;
}

// Gives what serves clients a timeline, and so a place among the requests that the console shows.
void begin_timeline(Exchange& exchange, const Route* route) {
  const net::HttpRequest& request = exchange.request();
  if (request.timeline || request.method != "POST" || (route != nullptr && route->access != Access::kKey)) return;
  exchange.begin_timeline(route == nullptr ? request.path.substr(0, 64) : route->path);
}

// Whether a language model's engine answers, which may refuse at the door.
bool generates(const Route& route) {
  return route.handler == chat_completions || route.handler == completions || route.handler == beta_completions ||
         route.handler == messages;
}

// The handler; where an engine would refuse whatever comes, before anything of it is parsed.
asio::awaitable<void> handle(Exchange& exchange, const Route& route) {
  Server& server = exchange.server();
  std::optional<Refused> refused = generates(route) ? refused_now(server) : std::nullopt;
  if (!refused || server.timelines().has_place_for_refused(exchange.received())) begin_timeline(exchange, &route);
  if (refused) {
    co_await refuse(exchange, std::move(*refused));
    co_return;
  }
  const bool unpacked = co_await exchange.unpack_body();
  if (unpacked) co_await route.handler(exchange);
}

// Errors are named before they are sent: GCC 12 miscompiles aggregates that are made inside a co_await expression.
asio::awaitable<void> answer(Exchange& exchange, const Route* route, bool fronted) {
  const net::HttpRequest& request = exchange.request();
  const bool ours = route != nullptr && (route->access == Access::kAdmin || route->access == Access::kOpen);
  const bool has_front =
      fronted && !ours && exchange.server().options().front != nullptr && request.method != "OPTIONS";
  if (has_front) {
    const auto& checks = exchange.server().options().front_checks_key;
    const bool checked = checks && checks(request.path);
    const bool open = checked || co_await may_pass(exchange, route);
    if (!open) co_return;
    begin_timeline(exchange, route);
    const bool answered = co_await exchange.answer_by_front();
    if (answered) co_return;
  }
  if (route == nullptr) {
    ApiError error{ErrorKind::kNotFound, "No such path: " + api::utf8_lossy(request.path), "", ""};
    co_await exchange.send_error(std::move(error));
    co_return;
  }
  if (request.method == "OPTIONS") {
    co_await preflight(exchange, route->method);
    co_return;
  }
  const bool head = request.method == "HEAD" && std::string_view(route->method) == "GET";
  if (request.method != route->method && !head) {
    exchange.set_header("Allow", std::string(route->method) + ", OPTIONS");
    ApiError error{ErrorKind::kMethodNotAllowed,
                   "Expected " + std::string(route->method) + ", found " + api::utf8_lossy(request.method) + ".", "",
                   ""};
    co_await exchange.send_error(std::move(error));
    co_return;
  }
  if (fronted) {
    const bool open = co_await may_pass(exchange, route);
    if (!open) co_return;
  }
  co_await handle(exchange, *route);
}

// Runs the handler and accounts for it. What it throws (memory, a library) becomes a 500, or a cut stream.
asio::awaitable<void> run(Exchange& exchange, const Route* route, bool fronted) {
  in_flight->add(1);
  const int64_t traced = trace::begin_async();
  std::string failure;
  try {
    co_await answer(exchange, route, fronted);
  } catch (const std::exception& exception) {
    failure = exception.what();
  }
  if (!failure.empty()) {
    SW_ERROR("request {} failed: {}", exchange.request().id, failure);
    if (!exchange.writer().started()) {
      ApiError error{ErrorKind::kServerError, "The server failed at this request.", "", ""};
      co_await exchange.send_error(std::move(error));
    }
  }
  in_flight->add(-1);
  const char* name = route == nullptr ? "unknown" : route->path;
  trace::end_async("http", name, reinterpret_cast<uintptr_t>(&exchange), traced, "status", exchange.status());
  requests_total.with({name, std::to_string(exchange.status())}).add();
  outcomes_total.with({name, exchange.outcome()}).add();
  RequestAccount& account = exchange.account();
  const auto& record = account.end(name, operation_of(route), exchange.status(), exchange.outcome());
  request_seconds.with({name}).observe(record.duration_s, account.trace_id());
}

}  // namespace

asio::awaitable<void> route(Server& server, net::HttpRequest request, net::ResponseWriter& writer) {
  Found found = find_route(request.path);
  const Dialect dialect = found.route != nullptr                    ? found.route->dialect
                          : request.path.starts_with("/anthropic/") ? Dialect::kAnthropic
                          : request.path.starts_with("/v2/")        ? Dialect::kPlain
                                                                    : Dialect::kOpenAi;
  Exchange exchange(server, std::move(request), writer, dialect);
  exchange.set_arguments(std::move(found.arguments));
  co_await run(exchange, found.route, true);
}

asio::awaitable<void> route_locally(Server& server, net::HttpRequest request, net::ResponseWriter& writer) {
  Found found = find_route(request.path);
  if (!request.timeline) request.timeline = server.timelines().find(request.id);
  Exchange exchange(server, std::move(request), writer,
                    found.route != nullptr ? found.route->dialect : Dialect::kOpenAi);
  exchange.set_arguments(std::move(found.arguments));
  exchange.account().set_inner();
  if (found.route != nullptr) {
    co_await handle(exchange, *found.route);
  } else {
    ApiError error{ErrorKind::kNotFound, "No such path here.", "", ""};
    co_await exchange.send_error(std::move(error));
  }
}

asio::awaitable<void> route_metrics(Server& server, net::HttpRequest request, net::ResponseWriter& writer) {
  const Route* found = find_route(request.path).route;
  if (found != nullptr && found->access == Access::kKey) found = nullptr;
  Exchange exchange(server, std::move(request), writer, Dialect::kOpenAi);
  if (found != nullptr && exchange.request().method == "GET") {
    co_await found->handler(exchange);
  } else {
    ApiError error{ErrorKind::kNotFound, "This port has /metrics and /health.", "", ""};
    co_await exchange.send_error(std::move(error));
  }
}

net::ErrorBody transport_error_body(int status, std::string_view message) {
  ApiError error{ErrorKind::kServerError, api::utf8_lossy(message), "", ""};
  for (const api::ErrorRow& row : api::error_rows()) {
    if (row.http_status == status) {
      error.kind = row.kind;
      break;
    }
  }
  if (status >= 400 && status < 500 && error.http_status() != status) error.kind = ErrorKind::kInvalidFormat;
  return {"application/json", api::openai_error_body(error)};
}

}  // namespace spillway::server
