#include "engine/one_shot_engine.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <condition_variable>
#include <exception>
#include <mutex>
#include <thread>
#include <unordered_map>

#include "base/log.h"
#include "engine/batching/answer_margin.h"
#include "engine/batching/batch_runner.h"
#include "engine/batching/batch_scheduler.h"
#include "engine/batching/device_share.h"
#include "engine/batching/one_shot_admission.h"
#include "engine/batching/one_shot_metrics.h"

namespace spillway::engine {
namespace {

constexpr double kMeanGain = 0.05;
// A batch goes behind one that takes at least so long, decided so long before its end, and that share of its time.
constexpr double kBehindMin_s = 0.003, kBehindLead_s = 0.0015, kBehindLead = 0.25;

TimePoint now() { return std::chrono::steady_clock::now(); }

int64_t milliseconds_since_epoch() {
  return std::chrono::duration_cast<std::chrono::milliseconds>(std::chrono::system_clock::now().time_since_epoch())
      .count();
}

// One input between submission and its answer.
struct Live {
  OneShotRequest request;
  OneShotDone done;
  TimePoint arrived;
  double predicted_s = 0;  // until its answer
};

class BatchingEngine final : public OneShotEngine {
 public:
  BatchingEngine(OneShotEngineOptions options, BatchRunner runner, BatchScheduler scheduler, int inputs_max)
      : options_(std::move(options)),
        inputs_max_(inputs_max),
        runner_(std::move(runner)),
        scheduler_(std::move(scheduler)),
        progress_(now()) {
    if (options_.share) member_ = options_.share->join(options_.weight);
    publish(0, 0);
    thread_ = std::thread([this] { run(); });
  }

  ~BatchingEngine() override {
    {
      std::lock_guard lock(mutex_);
      draining_ = stopped_ = true;
    }
    work_.notify_one();
    thread_.join();
    if (options_.share) options_.share->leave(member_);
  }

  std::optional<Refusal> submit(std::vector<OneShotRequest> requests, std::vector<OneShotDone> done,
                                OneShotId& first_id) override;
  void cancel(OneShotId first, size_t count) override {
    {
      std::lock_guard lock(mutex_);
      cancelled_.push_back({first, count});
    }
    work_.notify_one();
  }
  void set_queue_bounds(const QueueBounds& bounds) override {
    std::lock_guard lock(mutex_);
    options_.queue = bounds;
  }
  OneShotState state() const override;
  OneShotStatistics statistics() const override {
    std::lock_guard lock(mutex_);
    return statistics_;
  }
  const models::OneShotModel& model() const override { return runner_.model(); }
  bool drain(TimePoint deadline) override {
    std::unique_lock lock(mutex_);
    draining_ = true;
    return drained_.wait_until(lock, deadline, [&] { return unsettled_ == 0; });
  }

 private:
  // Inputs that were submitted together.
  struct Arrival {
    OneShotId first;
    TimePoint at;
    bool found_idle;
    double predicted_s;
    std::vector<OneShotRequest> requests;
    std::vector<OneShotDone> done;
  };
  struct Range {
    OneShotId first;
    size_t count;
  };
  struct Ended {
    OneShotDone done;
    OneShotAnswer answer;
    double total_s;
    std::shared_ptr<metrics::Timeline> timeline;
  };
  // A batch that was launched.
  struct Running {
    BatchDecision decision;
    BatchRecord record;
    BatchRunner::Launched launched;
    TimePoint began;
    double predicted_s = 0;
  };
  using Outcome = OneShotAnswer::Outcome;

  QueueBounds queue_bounds() const {
    std::lock_guard lock(mutex_);
    return options_.queue;
  }

  // The engine's thread.
  void run();
  bool take(TimePoint wake);  // false: stopped
  void admit(Arrival arrival);
  Running launch(BatchDecision decision, int slot);
  std::optional<Running> launch_behind(double predicted_s, TimePoint ends, int slot);
  TimePoint finish(Running running, TimePoint since);
  void compute(BatchDecision decision);  // and those that go behind it
  void end(const WaitingInput& input, OneShotAnswer answer);
  void end_all(const std::vector<WaitingInput>& inputs, OneShotAnswer::Outcome outcome);
  void deliver();
  void publish(int running, double predicted_s);

