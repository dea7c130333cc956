#include "server/http/exchange.h"

#include <fmt/format.h>

#include <algorithm>
#include <boost/beast/core/string.hpp>
#include <cctype>
#include <charconv>
#include <chrono>
#include <cmath>
#include <utility>

#include "base/random_bytes.h"
#include "net/inflate.h"
#include "server/auth.h"

namespace spillway::server {
namespace {

using api::ApiError;
using api::ErrorKind;

RequestOrigin origin_of(const net::HttpRequest& request) {
  RequestOrigin origin;
  origin.id = request.id;
  origin.id_is_ours = request.headers.value_or("X-Request-Id", "") != request.id;
  origin.traceparent = request.headers.value_or("traceparent", "");
  origin.arm = request.headers.value_or("X-Experiment-Arm", "");
  origin.key = key_of(request);
  return origin;
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
      account_(server, origin_of(request_)) {
  // Whoever answers this further on sees this server's span as its parent.
  request_.headers.set("traceparent", account_.record().trace.traceparent());
}

void Exchange::begin_timeline(std::string route) {
  account_.begin_timeline(std::move(route), static_cast<int64_t>(request_.body.size()));
  request_.timeline = account_.timeline();
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
  // Anthropic knows no 422: whatever is wrong with a request is a 400 to its clients.
  const bool unknown = dialect_ == Dialect::kAnthropic && error.http_status() == 422;
  co_await send_json(unknown ? 400 : error.http_status(), std::move(body));
}

asio::awaitable<void> Exchange::send_refused(Refused refused) {
  if (refused.retry_after_s > 0) {
    set_header("Retry-After", fmt::format("{:.0f}", std::ceil(refused.retry_after_s)));
    set_header("X-Predicted-Wait", fmt::format("{:.3f}", refused.predicted_wait_s));
  }
  if (server_.state() == ServerState::kDraining) set_header("Connection", "close");
  co_await send_error(std::move(refused.error));
}

asio::awaitable<bool> Exchange::unpack_body() {
  const std::string encoding(request_.headers.value_or("Content-Encoding", "identity"));
  if (boost::beast::iequals(encoding, "identity")) co_return true;
  ApiError error{api::ErrorKind::kUnsupported, "", "", ""};
  if (!boost::beast::iequals(encoding, "gzip") && !boost::beast::iequals(encoding, "deflate")) {
    error.message = "Content-Encoding: expected gzip, deflate or identity, found " + api::utf8_lossy(encoding);
    co_await send_error(std::move(error));
    co_return false;
  }
  auto unpacked = std::make_shared<std::optional<Result<std::string>>>();
  auto packed = std::make_shared<const std::string>(std::move(request_.body));
  const uint64_t bytes_max = server_.options().http.body_bytes_max;
  std::function<void()> work = [unpacked, packed, bytes_max] { unpacked->emplace(net::inflate(*packed, bytes_max)); };
  co_await server_.run_aside(std::move(work));
  Result<std::string>& body = **unpacked;
  if (!body.ok()) {
    const bool too_long = body.error().code == ErrorCode::kResourceExhausted;
    error.kind = too_long ? api::ErrorKind::kPayloadTooLarge : api::ErrorKind::kInvalidFormat;
    error.message = "body in " + api::utf8_lossy(encoding) + ": " + body.error().message;
    co_await send_error(std::move(error));
    co_return false;
  }
  if (!server_.charge_unpacked(body->size())) {
    error.kind = api::ErrorKind::kOverloaded;
    error.message = "The bodies being answered take all memory that they may; try again.";
    Refused refused{std::move(error), 1.0, 0.0, "bodies"};
    co_await send_refused(std::move(refused));
    co_return false;
  }
  unpacked_bytes_ = body->size();
  request_.body = std::move(*body);
  request_.headers.erase("Content-Encoding");
  co_return true;
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
  std::optional<FrontAnswer> answered = co_await server_.options().front(request_, writer_);
  request_.timeline = timeline;
  if (!answered) co_return false;
  status_ = answered->status;
  outcome_ = answered->outcome;
  telemetry::RequestRecord& facts = answered->facts;
  telemetry::RequestRecord& record = account_.record();
  record.model = std::move(facts.model);
  record.answered_by = std::move(facts.answered_by);
  record.tenant = std::move(facts.tenant);
  record.upstream = std::move(facts.upstream);
  record.finish_reason = std::move(facts.finish_reason);
  record.prompt_tokens = facts.prompt_tokens;
  record.cached_tokens = facts.cached_tokens;
  record.output_tokens = facts.output_tokens;
  record.cost = facts.cost;
  if (facts.first_token_s) account_.first_token_after(*facts.first_token_s);
  if (timeline && !record.model.empty())
    timeline->set_model(record.answered_by.empty() ? record.model : record.answered_by);
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
  return received() + std::chrono::milliseconds(*deadline_ms);
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

std::string_view key_of(const net::HttpRequest& request) {
  const std::string_view key = request.headers.value_or("x-api-key", "");
  if (!key.empty()) return key;
  const auto authorization = request.headers.find("Authorization");
  return authorization ? bearer_key(*authorization).value_or("") : "";
}

std::string random_id(std::string_view prefix) { return std::string(prefix) + random_hex(12); }

int64_t unix_seconds() {
  return std::chrono::duration_cast<std::chrono::seconds>(std::chrono::system_clock::now().time_since_epoch()).count();
}

}  // namespace spillway::server
