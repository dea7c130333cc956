#include "engine/one_shot_engine.h"

#include <fmt/format.h>

#include <algorithm>

#include "engine/batching/batching_engine.h"

namespace spillway::engine {

OneShotLoad BatchingEngine::load_now(TimePoint now) const {
  OneShotLoad load = load_;
  for (size_t at = 0; at < inbox_waiting_.size(); ++at) {
    load.waiting[at] += inbox_waiting_[at];
    load.cost[at] += inbox_cost_[at];
  }
  load.batch_left_s = load.running > 0 ? std::max(0.0, seconds(batch_end_ - now)) : 0;
  load.draining = draining_;
  load.seconds_since_progress = unsettled_ > 0 ? seconds(now - progress_) : 0;
  return load;
}

std::optional<Refusal> BatchingEngine::submit(std::vector<OneShotRequest> requests, std::vector<OneShotDone> done,
                                              OneShotId& first_id) {
  SW_CHECK(requests.size() == done.size(), "a callback for each input");
  const size_t count = requests.size();
  bool wake = false;
  std::optional<Refusal> refusal = check_inputs(requests, runner_.model(), queue_bounds());
  if (!refusal) {
    const TimePoint at = now();
    std::lock_guard lock(mutex_);
    const OneShotLoad load = load_now(at);
    refusal = check_load(requests, load, options_, at);
    if (!refusal) {
      int64_t cost = 0;
      for (const OneShotRequest& request : requests) cost += cost_of(request);
      if (unsettled_ == 0) progress_ = at;
      unsettled_ += static_cast<int64_t>(count);
      first_id = next_id_;
      next_id_ += count;
      for (const OneShotRequest& request : requests) {
        ++inbox_waiting_[WaitingLine::level(request.priority)];
        inbox_cost_[WaitingLine::level(request.priority)] += cost_of(request);
      }
      wake = inbox_.empty();
      const double predicted_s = predicted_answer_s(load, requests.front().priority, cost);
      inbox_.push_back({first_id, at, idle_ && wake, predicted_s, std::move(requests), std::move(done)});
    }
  }
  if (refusal) record_one_shot_refusal(options_.name, refusal->reason);
  if (wake) work_.notify_one();
  return refusal;
}

OneShotState BatchingEngine::state() const {
  std::lock_guard lock(mutex_);
  const OneShotLoad load = load_now(now());
  OneShotState state;
  state.waiting = load.waiting_all();
  state.waiting_cost = load.cost_all();
  state.busy = load.running > 0;
  state.cost_per_s = load.cost_per_s();
  state.predicted_wait_s = predicted_wait_s(load, Priority::kNormal);
  state.seconds_since_progress = load.seconds_since_progress;
  state.draining = draining_;
  state.stalled = load.seconds_since_progress > options_.stall_s;
  return state;
}

namespace {

Status check_options(const OneShotEngineOptions& options) {
  const auto at_least = [](const char* name, double found, double least) -> Status {
    if (found >= least) return {};
    return invalid(fmt::format("{}: expected at least {}, found {}", name, least, found));
  };
  SW_TRY(at_least("queue.requests_max", options.queue.requests_max, 1));
  SW_TRY(at_least("batch_cost_max", static_cast<double>(options.batch_cost_max), 0));
  SW_TRY(at_least("batch_inputs_max", options.batch_inputs_max, 0));
  SW_TRY(at_least("delay_max_s", options.delay_max_s, 0));
  SW_TRY(at_least("cooldown_s", options.cooldown_s, 0));
  if (!(options.weight > 0)) return invalid(fmt::format("weight: expected more than 0, found {}", options.weight));
  return {};
}

}  // namespace

Result<std::unique_ptr<OneShotEngine>> start_one_shot_engine(std::unique_ptr<models::OneShotModel> model,
                                                             OneShotEngineOptions options) {
  SW_TRY(check_options(options));
  BatchLimitOptions limits;
  limits.cost_max = model->batch_cost_max();
  if (options.batch_cost_max > 0) limits.cost_max = std::min(limits.cost_max, options.batch_cost_max);
  limits.inputs_max = model->batch_inputs_max();
  if (options.batch_inputs_max > 0) limits.inputs_max = std::min(limits.inputs_max, options.batch_inputs_max);
  limits.delay_max_s = options.delay_max_s;
  limits.latency_target_s = options.latency_target_s;
  limits.cooldown_s = options.cooldown_s;
  SW_ASSIGN(tensor::Stream stream, tensor::Stream::open(options.device, options.threads));
  BatchRunner runner(std::move(model), std::move(stream));
  BatchScheduler scheduler(limits, options.policies);
  SW_TRY(warm_up(runner, scheduler, limits, options.warm_up_s));
  return std::unique_ptr<OneShotEngine>(
      std::make_unique<BatchingEngine>(std::move(options), std::move(runner), std::move(scheduler), limits.inputs_max));
}

}  // namespace spillway::engine
