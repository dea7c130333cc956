// The part of Journey that waits for first tokens: alone, or with a second attempt elsewhere when the first is slower
// than nearly all were (the measured p99). The first good one wins; the other is cancelled, and counts for nothing.
#include <algorithm>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>

#include "gateway/journey.h"
#include "metrics/metrics.h"

namespace spillway::gateway {
namespace {

metrics::Counter hedges_total{"spillway_gateway_hedges_total",
                              "Second attempts sent while the first was slow, by who won.",
                              {"upstream", "result"}};
metrics::Counter shadows_total{
    "spillway_gateway_shadows_total", "Copies sent whose answer was thrown away.", {"upstream", "result"}};

TimePoint now() { return std::chrono::steady_clock::now(); }

// Reads a copy's answer to its end, so that the upstream is measured as others are.
asio::awaitable<void> run_shadow(std::shared_ptr<Attempt> attempt, TimePoint deadline) {
  Step step = co_await attempt->begin(deadline);
  while (step.kind == Step::Kind::kGood && !attempt->finished()) step = co_await attempt->more();
  const bool good = step.kind == Step::Kind::kGood;
  attempt->conclude(good ? Outcome::kAnswered : step.outcome, step.rest);
  shadows_total.with({attempt->upstream().name(), good ? "ok" : step.reason}).add();
}

}  // namespace

TimePoint Journey::first_token_deadline() const {
  if (is_last_chance()) return call_.deadline;
  return std::min(call_.deadline, now() + attempt_->upstream().options().first_token_timeout);
}

// Only where the first token says how the upstream does: not for whole answers, whose time is their length.
std::optional<Duration> Journey::hedge_patience() const {
  const GatewayOptions& options = gateway_->options();
  const bool telling = (call_.scan.stream || !call_.generates()) && call_.costs();
  if (!options.hedging || !telling || gateway_->upstreams().size() < 2) return std::nullopt;
  if (attempts_ >= options.attempts_max) return std::nullopt;
  const auto measured = attempt_->upstream().first_token_quantile(now(), options.hedge_quantile);
  if (!measured) return std::nullopt;
  return std::max(*measured, options.hedge_after_min);
}

asio::awaitable<Step> Journey::first_token() {
  const std::optional<Duration> patience = hedge_patience();
  return patience ? race(*patience) : attempt_->begin(first_token_deadline());
}

asio::awaitable<Step> Journey::race(Duration patience) {
  const std::shared_ptr<Contender> first = contend();
  const TimePoint until = now() + patience;
  while (!first->step && !left() && now() < until) co_await leaving_->signal->wait_until(until);
  std::shared_ptr<Contender> second;
  if (!first->step && !left()) second = hedge();
  co_return co_await await_winner(first, second);
}

std::shared_ptr<Journey::Contender> Journey::contend() {
  auto contender = std::make_shared<Contender>();
  contender->attempt = attempt_;
  contender->upstream = current_;
  const auto run = [](std::shared_ptr<Contender> held, TimePoint deadline,
                      std::shared_ptr<net::Signal> signal) -> asio::awaitable<void> {
    Step step = co_await held->attempt->begin(deadline);
    held->step = std::move(step);
    signal->notify();
  };
  asio::co_spawn(lane_->executor(), run(contender, first_token_deadline(), leaving_->signal), asio::detached);
  return contender;
}

// A second attempt at the best of the others that has room now; null when there is none or the budget is spent.
std::shared_ptr<Journey::Contender> Journey::hedge() {
  const size_t slow = current_;
  const std::shared_ptr<Attempt> first = attempt_;
  const Decision decision = gateway_->decide(call_.features, now());
  for (const Candidate& candidate : decision.order) {
    const std::shared_ptr<Upstream>& upstream = gateway_->upstreams()[candidate.upstream];
    const bool may = candidate.upstream != slow && !tried_.contains(candidate.upstream) && upstream->options().hedge &&
                     fits(candidate.upstream) && upstream->may_admit(now());
    if (!may) continue;
    if (!gateway_->retry_budget().take(now())) return nullptr;
    if (start(candidate.upstream, false)) return contend();
  }
  current_ = slow;
  attempt_ = first;
  return nullptr;
}

// Until one is good, or all have failed. attempt_ and current_ are then whose step it is.
asio::awaitable<Step> Journey::await_winner(std::shared_ptr<Contender> first, std::shared_ptr<Contender> second) {
  std::vector<std::shared_ptr<Contender>> open{first};
  if (second) open.push_back(second);
  for (;;) {
    if (left()) {
      Step gone;
      gone.kind = Step::Kind::kFailed;
      gone.outcome = Outcome::kAbandoned;
      gone.reason = "cancelled";
      co_return gone;
    }
    for (size_t i = 0; i < open.size(); ++i) {
      const std::shared_ptr<Contender> one = open[i];
      if (!one->step) continue;
      const bool failed = one->step->kind == Step::Kind::kFailed;
      if (failed && open.size() > 1) {  // the other may still do it
        count_attempt(*one->attempt, one->step->reason);
        note_failure(one->attempt, one->upstream, *one->step);
        again_.reset();
        open.erase(open.begin() + long(i));
        break;
      }
      for (const auto& other : open) {
        if (other == one) continue;
        other->attempt->cancel();
        other->attempt->conclude(Outcome::kAbandoned);
        count_attempt(*other->attempt, "lost");
        forget(other->attempt);
      }
      if (second)
        hedges_total.with({second->attempt->upstream().name(), one == second && !failed ? "won" : "lost"}).add();
      attempt_ = one->attempt;
      current_ = one->upstream;
      last_upstream_ = attempt_->upstream().name();
      co_return std::move(*one->step);
    }
    const bool any = std::ranges::any_of(open, [](const auto& one) { return one->step.has_value(); });
    if (!any) co_await leaving_->signal->wait_until(TimePoint::max());
  }
}

void Journey::forget(const std::shared_ptr<Attempt>& attempt) { std::erase(leaving_->running, attempt); }

// A copy for an upstream on trial; the client's own request neither waits for it nor pays for it.
void Journey::shadow(size_t index) {
  const std::shared_ptr<Upstream>& upstream = gateway_->upstreams()[index];
  if (upstream_path(call_.endpoint, upstream->options().kind).empty()) return;
  const auto ticket = upstream->admit(now(), call_.features.prompt_tokens);
  if (!ticket) return;
  auto copy = std::make_shared<Attempt>(lane_, upstream, *ticket, held_call_, gateway_->around().local,
                                        gateway_->options().answer_bytes_max, nullptr);
  asio::co_spawn(lane_->executor(), run_shadow(copy, call_.deadline), asio::detached);
}

}  // namespace spillway::gateway
