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
constexpr Duration kLookBehind = std::chrono::seconds(1);  // of who is told when it is his turn
constexpr Duration kRetryAfterMin = std::chrono::seconds(1), kRetryAfterMax = std::chrono::seconds(60);
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
  const Protocol theirs = upstream_protocol(call_.endpoint, upstream.kind);
  const bool sayable = theirs == call_.protocol || call_.protocol == Protocol::kOpenAi;
  return upstream.continuation_safe && sayable && resume_->continuable();
}

bool Journey::start(size_t index, bool force) {
  if (!fits(index)) return false;
  const std::shared_ptr<Upstream>& upstream = gateway_->upstreams()[index];
  auto ticket = upstream->admit(now(), call_.costs() ? call_.features.prompt_tokens : 0, force);
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
    if (!call_.features.prefix_blocks.empty() && call_.costs()) {
      gateway_->prefixes().record(candidate.upstream, call_.features.prefix_blocks, at);
      cached_expected_ = candidate.cached_tokens;
    }
    return true;
  }
  return false;
}

// Near the end of its time a request that was never tried is tried where an upstream is out of service: it may be well
// again. Not where one is full: that would only put those off who are being answered.
bool Journey::start_by_force(TimePoint at) {
  for (size_t i = 0; i < gateway_->upstreams().size(); ++i) {
    const Upstream& upstream = *gateway_->upstreams()[i];
    if (!upstream.open(at) || !has_model(upstream.info(), call_.features.model)) continue;
    if (start(i, true)) return true;
  }
  return false;
}

// The prompt was too long for the upstream that was asked: so it is for all whose context is known to be no longer.
// Whether anybody is left.
bool Journey::leave_short_contexts() {
  const int64_t had = gateway_->upstreams()[current_]->info().context_tokens_max;
  bool any = false;
  for (size_t i = 0; i < gateway_->upstreams().size(); ++i) {
    const UpstreamInfo& info = gateway_->upstreams()[i]->info();
    const int64_t has = info.context_tokens_max;  // 0: not known
    const bool longer = has == 0 ? had > 0 : has > had && has > call_.features.prompt_tokens;
    if (!longer)
      unfit_.insert(i);
    else
      any |= has_model(info, call_.features.model) && fits(i);
  }
  return any;
}

// Whether only this process has the model. Waiting for its device to be well again is no use: it answers while it can.
bool Journey::only_local() const {
  bool any = false;
  for (const auto& upstream : gateway_->upstreams()) {
    if (!has_model(upstream->info(), call_.features.model)) continue;
    if (upstream->options().kind != UpstreamKind::kLocal) return false;
    any = true;
  }
  return any;
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
  const auto wake = [signal = leaving_->signal] { signal->notify(); };
  // Who has been tried goes behind: else the oldest alone would spend all its attempts on an upstream that is down.
  const TimePoint since = attempts_ > 0 ? at : call_.received;
  WaitingLine::Entered entered =
      gateway_->waiting().enter({call_.features.model, priority_, since, until, call_.deadline}, wake, at);
  if (entered.place) {
    place_ = std::move(entered.place);
    queued_gauge->add(1);
    waits_total.with({priority_name(priority_)}).add();
    return true;
  }
  if (entered.full)
    refuse("queue_full", "too many requests are waiting for an upstream", entered.wait);
  else
    refuse("deadline", fmt::format("the wait is {:.1f} s, too long for the deadline", seconds(entered.wait)),
           entered.wait);
  return false;
}

void Journey::refuse(const char* reason, std::string message, Duration wait) {
  shed_total.with({priority_name(priority_), reason}).add();
  last_.outcome = Outcome::kBusy;
  last_.reason = reason;
  last_.message = std::move(message);
  last_.rest = std::clamp<Duration>(wait, kRetryAfterMin, kRetryAfterMax);
}

// Whether it may look for room now; nothing when it has been refused.
std::optional<bool> Journey::await_turn(TimePoint at) {
  switch (gateway_->waiting().turn(*place_, at)) {
    case WaitingLine::Turn::kFirst:
      return true;
    case WaitingLine::Turn::kAfter:
      return gateway_->upstreams().size() > 1;
    case WaitingLine::Turn::kBehind:
      return false;
    case WaitingLine::Turn::kDisplaced:
      refuse("displaced", "requests of a higher priority took the place in the line", kRetryAfterMin);
      return std::nullopt;
    case WaitingLine::Turn::kLate:
      refuse("late", "the wait has become too long for the deadline", kRetryAfterMin);
      return std::nullopt;
  }
  return std::nullopt;
}

// Until somebody wakes it. Room that nobody tells of (a breaker that half-opens, a key that has rested) is looked for:
// by the first often, by all who wait together a bounded number of times a second.
Duration Journey::next_look(Duration look) const {
  if (gateway_->waiting().is_first(*place_)) return look;
  if (gateway_->upstreams().size() == 1) return kLookBehind;
  return std::max<Duration>(kLookMax, std::chrono::microseconds(250) * int64_t(gateway_->waiting().size()));
}

bool Journey::choose_at_once() {
  const bool open = !again_ && attempts_ == 0 && gateway_->waiting().size() == 0;
  return open && pick(now());
}

asio::awaitable<bool> Journey::choose() {
  if (again_) {
    const size_t index = *std::exchange(again_, std::nullopt);
    co_await pause(kAgainAfter);
    if (left()) co_return false;
    if (start(index, false)) co_return true;
    tried_.insert(index);
  }
  const TimePoint began = now();
  const TimePoint until = std::min(call_.deadline, began + gateway_->options().queue_wait_max);
  // Who comes waits behind those who wait; who has been tried already has waited.
  bool may_look = attempts_ > 0 || !gateway_->waiting().came(call_.features.model, priority_, began);
  Duration look = kLook;
  bool started = false;
  while (!left()) {
    const TimePoint at = now();
    if (place_) {
      const std::optional<bool> turn = await_turn(at);
      if (!turn) break;
      may_look = *turn;
    }
    started = may_look && pick(at);
    if (started) break;
    if (!place_ && nobody_ever(at)) break;
    if (!tried_.empty()) tried_.clear();  // everybody had a turn: another round, for who failed may be well again
    const bool never = attempts_ == 0;
    if (never && (at >= until - kLastChance || only_local())) started = start_by_force(at);
    if (started) break;
    if (at >= until) {
      if (place_ && never) refuse("expired", "no upstream had room before the deadline", kRetryAfterMin);
      break;
    }
    if (place_ && may_look) gateway_->waiting().found_nothing(*place_);
    if (!place_ && !wait_in_line(at, until)) break;
    co_await pause(next_look(look), until);
    look = std::min(look * 2, kLookMax);
  }
  leave_line(started);
  waited_ += now() - began;
  co_return started && !left();
}

void Journey::leave_line(bool started) {
  WaitingLine& line = gateway_->waiting();
  if (place_) {
    line.leave(place_, started, now());
    queued_gauge->add(-1);
    place_.reset();
  } else if (started) {
    line.passed(call_.features.model, now());
  }
}

}  // namespace spillway::gateway