  OneShotLoad load_now(TimePoint now) const;  // mutex_ is held

  OneShotEngineOptions options_;  // its queue's bounds change, under mutex_
  const int inputs_max_;          // of a batch
  uint64_t member_ = 0;           // of options_.share

  // The engine's thread alone.
  BatchRunner runner_;
  BatchScheduler scheduler_;
  std::unordered_map<OneShotId, Live> live_;
  std::vector<Ended> ended_;  // to be told
  double mean_cost_ = 0;      // of an input
  AnswerMargin margin_;
  double turn_ratio_ = 1;  // a batch's time with its wait for the device, by its own

  mutable std::mutex mutex_;
  std::condition_variable work_, drained_;
  std::vector<Arrival> inbox_;
  std::vector<Range> cancelled_;
  OneShotId next_id_ = 1;
  OneShotLoad load_;                    // as of the engine's thread
  std::array<int, 3> inbox_waiting_{};  // of inbox_, by priority
  std::array<int64_t, 3> inbox_cost_{};
  TimePoint batch_end_;  // predicted, of the batch under way
  TimePoint progress_;
  OneShotStatistics statistics_;
  int64_t unsettled_ = 0;  // accepted and not ended
  bool idle_ = false;      // nothing waits and the device is free
  bool draining_ = false;
  bool stopped_ = false;

