#include "gateway/journey.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <random>

#include "base/trace.h"
#include "metrics/metrics.h"

namespace spillway::gateway {
namespace {

using api::ApiError;
using api::ErrorKind;

metrics::Counter attempts_total{"spillway_gateway_attempts_total", "Attempts by upstream and how they ended.",
                                {"upstream", "result"}};
metrics::Counter chosen_total{"spillway_gateway_decisions_total", "First choices by upstream and deciding policy.",
                              {"upstream", "policy"}};
metrics::Counter retries_total{"spillway_gateway_retries_total", "Further attempts, by why.", {"reason"}};
metrics::Counter waits_total{"spillway_gateway_waits_total", "Requests that waited for an upstream."};
metrics::Gauge queued_gauge{"spillway_gateway_queued", "Requests waiting for an upstream now."};

constexpr Duration kPoll = std::chrono::milliseconds(10);
constexpr Duration kPollMax = std::chrono::milliseconds(100);
constexpr Duration kAgainAfter = std::chrono::milliseconds(20);
constexpr Duration kLastChance = std::chrono::milliseconds(1500);  // before the deadline, when none was tried

TimePoint now() { return std::chrono::steady_clock::now(); }

double jitter() {
  thread_local std::minstd_rand generator{std::random_device{}()};
  return std::uniform_real_distribution<double>(0.5, 1.5)(generator);
}

}  // namespace

Journey::Journey(Gateway& gateway, std::shared_ptr<Lane> lane, Call call, net::ResponseWriter& writer)
    : gateway_(gateway),
      lane_(std::move(lane)),
      call_(std::move(call)),
      writer_(writer),
      leaving_(std::make_shared<Leaving>()) {
  leaving_->signal = std::make_shared<net::Signal>(lane_->executor());
}

asio::awaitable<Answered> Journey::run() {
  writer_.on_disconnect([leaving = leaving_] {
    leaving->left = true;
    if (leaving->attempt != nullptr) leaving->attempt->cancel();
    leaving->signal->notify();
  });
  const bool admitted = co_await admit();
  if (!admitted) co_return answered_;
  gateway_.retry_budget().request(now());
  Step step = co_await try_upstreams();
  if (left()) {
    answered_ = {499, "cancelled"};
    if (attempt_) attempt_->conclude(Outcome::kAbandoned);
  } else if (step.kind == Step::Kind::kFailed) {
    co_await tell_error(step);
  } else if (step.kind == Step::Kind::kForClient) {
    attempt_->conclude(step.outcome);
    answered_ = {step.status, step.reason};
    net::Headers fields = headers(attempt_->content_type());
    co_await writer_.send(step.status, std::move(fields), std::move(attempt_->out()));
  } else if (!call_.scan.stream) {
    attempt_->conclude(Outcome::kAnswered);
    answered_ = {200, "ok"};
    net::Headers fields = headers(attempt_->content_type());
    co_await writer_.send(200, std::move(fields), std::move(attempt_->out()));
  } else {
    co_await relay();
  }
  leaving_->attempt = nullptr;
  settle();
  finish_log();
  co_return answered_;
}

asio::awaitable<bool> Journey::admit() {
  Tenants* tenants = gateway_.tenants();
  if (tenants == nullptr || !tenants->required()) co_return true;
  auto caller = tenants->authenticate(call_.client_key);
  if (!caller.ok()) {
    ApiError error = caller.error();
    co_await send_error(std::move(error));
    co_return false;
  }
  caller_ = std::move(caller).value();
  if (!caller_.may_use(call_.features.model)) {
    ApiError error{ErrorKind::kPermission, "This key may not use the model `" + call_.features.model + "`.", "model", ""};
    co_await send_error(std::move(error));
    co_return false;
  }
  Need need;
  need.model = call_.features.model;
  need.prompt_tokens = call_.features.prompt_tokens;
  need.output_tokens = call_.scan.max_tokens.value_or(output_tokens_expected(call_.features));
  for (const auto& upstream : gateway_.upstreams()) {
    need.price.input = std::max(need.price.input, upstream->info().price.input);
    need.price.output = std::max(need.price.output, upstream->info().price.output);
  }
  struct Waiting {
    std::shared_ptr<net::Signal> signal;
    std::optional<Admission> admission;
  };
  auto waiting = std::make_shared<Waiting>();
  waiting->signal = std::make_shared<net::Signal>(lane_->executor());
  tenants->reserve(caller_, need, [waiting](Admission admission) {
    waiting->admission = std::move(admission);
    waiting->signal->notify();
  });
  const bool told = co_await waiting->signal->wait_until(call_.deadline);
  if (!told) {
    ApiError error{ErrorKind::kOverloaded, "The quota store did not answer in time.", "", ""};
    co_await send_error(std::move(error));
    co_return false;
  }
  if (waiting->admission->denial) {
    Denial& denial = *waiting->admission->denial;
    std::optional<Duration> after;
    if (denial.retry_after_s) after = from_seconds(*denial.retry_after_s);
    ApiError error = std::move(denial.error);
    co_await send_error(std::move(error), after);
    co_return false;
  }
  reservation_ = std::move(*waiting->admission->reservation);
  co_return true;
}

asio::awaitable<Step> Journey::try_upstreams() {
  last_ = {};
  last_.kind = Step::Kind::kFailed;
  last_.reason = "none_available";
  for (;;) {
    if (attempts_ >= gateway_.options().attempts_max) co_return last_;
    const bool chosen = co_await choose();
    if (!chosen) co_return last_;
    const TimePoint first = is_last_chance() ? call_.deadline
                                             : std::min(call_.deadline, now() + attempt_->upstream().options().first_token_timeout);
    const int64_t traced = trace::begin_async();
    Step step = co_await attempt_->begin(first);
    trace::end_async("gateway", "attempt", reinterpret_cast<uintptr_t>(this), traced, "attempt", attempts_);
    if (left()) co_return step;
    attempts_total.with({attempt_->upstream().name(), step.kind == Step::Kind::kGood ? "ok" : step.reason}).add();
    if (step.kind != Step::Kind::kFailed) {
      mark(metrics::Moment::Kind::kFirstByte, last_upstream_);
      co_return step;
    }
    mark(metrics::Moment::Kind::kFailed, last_upstream_ + ": " + step.reason);
    note_failure(step);
    const bool may = co_await await_budget(was_open_);
    if (!may) co_return last_;
    retries_total.with({step.reason}).add();
  }
}

void Journey::note_failure(const Step& step) {
  attempt_->conclude(step.outcome, step.rest);
  Upstream& upstream = attempt_->upstream();
  was_open_ = upstream.open(now());
  const bool key_left = step.outcome == Outcome::kKeyRefused || step.outcome == Outcome::kLimited;
  again_.reset();
  if (key_left && upstream.may_admit(now())) {
    again_ = current_;  // with another key
  } else if (step.again && !asked_again_ && !was_open_) {
    again_ = current_;
    asked_again_ = true;
  } else {
    tried_.insert(current_);
  }
  last_ = step;
  leaving_->attempt = nullptr;
  attempt_.reset();
}

// A further attempt needs the fleet's budget, unless the upstream that failed is out of service: what moves away from it
// is no load that comes twice.
asio::awaitable<bool> Journey::await_budget(bool free) {
  while (!free && !gateway_.retry_budget().take(now())) {
    if (left() || now() >= call_.deadline) co_return false;
    co_await pause(kPoll);
  }
  co_return !left() && now() < call_.deadline;
}

asio::awaitable<void> Journey::pause(Duration time) {
  const auto jittered = std::chrono::duration_cast<Duration>(time * jitter());
  co_await leaving_->signal->wait_until(std::min(call_.deadline, now() + jittered));
}

bool Journey::start(size_t index, bool force) {
  Upstream& upstream = *gateway_.upstreams()[index];
  if (upstream_path(call_.endpoint, upstream.options().kind).empty()) return false;
  auto ticket = upstream.admit(now(), call_.features.prompt_tokens, force);
  if (!ticket) return false;
  current_ = index;
  ++attempts_;
  last_upstream_ = upstream.name();
  mark(resume_ ? metrics::Moment::Kind::kResumed : metrics::Moment::Kind::kAttempt, last_upstream_);
  attempt_ = std::make_unique<Attempt>(lane_, upstream, *ticket, call_, gateway_.local(), gateway_.options(), resume_.get());
  leaving_->attempt = attempt_.get();
  return true;
}

// Whether nobody else could still be asked.
bool Journey::is_last_chance() const {
  const auto others = gateway_.upstreams().size() - tried_.size();
  return others <= 1 || attempts_ >= gateway_.options().attempts_max;
}

asio::awaitable<bool> Journey::choose() {
  if (again_) {
    const size_t index = *std::exchange(again_, std::nullopt);
    co_await pause(kAgainAfter);
    if (left()) co_return false;
    if (start(index, false)) co_return true;
    tried_.insert(index);
  }
  const GatewayOptions& options = gateway_.options();
  const TimePoint began = now();
  const TimePoint until = std::min(call_.deadline, began + options.queue_wait_max);
  bool queued = false;
  Duration poll = kPoll;
  bool started = false, refused = false;
  while (!started && !refused && !left()) {
    const TimePoint at = now();
    Decision decision = gateway_.decide(call_.features, at);
    for (const Candidate& candidate : decision.order) {
      if (tried_.contains(candidate.upstream)) continue;
      started = start(candidate.upstream, false);
      if (!started) continue;
      if (attempts_ == 1) chosen_total.with({last_upstream_, decision.policy}).add();
      if (!call_.features.prefix_blocks.empty()) {
        gateway_.prefixes().record(candidate.upstream, call_.features.prefix_blocks, at);
      }
      break;
    }
    if (started) break;
    if (!tried_.empty()) {  // everybody had a turn: another round, for who failed may be well again
      tried_.clear();
      co_await pause(poll);
      poll = std::min(poll * 2, kPollMax);
      if (now() < until) continue;
    }
    // Near the end of its time a request that was never tried is tried anyhow.
    const bool never = attempts_ == 0;
    if (never && at >= until - kLastChance) {
      for (size_t i = 0; i < gateway_.upstreams().size() && !started; ++i) {
        const auto& info = gateway_.upstreams()[i]->info();
        const bool has = info.models.empty() || std::ranges::find(info.models, call_.features.model) != info.models.end();
        if (has) started = start(i, true);
      }
      if (!started) refused = true;
      continue;
    }
    if (at >= until) refused = true;
    if (!queued) {
      const int bound = options.queue_requests_max * (call_.features.priority < 0 ? 50 : call_.features.priority > 0 ? 100 : 90) / 100;
      if (gateway_.queued().load() >= bound) {
        last_.reason = "queue_full";
        last_.outcome = Outcome::kBusy;
        last_.message = "too many requests are waiting for an upstream";
        refused = true;
        break;
      }
      queued = true;
      gateway_.queued().fetch_add(1);
      queued_gauge->add(1);
      waits_total->add();
    }
    // Higher priorities look more often, so they find the free places first.
    const Duration wait = call_.features.priority > 0 ? poll / 4 : call_.features.priority < 0 ? poll * 4 : poll;
    co_await pause(wait);
    poll = std::min(poll * 2, kPollMax);
  }
  if (queued) {
    gateway_.queued().fetch_sub(1);
    queued_gauge->add(-1);
  }
  waited_ += now() - began;
  co_return started && !left();
}

void Journey::mark(metrics::Moment::Kind kind, std::string_view note) const {
  if (const auto& timeline = call_.request.timeline) timeline->add(kind, now(), 0, 0, note);
}

void Journey::settle() {
  if (!reservation_.held()) return;
  if (!attempt_ || answered_.status != 200) {
    reservation_.refund();
    return;
  }
  TokenUsage usage = attempt_->usage();
  if (!attempt_->has_usage()) {  // an upstream that tells none: by the text that came
    usage.prompt_tokens = call_.features.prompt_tokens;
    usage.output_tokens = std::max<int64_t>(1, attempt_->text_bytes() / 4);
  }
  reservation_.settle(usage, attempt_->upstream().info().price);
}

}  // namespace spillway::gateway
