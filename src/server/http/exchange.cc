#include "server/http/exchange.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <charconv>
#include <chrono>
#include <cmath>
#include <cstring>
#include <utility>

#include "base/random_bytes.h"
#include "server/auth.h"
#include "telemetry/outcomes/request_store.h"

namespace spillway::server {
namespace {

using api::ApiError;
using api::ErrorKind;

constexpr size_t kArmMax = 64;

int64_t unix_ns() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::system_clock::now().time_since_epoch())
      .count();
}

// A short plain name; others are no arm at all, so that a client cannot invent labels without end.
std::string experiment_arm(std::string_view given) {
  const auto plain = [](unsigned char c) { return std::isalnum(c) != 0 || c == '-' || c == '_' || c == '.'; };
  return given.size() <= kArmMax && std::ranges::all_of(given, plain) ? std::string(given) : "";
}

constexpr int64_t kDeadlineMsMax = int64_t{24} * 3600 * 1000;

std::optional<int64_t> parse_integer(std::string_view text) {
  int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

}  // namespace

Exchange::Exchange(Server& server, net::HttpRequest request, net::ResponseWriter& writer, Dialect dialect)
    : server_(server),
      request_(std::move(request)),
      writer_(writer),
      dialect_(dialect),
      received_(std::chrono::steady_clock::now()) {
  record_.trace = telemetry::trace_context(request_.headers.value_or("traceparent", ""));
  // Whoever answers this further on sees this server's span as its parent.
  request_.headers.set("traceparent", record_.trace.traceparent());
  record_.id = request_.id;
  record_.id_is_ours = request_.headers.value_or("X-Request-Id", "") != request_.id;
  record_.started_unix_ns = unix_ns();
  record_.caller = caller_of(request_);
  record_.arm = experiment_arm(request_.headers.value_or("X-Experiment-Arm", ""));
}

const telemetry::RequestRecord& Exchange::finish_record(std::string_view route, std::string_view operation) {
  record_.route = route;
  record_.operation = operation;
  record_.status = status_;
  record_.outcome = outcome_;
  record_.duration_s = seconds(std::chrono::steady_clock::now() - received_);
  if (record_.arm.empty()) record_.arm = record_.upstream.empty() ? "local" : record_.upstream;
  return record_;
}

net::Headers Exchange::headers(std::string_view content_type) const {
  net::Headers out = extra_;
  if (!content_type.empty()) out.set("Content-Type", std::string(content_type));
  out.set("X-Request-Id", request_.id);
  if (dialect_ == Dialect::kAnthropic) out.set("request-id", request_.id);
  const auto origin = request_.headers.find("Origin");
  if (!origin) return out;
  for (const std::string& allowed : server_.options().cors_origins) {
    if (allowed != "*" && allowed != *origin) continue;
    out.set("Access-Control-Allow-Origin", allowed);
    out.set("Access-Control-Expose-Headers", "X-Request-Id, Retry-After");
    if (allowed != "*") out.set("Vary", "Origin");
    break;
  }
  return out;
}

asio::awaitable<void> Exchange::send_json(int status, std::string body) {
  status_ = status;
  net::Headers fields = headers("application/json");
  co_await writer_.send(status, std::move(fields), std::move(body));
}

asio::awaitable<void> Exchange::send_text(int status, const char* content_type, std::string body) {
  status_ = status;
  net::Headers fields = headers(content_type);
  co_await writer_.send(status, std::move(fields), std::move(body));
}

asio::awaitable<void> Exchange::send_error(ApiError error) {
  outcome_ = api::error_row(error.kind).label;
  std::string body = error_body(error);
  co_await send_json(error.http_status(), std::move(body));
}

asio::awaitable<void> Exchange::send_refused(Refused refused) {
  if (refused.retry_after_s > 0) {
    set_header("Retry-After", fmt::format("{:.0f}", std::ceil(refused.retry_after_s)));
    set_header("X-Predicted-Wait", fmt::format("{:.3f}", refused.predicted_wait_s));
  }
  if (server_.state() == ServerState::kDraining) set_header("Connection", "close");
  co_await send_error(std::move(refused.error));
}

