// The part of Journey that speaks to the client: streams, errors, headers, the log.
#include <fmt/format.h>

#include <cmath>

#include "gateway/journey.h"
#include "gateway/json_cursor.h"
#include "gateway/policies/prompt_scan.h"
#include "gateway/rate_limit_headers.h"
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
    case Outcome::kClientError:
      if (step.reason == kContextLength)
        return {ErrorKind::kInvalidFormat, step.message, "messages", "context_length_exceeded"};
      if (step.status == 404) return {ErrorKind::kNotFound, step.message, "model", "model_not_found"};
      return {ErrorKind::kInvalidFormat, "No upstream can do what is asked: " + step.message, "", ""};
    case Outcome::kKeyRefused:
      return {ErrorKind::kOverloaded, "No upstream accepts the gateway's key: " + step.message, "",
              "upstream_key_refused"};
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
  add_rate_limits(limits_, call_.protocol, std::chrono::system_clock::now(), fields);
  return fields;
}

net::Headers Journey::stream_headers() const {
  net::Headers fields = headers(std::string(net::kSseContentType));
  fields.add("Cache-Control", "no-cache");
  fields.add("X-Accel-Buffering", "no");
  return fields;
}

// Behind the first token's back: it does not wait for the books.
void Journey::note_first_token() {
  count_attempt(*attempt_, "ok");
  mark(metrics::Moment::Kind::kFirstByte, last_upstream_);
  first_token_seconds.with({last_upstream_})
      .observe(seconds(*first_token_after_), metrics::trace_id_of(call_.request.timeline));
}

asio::awaitable<void> Journey::relay() {
  set_answered(200, "ok");
  first_token_after_ = now() - call_.received;
  bool alive = true;
  if (!writer_.started() && !attempt_->finished()) {  // else the whole goes at the end
    net::Headers fields = stream_headers();
    alive = co_await writer_.start_stream(200, std::move(fields), attempt_->out());
    attempt_->out().clear();
  }
  note_first_token();
  while (alive && !attempt_->finished()) {
    if (!attempt_->out().empty()) alive = co_await writer_.write(attempt_->out());
    if (!alive) break;
    Step step = co_await attempt_->more();
    if (left()) break;
    if (step.kind == Step::Kind::kGood) continue;
    // What was sound before the break still goes out.
    if (!attempt_->out().empty()) alive = co_await writer_.write(attempt_->out());
    if (!alive) break;
    broken_ = attempt_;
    const bool taken_up = co_await take_up(step);
    if (taken_up) continue;
    if (left()) break;
    answered_.outcome = "broken";
    broken_total->add();
    co_await tell_error(last_);
    co_return;
  }
  if (left() || !alive) {
    set_answered(499, "cancelled");
    if (!attempt_) co_return;
    attempt_->cancel();
    attempt_->conclude(Outcome::kAbandoned);
    co_return;
  }
  conclude_answered();
  if (!writer_.started()) {
    net::Headers fields = stream_headers();
    co_await writer_.start_stream(200, std::move(fields));
  }
  co_await writer_.end(attempt_->out());
  co_await attempt_->tidy();
}

// The stream broke after the client had seen some of it. A Spillway's is resumed token by token by another; others'
// only where an answer may be continued by an assistant prefix.
asio::awaitable<bool> Journey::take_up(const Step& broken) {
  auto resume = std::make_shared<Resume>(std::move(attempt_->told()));
  note_failure(attempt_, current_, broken);
  again_.reset();
  tried_.insert(current_);
  const bool turns = call_.endpoint == Endpoint::kChat || call_.endpoint == Endpoint::kMessages;
  const bool possible = (resume->exact || resume->continuable()) && turns && call_.scan.n == 1;
  if (!possible) co_return false;
  resume_ = std::move(resume);
  attempt_.reset();
  Step step = co_await try_upstreams();
  if (left() || step.kind != Step::Kind::kGood) {
    last_ = step;
    co_return false;
  }
  count_attempt(*attempt_, "ok");
  mark(metrics::Moment::Kind::kFirstByte, last_upstream_);
  const UpstreamKind kind = attempt_->upstream().options().kind;
  const bool exactly = resume_->exact && (kind == UpstreamKind::kSpillway || kind == UpstreamKind::kLocal);
  resumed_total.with({exactly ? "exact" : "prefix"}).add();
  co_return true;
}

