// The part of Journey that speaks to the client: streams, errors, headers, the log.
#include <fmt/format.h>

#include <cmath>

#include "gateway/journey.h"
#include "gateway/json_cursor.h"
#include "metrics/metrics.h"
#include "net/sse.h"

namespace spillway::gateway {
namespace {

using api::ApiError;
using api::ErrorKind;

metrics::Counter answers_total{
    "spillway_gateway_answers_total", "Requests by the upstream that answered and outcome.", {"upstream", "outcome"}};
metrics::Counter tokens_total{
    "spillway_gateway_tokens_total", "Tokens by upstream, as it counted them.", {"upstream", "kind"}};
metrics::Counter resumed_total{
    "spillway_gateway_resumed_total", "Streams that broke off and were taken up elsewhere.", {"how"}};
metrics::Counter broken_total{"spillway_gateway_broken_streams_total", "Streams that ended in an error told in them."};
metrics::Histogram first_token_seconds{"spillway_gateway_first_token_seconds",
                                       "From request to first token, by upstream.",
                                       {0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 2, 5, 10, 30},
                                       {"upstream"}};

TimePoint now() { return std::chrono::steady_clock::now(); }

ApiError error_of(const Step& step) {
  switch (step.outcome) {
    case Outcome::kLimited:
      return {ErrorKind::kRateLimit, "Every upstream is over its rate: " + step.message, "", ""};
    case Outcome::kBusy:
      return {ErrorKind::kOverloaded, "No upstream could take the request: " + step.message, "", ""};
    default:
      break;
  }
  if (std::string_view(step.reason) == "timeout" || std::string_view(step.reason) == "stalled") {
    return {ErrorKind::kDeadline, "No upstream answered in time: " + step.message, "", ""};
  }
  return {ErrorKind::kOverloaded,
          "No upstream could answer: " + (step.message.empty() ? std::string(step.reason) : step.message), "",
          "upstream_unavailable"};
}

}  // namespace

net::Headers Journey::headers(std::string content_type) const {
  net::Headers fields;
  fields.add("Content-Type", std::move(content_type));
  fields.add("X-Request-Id", call_.request.id);
  if (!last_upstream_.empty()) {
    fields.add("X-Spillway-Upstream", last_upstream_);
    fields.add("X-Spillway-Attempts", std::to_string(attempts_));
  }
  return fields;
}

asio::awaitable<void> Journey::relay() {
  net::Headers fields = headers(std::string(net::kSseContentType));
  fields.add("Cache-Control", "no-cache");
  fields.add("X-Accel-Buffering", "no");
  answered_ = {200, "ok"};
  first_token_seconds.with({last_upstream_}).observe(seconds(now() - call_.received));
  bool alive = co_await writer_.start_stream(200, std::move(fields));
  while (alive) {
    if (!attempt_->out().empty()) alive = co_await writer_.write(attempt_->out());
    if (!alive || attempt_->finished()) break;
    Step step = co_await attempt_->more();
    if (left()) break;
    if (step.kind == Step::Kind::kGood) continue;
    // What was sound before the break still goes out.
    if (!attempt_->out().empty()) alive = co_await writer_.write(attempt_->out());
    if (!alive) break;
    const bool taken_up = co_await take_up(step);
    if (taken_up) continue;
    if (left()) break;
    answered_.outcome = "broken";
    broken_total->add();
    co_await tell_error(last_);
    co_return;
  }
  if (left() || !alive) {
    answered_ = {499, "cancelled"};
    attempt_->cancel();
    attempt_->conclude(Outcome::kAbandoned);
    co_return;
  }
  attempt_->conclude(Outcome::kAnswered);
  co_await writer_.end();
  co_await attempt_->tidy();
}

// The stream broke after the client had seen some of it. A Spillway's is resumed token by token by another; others'
// only where an answer may be continued by an assistant prefix.
asio::awaitable<bool> Journey::take_up(const Step& broken) {
  auto resume = std::make_unique<Resume>(std::move(attempt_->told()));
  note_failure(broken);
  if (!resume->exact) co_return false;
  resume_ = std::move(resume);
  Step step = co_await try_upstreams();
  if (left() || step.kind != Step::Kind::kGood) {
    last_ = step;
    co_return false;
  }
  resumed_total.with({"exact"}).add();
  co_return true;
}

asio::awaitable<void> Journey::tell_error(const Step& step) {
  ApiError error = error_of(step);
  if (!writer_.started()) {
    std::optional<Duration> after = step.rest;
    if (!after && (step.outcome == Outcome::kBusy || step.outcome == Outcome::kLimited))
      after = std::chrono::seconds(1);
    co_await send_error(std::move(error), after);
    co_return;
  }
  std::string event;
  if (call_.protocol == Protocol::kOpenAi) {
    net::append_sse_event(event, api::openai_error_body(error));
  } else {
    net::append_sse_event(event, api::anthropic_error_body(error), "error");
  }
  const bool written = co_await writer_.write(event);
  if (written) co_await writer_.end();
}

asio::awaitable<void> Journey::send_error(ApiError error, std::optional<Duration> retry_after) {
  net::Headers fields = headers("application/json");
  if (retry_after) fields.add("Retry-After", fmt::format("{:.0f}", std::max(1.0, std::ceil(seconds(*retry_after)))));
  answered_ = {error.http_status(), api::error_row(error.kind).label};
  std::string body =
      call_.protocol == Protocol::kOpenAi ? api::openai_error_body(error) : api::anthropic_error_body(error);
  co_await writer_.send(answered_.status, std::move(fields), std::move(body));
}

void Journey::finish_log() {
  answers_total.with({last_upstream_, answered_.outcome}).add();
  answered_.model = call_.features.model;
  answered_.upstream = last_upstream_;
  answered_.tenant = caller_.tenant;
  if (attempt_ && attempt_->has_usage()) {
    const TokenUsage& usage = answered_.usage = attempt_->usage();
    const Price& price = attempt_->upstream().info().price;
    answered_.cost = (double(usage.prompt_tokens - usage.cached_tokens) * price.input +
                      double(usage.cached_tokens) * price.cached_input + double(usage.output_tokens) * price.output) *
                     1e-6;
  }
  if (attempt_ && attempt_->has_usage()) {
    tokens_total.with({last_upstream_, "prompt"}).add(double(attempt_->usage().prompt_tokens));
    tokens_total.with({last_upstream_, "cached"}).add(double(attempt_->usage().cached_tokens));
    tokens_total.with({last_upstream_, "output"}).add(double(attempt_->usage().output_tokens));
  }
  if (!gateway_.access_log().on()) return;
  std::string line = fmt::format(
      R"({{"time":{:.3f},"id":"{}","status":{},"outcome":"{}","upstream":"{}","attempts":{},"stream":{},"seconds":{:.6f},"waited_s":{:.6f})",
      std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count(), call_.request.id,
      answered_.status, answered_.outcome, last_upstream_, attempts_, call_.scan.stream,
      seconds(now() - call_.received), seconds(waited_));
  line += ",\"model\":";
  append_json_string(line, call_.features.model);
  if (!caller_.tenant.empty()) {
    line += ",\"tenant\":";
    append_json_string(line, caller_.tenant);
  }
  if (const auto trace = call_.request.headers.find("traceparent")) {
    line += ",\"traceparent\":";
    append_json_string(line, *trace);
  }
  if (attempt_ && attempt_->has_usage()) {
    line += fmt::format(R"(,"prompt_tokens":{},"cached_tokens":{},"output_tokens":{})", attempt_->usage().prompt_tokens,
                        attempt_->usage().cached_tokens, attempt_->usage().output_tokens);
  }
  gateway_.access_log().write(line + "}");
}

}  // namespace spillway::gateway