asio::awaitable<bool> Exchange::start_stream(std::string_view content_type, std::string_view first) {
  status_ = 200;
  set_header("Cache-Control", "no-cache");
  set_header("X-Accel-Buffering", "no");
  net::Headers fields = headers(content_type);
  co_return co_await writer_.start_stream(200, std::move(fields), first);
}

asio::awaitable<bool> Exchange::answer_by_front() {
  const std::shared_ptr<metrics::Timeline> timeline = request_.timeline;  // the front may take the request away
  const std::optional<FrontAnswer> answered = co_await server_.options().front(request_, writer_);
  request_.timeline = timeline;
  if (!answered) co_return false;
  status_ = answered->status;
  outcome_ = answered->outcome;
  const telemetry::RequestRecord& facts = answered->facts;
  record_.model = facts.model;
  record_.answered_by = facts.answered_by;
  record_.tenant = facts.tenant;
  record_.upstream = facts.upstream;
  record_.first_token_s = facts.first_token_s;
  record_.prompt_tokens = facts.prompt_tokens;
  record_.cached_tokens = facts.cached_tokens;
  record_.output_tokens = facts.output_tokens;
  record_.cost = facts.cost;
  co_return true;
}

std::string Exchange::error_body(const ApiError& error) const {
  switch (dialect_) {
    case Dialect::kAnthropic:
      return api::anthropic_error_body(error);
    case Dialect::kTei:
      return api::tei_error_body(error);
    case Dialect::kPlain:
      return api::plain_error_body(error);
    case Dialect::kOpenAi:
      break;
  }
  return api::openai_error_body(error);
}

api::Parsed<TimePoint> Exchange::deadline(std::optional<int64_t> deadline_ms) const {
  if (const auto header = request_.headers.find("X-Request-Deadline")) {
    deadline_ms = parse_integer(*header);
    if (!deadline_ms || *deadline_ms < 0 || *deadline_ms > kDeadlineMsMax) {
      return ApiError{ErrorKind::kInvalidFormat,
                      fmt::format("X-Request-Deadline: expected milliseconds from 0 to {}, found \"{}\".",
                                  kDeadlineMsMax, api::utf8_lossy(*header)),
                      "", ""};
    }
  }
  if (!deadline_ms) return TimePoint::max();
  return received_ + std::chrono::milliseconds(*deadline_ms);
}

api::Parsed<engine::Priority> Exchange::priority(engine::Priority asked) const {
  const auto header = request_.headers.find("X-Priority");
  if (!header) return asked;
  if (net::equals_ignoring_case(*header, "low")) return engine::Priority::kLow;
  if (net::equals_ignoring_case(*header, "normal")) return engine::Priority::kNormal;
  if (net::equals_ignoring_case(*header, "high")) return engine::Priority::kHigh;
  const auto number = parse_integer(*header);
  if (!number) {
    return ApiError{
        ErrorKind::kInvalidFormat,
        fmt::format("X-Priority: expected low, normal, high or an integer, found \"{}\".", api::utf8_lossy(*header)),
        "", ""};
  }
  return static_cast<engine::Priority>(std::clamp<int64_t>(*number, -1, 1));
}

uint64_t caller_of(const net::HttpRequest& request) {
  std::string_view key = request.headers.value_or("x-api-key", "");
  const auto authorization = request.headers.find("Authorization");
  if (key.empty() && authorization) key = bearer_key(*authorization).value_or("");
  if (key.empty()) return 0;
  const telemetry::RequestKey digest = telemetry::digest_key(key);
  uint64_t mark = 0;
  std::memcpy(&mark, digest.data(), sizeof mark);
  return mark | 1;
}

std::string random_id(std::string_view prefix) { return std::string(prefix) + random_hex(12); }

int64_t unix_seconds() {
  return std::chrono::duration_cast<std::chrono::seconds>(std::chrono::system_clock::now().time_since_epoch()).count();
}

}  // namespace spillway::server