asio::awaitable<void> Journey::tell_error(const Step& step) {
  ApiError error = error_of(step);
  if (!writer_.started()) {
    std::optional<Duration> after = step.rest;
    if (!after && step.outcome == Outcome::kFailed) after = std::chrono::seconds(1);
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

asio::awaitable<void> Journey::send_whole(int status) {
  if (writer_.started()) {  // by comments: the refusal is told as an event
    std::string event;
    net::append_sse_event(event, attempt_->out(), call_.protocol == Protocol::kAnthropic ? "error" : "");
    const bool written = co_await writer_.write(event);
    if (written) co_await writer_.end();
    co_return;
  }
  net::Headers fields = headers(attempt_->content_type());
  std::string body = std::move(attempt_->out());
  co_await writer_.send(status, std::move(fields), std::move(body));
}

// Nobody could count: the estimate that routing goes by, over all of the request, and it says that it is one.
asio::awaitable<void> Journey::send_estimate() {
  set_answered(200, "estimated");
  PromptScan scan;
  scan.add("", call_.request.body);
  last_upstream_.clear();
  net::Headers fields = headers("application/json");
  fields.add("X-Spillway-Estimate", "true");
  std::string body = fmt::format("{{\"input_tokens\":{}}}", scan.tokens());
  co_await writer_.send(200, std::move(fields), std::move(body));
}

asio::awaitable<void> Journey::send_error(ApiError error, std::optional<Duration> retry_after) {
  net::Headers fields = headers("application/json");
  if (retry_after) fields.add("Retry-After", fmt::format("{:.0f}", std::max(1.0, std::ceil(seconds(*retry_after)))));
  set_answered(error.http_status(), api::error_row(error.kind).label);
  std::string body =
      call_.protocol == Protocol::kOpenAi ? api::openai_error_body(error) : api::anthropic_error_body(error);
  co_await writer_.send(answered_.status, std::move(fields), std::move(body));
}

void Journey::finish_log() {
  if (attempt_ && attempt_->has_usage() && cached_expected_ > 0) {
    gateway_->prefixes().observe(current_, cached_expected_, double(attempt_->usage().cached_tokens));
  }
  answers_total.with({last_upstream_, answered_.outcome}).add();
  answered_.model = call_.features.model;
  answered_.upstream = last_upstream_;
  answered_.tenant = caller_.tenant;
  if (first_token_after_) answered_.first_token_s = seconds(*first_token_after_);
  if (attempt_) {
    answered_.answered_by = attempt_->model();
    answered_.finish_reason = attempt_->finish_reason();
  }
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
  if (gateway_->around().spans != nullptr && call_.trace.sampled) record_span();
  if (!gateway_->access_log().on()) return;
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
  line += ",\"trace_id\":\"" + call_.trace.trace_text() + '"';
  if (attempt_ && attempt_->has_usage()) {
    line += fmt::format(R"(,"prompt_tokens":{},"cached_tokens":{},"output_tokens":{})", attempt_->usage().prompt_tokens,
                        attempt_->usage().cached_tokens, attempt_->usage().output_tokens);
  }
  gateway_->access_log().write(line + "}");
}

void Journey::record_span() {
  constexpr const char* kOperations[] = {"chat",       "text_completion", "text_completion", "chat",
                                         "embeddings", "rerank",          "count_tokens",    "chat"};
  RequestSpan span;
  span.trace = call_.trace;
  span.operation = kOperations[int(call_.endpoint)];
  span.upstream = last_upstream_;
  span.request_model = call_.features.model;
  span.request_id = call_.request.id;
  span.tenant = caller_.tenant;
  span.status = answered_.status;
  span.outcome = answered_.outcome;
  if (first_token_after_) span.first_token_s = seconds(*first_token_after_);
  span.ended = std::chrono::system_clock::now();
  span.began = span.ended - std::chrono::duration_cast<std::chrono::system_clock::duration>(now() - call_.received);
  if (attempt_) {
    span.provider = kind_name(attempt_->upstream().options().kind);
    span.response_model = attempt_->model();
    span.finish_reason = attempt_->finish_reason();
    if (attempt_->has_usage()) {
      span.input_tokens = attempt_->usage().prompt_tokens;
      span.cached_tokens = attempt_->usage().cached_tokens;
      span.output_tokens = attempt_->usage().output_tokens;
    }
    spans_.push_back(
        {attempt_->span(), last_upstream_, span.provider, "ok", attempt_->status(), attempt_->began_at(), span.ended});
  }
  span.attempts = std::move(spans_);
  gateway_->around().spans->record(std::move(span));
}

}  // namespace spillway::gateway
