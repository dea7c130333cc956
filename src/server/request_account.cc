#include "server/request_account.h"

#include <algorithm>
#include <cctype>
#include <chrono>
#include <cstring>

#include "metrics/metrics.h"
#include "server/console/live_state.h"
#include "server/server.h"
#include "telemetry/outcomes/request_store.h"

namespace spillway::server {
namespace {

metrics::Histogram first_token_seconds("spillway_http_time_to_first_token_seconds",
                                       "From request to the first token of its answer, over HTTP and gRPC.",
                                       {0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50});
metrics::Counter tokens_total("spillway_request_tokens_total",
                              "Tokens of answered requests by the model that answered, here or at an upstream: input "
                              "(cached ones included), cached, output.",
                              {"model", "kind"});
metrics::Counter finishes_total("spillway_request_finishes_total",
                                "Generations by the model that answered, here or at an upstream, and how they ended.",
                                {"model", "reason"});

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

}  // namespace

RequestAccount::RequestAccount(Server& server, const RequestOrigin& origin)
    : server_(server), received_(std::chrono::steady_clock::now()) {
  record_.trace = telemetry::trace_context(origin.traceparent);
  record_.protocol = origin.protocol;
  record_.id = origin.id;
  record_.id_is_ours = origin.id_is_ours;
  record_.started_unix_ns = unix_ns();
  record_.caller = caller_of(origin.key);
  record_.arm = experiment_arm(origin.arm);
}

void RequestAccount::begin_timeline(std::string route, int64_t bytes) {
  timeline_ = server_.timelines().begin(record_.id, std::move(route), received_, std::string(trace_id()));
  timeline_->add(metrics::Moment::Kind::kReceived, received_, bytes);
}

void RequestAccount::set_model(std::string_view name, std::string_view version) {
  record_.model = record_.answered_by = name;
  record_.version = version;
  if (timeline_) timeline_->set_model(name);
}

void RequestAccount::note_usage(const api::Usage& usage) {
  record_.prompt_tokens = usage.prompt_tokens;
  record_.cached_tokens = usage.cached_tokens;
  record_.output_tokens = usage.completion_tokens;
}

void RequestAccount::first_token() {
  if (!record_.first_token_s) first_token_after(seconds(std::chrono::steady_clock::now() - received_));
}

void RequestAccount::first_token_after(double seconds) {
  record_.first_token_s = seconds;
  if (inner_) return;
  first_token_seconds->observe(seconds, trace_id());
  server_.live().record_first_token(seconds);
}

void RequestAccount::count_tokens() const {
  const std::string& model = record_.answered_by.empty() ? record_.model : record_.answered_by;
  const auto count = [&](const char* kind, int64_t tokens) {
    if (tokens > 0) tokens_total.with({model, kind}).add(double(tokens));
  };
  count("input", record_.prompt_tokens);
  count("cached", record_.cached_tokens);
  count("output", record_.output_tokens);
  if (!record_.finish_reason.empty()) finishes_total.with({model, record_.finish_reason}).add();
}

const telemetry::RequestRecord& RequestAccount::end(std::string_view route, std::string_view operation, int status,
                                                    const char* outcome) {
  const TimePoint now = std::chrono::steady_clock::now();
  record_.route = route;
  record_.operation = operation;
  record_.status = status;
  record_.outcome = outcome;
  record_.duration_s = seconds(now - received_);
  if (record_.arm.empty()) record_.arm = record_.upstream.empty() ? "local" : record_.upstream;
  count_tokens();
  for (telemetry::RequestSink* sink : server_.options().sinks) sink->record(record_);
  // After the sinks: who waits for the end may then ask them.
  if (timeline_) timeline_->add(metrics::Moment::Kind::kAnswered, now, status, 0, outcome);
  if (!operation.empty()) server_.live().record(record_.duration_s, status >= 500);
  return record_;
}

uint64_t caller_of(std::string_view key) {
  if (key.empty()) return 0;
  const telemetry::RequestKey digest = telemetry::digest_key(key);
  uint64_t mark = 0;
  std::memcpy(&mark, digest.data(), sizeof mark);
  return mark | 1;
}

}  // namespace spillway::server
