// The part of Journey that finds who is asked: the policies' order, room, and the line of those who wait for it.
#include <fmt/format.h>

#include <algorithm>

#include "gateway/journey.h"
#include "metrics/metrics.h"

namespace spillway::gateway {
namespace {

metrics::Counter chosen_total{
    "spillway_gateway_decisions_total", "First choices by upstream and deciding policy.", {"upstream", "policy"}};
metrics::Counter waits_total{
    "spillway_gateway_waits_total", "Requests that waited for an upstream, by priority.", {"priority"}};
metrics::Counter shed_total{
    "spillway_gateway_shed_total", "Requests refused instead of waiting, by priority and why.", {"priority", "reason"}};
metrics::Gauge queued_gauge{"spillway_gateway_queued", "Requests waiting for an upstream now."};

constexpr Duration kLook = std::chrono::milliseconds(10);  // between two looks of who waits; doubled each time
constexpr Duration kLookMax = std::chrono::milliseconds(100);
constexpr Duration kAgainAfter = std::chrono::milliseconds(20);
constexpr Duration kLastChance = std::chrono::milliseconds(1500);  // before the deadline, when none was tried

TimePoint now() { return std::chrono::steady_clock::now(); }

const char* priority_name(int priority) { return priority < 0 ? "low" : priority > 0 ? "high" : "normal"; }

bool has_model(const UpstreamInfo& info, const std::string& model) {
  return info.models.empty() || std::ranges::find(info.models, model) != info.models.end();
}

}  // namespace

// Whether the upstream may be asked at this stage: it has the endpoint, and can go on with what the client has seen.
bool Journey::fits(size_t index) const {
  const UpstreamOptions& upstream = gateway_->upstreams()[index]->options();
  if (unfit_.contains(index) || upstream_path(call_.endpoint, upstream.kind).empty()) return false;
  if (!resume_) return true;
  const bool own = upstream.kind == UpstreamKind::kSpillway || upstream.kind == UpstreamKind::kLocal;
  if (own && resume_->exact) return true;
  const bool same_dialect = upstream_protocol(call_.endpoint, upstream.kind) == call_.protocol;
  return upstream.continuation_safe && same_dialect && resume_->continuable();
}

bool Journey::start(size_t index, bool force) {
  if (!fits(index)) return false;
  const std::shared_ptr<Upstream>& upstream = gateway_->upstreams()[index];
  auto ticket = upstream->admit(now(), call_.features.prompt_tokens, force);
  if (!ticket) return false;
  current_ = index;
  ++attempts_;
  last_upstream_ = upstream->name();
  mark(resume_ ? metrics::Moment::Kind::kResumed : metrics::Moment::Kind::kAttempt, last_upstream_);
  attempt_ = std::make_shared<Attempt>(lane_, upstream, *ticket, held_call_, gateway_->around().local,
                                       gateway_->options().answer_bytes_max, resume_);
  leaving_->running.push_back(attempt_);
  return true;
}

bool Journey::pick(TimePoint at) {
  const Decision decision = gateway_->decide(call_.features, at);
  for (const Candidate& candidate : decision.order) {
    if (tried_.contains(candidate.upstream) || !start(candidate.upstream, false)) continue;
    if (attempts_ == 1) {
      chosen_total.with({last_upstream_, decision.policy}).add();
      if (decision.shadow) shadow(*decision.shadow);
    }
    if (!call_.features.prefix_blocks.empty()) {
      gateway_->prefixes().record(candidate.upstream, call_.features.prefix_blocks, at);
      cached_expected_ = candidate.cached_tokens;
    }
    return true;
  }
  return false;
}

// Near the end of its time a request that was never tried is tried anyhow.
bool Journey::start_by_force() {
  for (size_t i = 0; i < gateway_->upstreams().size(); ++i) {
    if (has_model(gateway_->upstreams()[i]->info(), call_.features.model) && start(i, true)) return true;
  }
  return false;
}

// Whether nobody else could still be asked.
bool Journey::is_last_chance() const {
  const auto others = gateway_->upstreams().size() - tried_.size();
  return others <= 1 || attempts_ >= gateway_->options().attempts_max;
}

// Whether no upstream could take the request even if all were well and idle: waiting is no use. Says so in last_.
bool Journey::nobody_ever(TimePoint at) {
  std::vector<UpstreamState> states;
  bool model_known = false, any_fits = false;
  for (size_t i = 0; i < gateway_->upstreams().size(); ++i) {
    UpstreamState& state = states.emplace_back();
    state.info = &gateway_->upstreams()[i]->info();
    model_known |= has_model(*state.info, call_.features.model);
  }
  const Decision decision = gateway_->decide(call_.features, states, at);
  for (const Candidate& candidate : decision.order) any_fits |= fits(candidate.upstream);
  if (any_fits) return false;
  if (attempts_ > 0) return true;  // and the last failure tells why
  last_.outcome = Outcome::kClientError;
  last_.status = model_known ? 400 : 404;
  last_.reason = model_known ? "no_upstream" : "model_not_found";
  last_.message =
      model_known ? "No upstream takes such a request" : "The model `" + call_.features.model + "` does not exist.";
  for (const Refusal& refusal : decision.refused) {
    if (model_known) last_.message += fmt::format("; {}: {}", states[refusal.upstream].info->name, refusal.reason);
  }
  return true;
}

// Takes a place, or says in last_ why there is none.
bool Journey::wait_in_line(TimePoint at, TimePoint until) {
  WaitingLine& line = gateway_->waiting();
  const char* why = nullptr;
  const Duration expected = line.expected_wait(priority_, at);
  if (at + expected > until) why = "deadline";
  if (why == nullptr) place_ = line.enter(call_.features.model, priority_, leaving_->signal);
  if (why == nullptr && !place_) why = "queue_full";
  if (why != nullptr) {
    shed_total.with({priority_name(priority_), why}).add();
    last_.reason = why;
    last_.outcome = Outcome::kBusy;
    last_.rest = std::max<Duration>(expected, std::chrono::seconds(1));
    last_.message = place_ ? "" : "too many requests are waiting for an upstream";
    return false;
  }
  queued_gauge->add(1);
  waits_total.with({priority_name(priority_)}).add();
  return true;
}

asio::awaitable<bool> Journey::choose() {
  if (again_) {
    const size_t index = *std::exchange(again_, std::nullopt);
    co_await pause(kAgainAfter);
    if (left()) co_return false;
    if (start(index, false)) co_return true;
    tried_.insert(index);
  }
  WaitingLine& line = gateway_->waiting();
  const TimePoint began = now();
  const TimePoint until = std::min(call_.deadline, began + gateway_->options().queue_wait_max);
  Duration look = kLook;
  bool started = false;
  while (!left()) {
    const TimePoint at = now();
    // Who comes waits behind those who wait; who has been tried already goes first.
    const bool behind = !place_ && attempts_ == 0 && line.has_before(call_.features.model, priority_);
    started = !behind && pick(at);
    if (started) break;
    if (!place_ && nobody_ever(at)) break;
    if (!tried_.empty()) tried_.clear();  // everybody had a turn: another round, for who failed may be well again
    const bool never = attempts_ == 0;
    if (never && at >= until - kLastChance) started = start_by_force();
    if (started || at >= until) break;
    if (!place_ && !wait_in_line(at, until)) break;
    if (place_->shed) {
      shed_total.with({priority_name(priority_), "displaced"}).add();
      last_.reason = "shed";
      last_.outcome = Outcome::kBusy;
      last_.message = "requests of a higher priority took the place in the line";
      break;
    }
    co_await pause(look);
    look = std::min(look * 2, kLookMax);
  }
  if (place_) {
    line.leave(place_);
    queued_gauge->add(-1);
    place_.reset();
    if (started) line.departed(now());
    line.freed();  // the next may look
  }
  waited_ += now() - began;
  co_return started && !left();
}

}  // namespace spillway::gateway
