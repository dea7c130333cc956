#include "engine/intake.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/trace.h"
#include "engine/engine_metrics.h"
#include "engine/live_view.h"
#include "metrics/timeline.h"

namespace spillway::engine {

Intake::Intake(const EngineOptions& options, const Limits& limits, const Clock& clock)
    : options_(options), limits_(limits), clock_(clock), progress_(clock.now()) {}

Load Intake::load_now(TimePoint now) const {
  Load load = load_;
  load.waiting.add(inbox_load_);
  load.draining = draining_;
  load.seconds_since_progress = unsettled_ > 0 ? seconds(now - progress_) : 0;
  return load;
}

std::optional<Refusal> Intake::judge(const Request& request, TimePoint now) const {
  if (live_.contains(request.id)) {
    Refusal refusal;
    refusal.retry_after_s = 0;
    refusal.message = fmt::format("request id {} is in use", request.id);
    return refusal;
  }
  return check_load(request, load_now(now), options_, limits_, now);
}

std::optional<Refusal> Intake::submit(std::unique_ptr<Request> request, std::shared_ptr<EventSink> sink) {
  const TimePoint now = clock_.now();
  std::optional<Refusal> refusal = check_request(*request, limits_);
  if (!refusal) {
    std::lock_guard lock(mutex_);
    refusal = judge(*request, now);
  }
  if (!refusal) {
    // Copying and hashing the prompt happens outside the lock; what came in meanwhile is judged again.
    auto sequence = std::make_unique<Sequence>(std::move(request), std::move(sink), options_.page_tokens, now);
    if (const auto& timeline = sequence->request->timeline) {
      timeline->add(metrics::Moment::Kind::kQueued, now, sequence->prompt_tokens());
    }
    std::lock_guard lock(mutex_);
    const Request& wanted = *sequence->request;
    refusal = judge(wanted, now);
    if (!refusal) {
      if (unsettled_++ == 0) progress_ = now;
      live_.insert(wanted.id);
      inbox_load_.add(wanted.priority, static_cast<int64_t>(wanted.prompt.size()));
      inbox_.push_back(std::move(sequence));
    }
  }
  if (refusal) {
    record_refusal(refusal->reason);
  } else {
    work_.notify_one();
  }
  return refusal;
}

void Intake::cancel(RequestId id) {
  {
    std::lock_guard lock(mutex_);
    if (!live_.contains(id) || !cancelling_.insert(id).second) return;
    cancelled_.push_back(id);
  }
  work_.notify_one();
}

Intake::Taken Intake::take(bool wait) {
  std::unique_lock lock(mutex_);
  trace::Span span("engine", wait ? "wait for work" : "take");
  if (wait) work_.wait(lock, [&] { return stopped_ || !inbox_.empty() || !cancelled_.empty(); });
  Taken taken{std::move(inbox_), std::move(cancelled_), stopped_};
  inbox_.clear();
  cancelled_.clear();
  load_.waiting.add(inbox_load_);
  inbox_load_ = {};
  return taken;
}

void Intake::forget(RequestId id) {
  std::lock_guard lock(mutex_);
  live_.erase(id);
  cancelling_.erase(id);
}

void Intake::publish(const Core& core) {
  const State& state = core.state();
  const Load load = load_of(core);
  std::shared_ptr<const LiveView> view;
  const bool idle = state.by_id.empty();
  if (view_wanted_.exchange(false, std::memory_order_relaxed) || (idle && view_shows_work_)) {
    view = std::make_shared<const LiveView>(view_core(core));
    view_shows_work_ = !idle;
  }

  std::lock_guard lock(mutex_);
  load_ = load;
  if (view) view_ = std::move(view);
  progress_ = clock_.now();
  unsettled_ = static_cast<int>(state.by_id.size() + inbox_.size());
  if (unsettled_ == 0) drained_.notify_all();
  state_.running = load.running;
  state_.pages_total = state.cache.pages_total();
  state_.pages_free = state.cache.pages_free();
  state_.pages_cached = state.cache.pages_idle();
  state_.tokens_cached = int64_t(state_.pages_cached) * options_.page_tokens;
  state_.tokens_per_s = core.tokens().per_s();
  state_.draft_acceptance = state.acceptance;
}

EngineState Intake::state() const {
  std::lock_guard lock(mutex_);
  const Load load = load_now(clock_.now());
  EngineState state = state_;
  state.waiting = load.waiting.requests_from(Priority::kLow);
  state.waiting_tokens = load.waiting.tokens_from(Priority::kLow);
  state.predicted_wait_s = predicted_wait_s(load, options_, limits_, Priority::kNormal);
  state.seconds_since_progress = load.seconds_since_progress;
  state.stalled = load.seconds_since_progress > options_.stall_s;
  state.draining = draining_;
  return state;
}

std::shared_ptr<const LiveView> Intake::live_view() {
  view_wanted_.store(true, std::memory_order_relaxed);
  std::lock_guard lock(mutex_);
  return view_;
}

void Intake::set_queue_bounds(const QueueBounds& bounds) {
  std::lock_guard lock(mutex_);
  options_.queue_requests_max = bounds.requests_max;
  options_.queue_tokens_max = bounds.tokens_max;
  options_.queue_wait_max_s = bounds.wait_max_s;
}

bool Intake::drain(TimePoint deadline) {
  std::unique_lock lock(mutex_);
  draining_ = true;
  return drained_.wait_until(lock, deadline, [&] { return unsettled_ == 0; });
}

void Intake::stop() {
  {
    std::lock_guard lock(mutex_);
    draining_ = true;
    stopped_ = true;
  }
  work_.notify_one();
}

}  // namespace spillway::engine
