#include "engine/batching/batching_engine.h"

#include <algorithm>
#include <cmath>

#include "base/log.h"

namespace spillway::engine {
namespace {

constexpr double kMeanGain = 0.05;
// A batch goes behind one that takes at least so long, decided so long before its end, and that share of its time.
constexpr double kBehindMin_s = 0.003, kBehindLead_s = 0.0015, kBehindLead = 0.25;

int64_t milliseconds_since_epoch() {
  return std::chrono::duration_cast<std::chrono::milliseconds>(std::chrono::system_clock::now().time_since_epoch())
      .count();
}

}  // namespace

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

}  // namespace spillway::engine