  std::thread thread_;  // last
};

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

void BatchingEngine::admit(Arrival arrival) {
  std::vector<WaitingInput> inputs;
  for (size_t i = 0; i < arrival.requests.size(); ++i) {
    OneShotRequest& request = arrival.requests[i];
    const OneShotId id = arrival.first + i;
    const int64_t cost = cost_of(request);
    inputs.push_back({id, cost, request.priority, arrival.at, request.deadline});
    mean_cost_ += (mean_cost_ == 0 ? 1 : kMeanGain) * (static_cast<double>(cost) - mean_cost_);
    live_.emplace(id, Live{std::move(request), std::move(arrival.done[i]), arrival.at, arrival.predicted_s});
  }
  scheduler_.add(std::move(inputs), arrival.found_idle, arrival.at);
}

bool BatchingEngine::take(TimePoint wake) {
  std::vector<Arrival> arrivals;
  std::vector<Range> cancelled;
  bool stopped;
  {
    std::unique_lock lock(mutex_);
    const auto ready = [&] { return stopped_ || !inbox_.empty() || !cancelled_.empty(); };
    if (wake > now() && !ready()) {
      idle_ = scheduler_.line().empty();
      if (wake == TimePoint::max())
        work_.wait(lock, ready);
      else
        work_.wait_until(lock, wake, ready);
    }
    idle_ = false;
    std::swap(arrivals, inbox_);
    std::swap(cancelled, cancelled_);
    stopped = stopped_;
    for (size_t at = 0; at < inbox_waiting_.size(); ++at) {
      load_.waiting[at] += inbox_waiting_[at];
      load_.cost[at] += inbox_cost_[at];
    }
    inbox_waiting_ = {};
    inbox_cost_ = {};
  }
  for (Arrival& arrival : arrivals) admit(std::move(arrival));
  for (const Range& range : cancelled) end_all(scheduler_.cancel(range.first, range.count), Outcome::kCancelled);
  if (stopped) end_all(scheduler_.cancel_all(), Outcome::kCancelled);
  return !stopped;
}

void BatchingEngine::end(const WaitingInput& input, OneShotAnswer answer) {
  const auto found = live_.find(input.id);
  SW_CHECK(found != live_.end(), "an input that ends is live");
  ended_.push_back({std::move(found->second.done), std::move(answer), seconds(now() - found->second.arrived),
                    std::move(found->second.request.timeline)});
  live_.erase(found);
}

void BatchingEngine::end_all(const std::vector<WaitingInput>& inputs, Outcome outcome) {
  for (const WaitingInput& input : inputs) {
    OneShotAnswer answer;
    answer.outcome = outcome;
    answer.queue_s = seconds(now() - input.arrived);
    end(input, std::move(answer));
  }
}

void BatchingEngine::deliver() {
  if (ended_.empty()) return;
  {
    std::lock_guard lock(mutex_);
    for (const Ended& ended : ended_) {
      if (ended.answer.outcome != Outcome::kDone) {
        statistics_.failure.add(ended.total_s);
        continue;
      }
      ++statistics_.inputs;
      statistics_.success.add(ended.total_s);
      statistics_.queue.add(ended.answer.queue_s);
      statistics_.compute.add(ended.answer.compute_s);
      statistics_.last_inference_ms = milliseconds_since_epoch();
    }
  }
  for (Ended& ended : ended_) {
    record_one_shot_end(options_.name, ended.answer, ended.total_s, metrics::trace_id_of(ended.timeline));
    ended.done(std::move(ended.answer));
    ended.done = nullptr;
  }
  std::lock_guard lock(mutex_);
  unsettled_ -= static_cast<int64_t>(ended_.size());
  ended_.clear();
  if (unsettled_ == 0) drained_.notify_all();
}

// What the thread left, for submitters.
void BatchingEngine::publish(int running, double predicted_s) {
  OneShotLoad load;
  for (const Priority priority : {Priority::kLow, Priority::kNormal, Priority::kHigh}) {
    load.waiting[WaitingLine::level(priority)] = scheduler_.line().size(priority);
    load.cost[WaitingLine::level(priority)] = scheduler_.line().cost(priority);
  }
  const LatencyTable& table = scheduler_.table();
  const auto cap = static_cast<double>(scheduler_.limits().cap());
  const double each = std::max(1.0, mean_cost_);
  const int inputs = static_cast<int>(std::clamp(cap / each, 1.0, static_cast<double>(inputs_max_)));
  load.batch_cost = std::max(1.0, std::min(cap, inputs * each));
  load.batch_s = table.predict(std::llround(load.batch_cost), inputs) * turn_ratio_;
  load.base_s = table.predict(1, 1);
  load.margin_s = margin_.seconds();
  load.running = running;
  const TimePoint at = now();
  std::lock_guard lock(mutex_);
  load_ = load;
  progress_ = at;
  batch_end_ = at + from_seconds(predicted_s);
}

BatchingEngine::Running BatchingEngine::launch(BatchDecision decision, int slot) {
  Running running;
  running.began = now();
  running.record = {static_cast<int>(decision.launch.size()), decision.cost, 0, 0};
  running.predicted_s = scheduler_.table().predict(decision.cost, running.record.inputs);
  std::vector<models::OneShotInput> inputs;
  for (const WaitingInput& waiting : decision.launch) {
    const OneShotRequest& request = live_.at(waiting.id).request;
    models::OneShotInput& input = inputs.emplace_back();
    input.tokens = request.tokens;
    input.types = request.types;
    input.pixels = request.pixels;
    input.output = request.output;
    running.record.longest = std::max(running.record.longest, waiting.cost);
  }
  running.decision = std::move(decision);
  running.launched = runner_.launch(inputs, slot);
  return running;
}

// The batch behind one that ends then, while more waits than fits: the device goes on without waiting for the host.
// Decided late, for what is launched waits for its turn whatever comes.
std::optional<BatchingEngine::Running> BatchingEngine::launch_behind(double predicted_s, TimePoint ends, int slot) {
  const DeviceShare* share = options_.share.get();
  if (runner_.slots() < 2 || predicted_s < kBehindMin_s || (share != nullptr && share->contended())) return {};
  std::this_thread::sleep_until(ends - from_seconds(std::max(kBehindLead_s, kBehindLead * predicted_s)));
  if (!take(now()) || !scheduler_.full()) return {};
  BatchDecision decision = scheduler_.next(std::max(now(), ends));
  record_one_shot_decision(options_.name, decision);
  end_all(decision.expired, Outcome::kDeadline);
  if (decision.launch.empty()) return {};
  return launch(std::move(decision), slot);
}

// Ends the batch's inputs. since: when the device became free for it. Gives when it became free again, before all that
// the host does here: a batch behind is on it meanwhile.
TimePoint BatchingEngine::finish(Running running, TimePoint since) {
  const BatchDecision& decision = running.decision;
  const int count = running.record.inputs;
  BatchRunner::Output output = runner_.finish(std::move(running.launched), since);
  running.record.latency_s = output.latency_s;
  if (output.failure.empty() && scheduler_.finished(decision.cost, count, output.latency_s, now())) {
    SW_INFO("{}: batches of at most {} tokens, held back for {:.2f} ms", options_.name, scheduler_.limits().cap(),
            scheduler_.limits().delay_s() * 1e3);
  }
  record_one_shot_batch(options_.name, running.record, scheduler_);
  const TimePoint ended_at = now();
  const auto late = std::ranges::count_if(decision.launch, [&](const WaitingInput& input) {
    return seconds(ended_at - input.arrived) > live_.at(input.id).predicted_s + margin_.seconds();
  });
  margin_.add(static_cast<int>(late + std::ssize(decision.expired)), count + static_cast<int>(decision.expired.size()),
              scheduler_.table().predict(decision.cost, count) * turn_ratio_);
  const TimePoint began = std::max(running.began, since);
  for (int i = 0; i < count; ++i) {
    OneShotAnswer answer;
    answer.queue_s = seconds(began - decision.launch[i].arrived);
    answer.compute_s = output.latency_s;
    answer.batch_inputs = count;
    if (output.failure.empty()) {
      answer.values = std::move(output.values[i]);
    } else {
      answer.outcome = Outcome::kFailed;
      answer.message = output.failure;
    }
    end(decision.launch[i], std::move(answer));
  }
  std::lock_guard lock(mutex_);
  ++statistics_.batches;
  statistics_.compute_by_size[count].add(output.latency_s);
  return output.ended;
}

void BatchingEngine::compute(BatchDecision decision) {
  const double first_s = scheduler_.table().predict(decision.cost, static_cast<int>(decision.launch.size()));
  publish(static_cast<int>(decision.launch.size()), first_s);
  int slot = 0;
  std::optional<Running> running = launch(std::move(decision), slot);
  TimePoint since = running->began;
  while (running) {
    // Where the device computes by itself, the last batch's answers go out meanwhile.
    if (runner_.overlaps()) deliver();
    slot = 1 - slot;
    const TimePoint ends = since + from_seconds(running->predicted_s);
    std::optional<Running> behind = launch_behind(running->predicted_s, ends, slot);
    if (behind) publish(running->record.inputs + behind->record.inputs, seconds(ends - now()) + behind->predicted_s);
    since = finish(std::move(*running), since);
    publish(behind ? behind->record.inputs : 0, behind ? behind->predicted_s : 0);
    running = std::move(behind);
  }
}

void BatchingEngine::run() {
  DeviceShare* share = options_.share.get();
  bool claimed = false;  // of the share, for the next turn
  while (true) {
    const TimePoint checked = now(), due = scheduler_.due(checked);
    if (due > checked) {
      if (claimed) share->withdraw(member_);
      claimed = false;
      deliver();
    }
    bool open = take(due);
    const TimePoint asked = now();
    if (open && scheduler_.due(asked) <= asked) {
      if (share) {
        deliver();
        share->acquire(member_);
        open = take(now());  // what came while others had the device
      }
      const TimePoint began = now();
      BatchDecision decision = scheduler_.next(began);
      record_one_shot_decision(options_.name, decision);
      end_all(decision.expired, Outcome::kDeadline);
      if (!decision.launch.empty()) compute(std::move(decision));
      if (!runner_.overlaps()) deliver();
      if (share) {
        const double used_s = seconds(now() - began), waited_s = seconds(began - asked);
        claimed = !scheduler_.line().empty();
        share->release(member_, used_s, claimed);
        if (used_s > 0) turn_ratio_ += kMeanGain * ((used_s + waited_s) / used_s - turn_ratio_);
      }
    }
    publish(0, 0);
    if (!open) {
      deliver();
      return;
    }
  }
}

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
