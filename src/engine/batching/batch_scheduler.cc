#include "engine/batching/batch_scheduler.h"

#include <algorithm>
#include <cmath>

namespace spillway::engine {
namespace {

constexpr double kLoadMax = 0.85;    // what is above, as in a burst, does not last
constexpr double kLoadMargin = 1.1;  // the load is measured over few batches: what is higher than it seems costs more
constexpr double kSplitGain = 0.98;  // smaller batches must lower the longest waits to this share
constexpr double kBurden = 0.2;      // of load / (1 - load)^2: how often a second of device time is waited for later

constexpr double kProbeRate = 0.9;  // of the cap's: a size that a few samples say is slower is not tried again

constexpr double kShortBatches = 8;  // the load is what arrives in the time of so many batches, and inputs
constexpr double kShortInputs = 24;
constexpr double kLongBatches = 100;
constexpr int kLookEvery = 16;   // batches
constexpr int kProbeEvery = 16;  // batches
constexpr int kProbeSoon = 4;

}  // namespace

void ArrivalRate::add(double cost, TimePoint now) {
  const double since_s = std::max(0.0, seconds(now - last_));
  for (size_t i = 0; i < sum_.size(); ++i) sum_[i] = sum_[i] * std::exp(-since_s / span_s_[i]) + cost;
  last_ = std::max(last_, now);
}

double ArrivalRate::per_s(TimePoint now) const {
  const double since_s = std::max(0.0, seconds(now - last_));
  double most = 0;
  for (size_t i = 0; i < sum_.size(); ++i)
    most = std::max(most, sum_[i] * std::exp(-since_s / span_s_[i]) / span_s_[i]);
  return most;
}

const char* name_of(BatchReason reason) {
  switch (reason) {
    case BatchReason::kFull:
      return "full";
    case BatchReason::kGreedy:
      return "greedy";
    case BatchReason::kDelayOver:
      return "delay_over";
    case BatchReason::kDeadline:
      return "deadline";
    case BatchReason::kSplit:
      return "split";
    case BatchReason::kProbe:
      return "probe";
    case BatchReason::kIdle:
      return "idle";
    case BatchReason::kHeld:
      return "held";
  }
  return "unknown";
}

void BatchScheduler::add(std::vector<WaitingInput> inputs, bool device_free, TimePoint now) {
  int64_t cost = 0;
  for (const WaitingInput& input : inputs) cost += input.cost;
  rate_.add(static_cast<double>(cost), now);
  const double each = static_cast<double>(cost) / static_cast<double>(inputs.size());
  mean_cost_ += (mean_cost_ == 0 ? 1 : 0.05) * (each - mean_cost_);
  limits_.arrived(cost, static_cast<int>(inputs.size()), device_free && line_.empty(), table_, now);
  for (WaitingInput& input : inputs) line_.add(std::move(input));
}

// The largest part of the choice, from its front, that ends before the deadlines in it; all of it where even the first
// alone would not.
size_t BatchScheduler::size_for_deadline(const WaitingLine::Choice& choice, TimePoint now) const {
  const size_t all = choice.inputs.size();
  if (choice.deadline == TimePoint::max()) return all;
  const double predicted_s = table_.predict(choice.cost, static_cast<int>(all));
  if (now + from_seconds(predicted_s) <= choice.deadline) return all;
  int64_t cost = 0;
  TimePoint deadline = TimePoint::max();
  size_t fits = 0;
  for (size_t i = 0; i < all; ++i) {
    cost += choice.inputs[i]->cost;
    deadline = std::min(deadline, choice.inputs[i]->deadline);
    if (now + from_seconds(table_.predict(cost, static_cast<int>(i + 1))) <= deadline) fits = i + 1;
  }
  return fits == 0 ? all : fits;
}

// Launching the choice in batches of `size` one after another: how bad the times from arrival to answer are, in the
// sixth power mean, so that the long ones count; and the device time that it takes.
BatchScheduler::Plan BatchScheduler::plan(const WaitingLine::Choice& choice, size_t size, TimePoint now) const {
  const size_t all = choice.inputs.size();
  Plan plan;
  double sum = 0;
  for (size_t first = 0; first < all; first += size) {
    const size_t last = std::min(all, first + size);
    int64_t cost = 0;
    for (size_t i = first; i < last; ++i) cost += choice.inputs[i]->cost;
    plan.device_s += table_.predict(cost, static_cast<int>(last - first));
    for (size_t i = first; i < last; ++i) {
      const double waited_s = seconds(now - choice.inputs[i]->arrived) + plan.device_s;
      const double cube = waited_s * waited_s * waited_s;
      sum += cube * cube;
    }
  }
  plan.wait_s = std::cbrt(std::sqrt(sum / static_cast<double>(all)));
  return plan;
}

// How much of the choice to launch. Where a batch takes about as long as its inputs one by one, small batches let the
// oldest go first; but what smaller batches take longer is taken from all that comes later, the more the busier the
// device is.
size_t BatchScheduler::size_by_table(const WaitingLine::Choice& choice, TimePoint now) const {
  const size_t all = choice.inputs.size();
  if (all < 2 || !table_.measured() || best_rate_ <= 0) return all;
  const double load = std::min(kLoadMax, kLoadMargin * rate_.per_s(now) / best_rate_);
  const double behind = static_cast<double>(line_.size() - static_cast<int>(all)) / static_cast<double>(all);
  const double burden = kBurden * load / ((1 - load) * (1 - load)) + behind;
  const Plan whole = plan(choice, all, now);
  size_t best = all;
  double least_s = kSplitGain * whole.wait_s;
  for (size_t size = 1; size < all; size = std::max(size + 1, size * 3 / 2)) {
    const Plan parts = plan(choice, size, now);
    const double wait_s = parts.wait_s + burden * std::max(0.0, parts.device_s - whole.device_s);
    if (wait_s >= least_s) continue;
    least_s = wait_s;
    best = size;
  }
  return best;
}

// The end of the delay, or sooner where a deadline would be missed.
TimePoint BatchScheduler::held_until(const WaitingLine::Choice& choice) const {
  if (choice.full) return TimePoint::min();
  const TimePoint held = line_.oldest() + from_seconds(limits_.delay_s());
  if (choice.deadline == TimePoint::max()) return held;
  const double predicted_s = table_.predict(choice.cost, static_cast<int>(choice.inputs.size()));
  return std::min(held, choice.deadline - from_seconds(predicted_s));
}

TimePoint BatchScheduler::due(TimePoint now) const {
  if (line_.empty()) return TimePoint::max();
  if (limits_.delay_s() <= 0) return now;
  return std::min(line_.next_deadline(), held_until(line_.choose(limits_.cap(), options_.inputs_max)));
}

// The size of another batch than the cap's, once in a while where much waits, sooner where it is expected to be better:
// what is never measured could not become the cap. 0: none.
int64_t BatchScheduler::probe(TimePoint now) {
  const int64_t cap = limits_.cap();
  if (finished_ - probed_ < kProbeSoon || line_.cost() < 2 * cap) return 0;
  const auto points = table_.by_cost();
  const auto rate_of = [&](int64_t size) {
    const int inputs =
        static_cast<int>(std::clamp(static_cast<double>(size) / mean_cost_, 1.0, double(options_.inputs_max)));
    return std::min(static_cast<double>(size), inputs * mean_cost_) / table_.predict(size, inputs);
  };
  double best = 0;
  int64_t chosen = 0;
  for (const int64_t size : {cap / 2, cap / 4, cap / 8, std::min(2 * cap, options_.cost_max)}) {
    const int bucket = LatencyTable::cost_bucket(size);
    // Of a larger one a few samples nearby will do: it may be much worse. So will they where they say it is slower.
    const bool few = size > cap || rate_of(size) < kProbeRate * rate_of(cap);
    const int needed = few ? LatencyTable::kTrusted : BatchLimits::kSamplesMin, above = size > cap ? 1 : 0;
    const bool known = size < 1 || size == cap || std::ranges::any_of(points, [&](const LatencyTable::Point& point) {
                         const int other = LatencyTable::cost_bucket(std::llround(point.cost));
                         return point.samples >= needed && other >= bucket - 1 && other <= bucket + above &&
                                seconds(now - point.last) < LatencyTable::kFresh_s;
                       });
    if (known || rate_of(size) <= best) continue;
    best = rate_of(size);
    chosen = size;
  }
  if (chosen == 0 || (best < rate_of(cap) && finished_ - probed_ < kProbeEvery)) return 0;
  probed_ = finished_;
  return chosen;
}

// What could not end before its deadline even alone would take the time of others for nothing. With nothing else to do
// one of them is tried: a prediction that was never right would else never be corrected.
std::vector<WaitingInput> BatchScheduler::expire(TimePoint now) {
  std::vector<WaitingInput> expired = line_.expire(now + from_seconds(table_.predict(1, 1)));
  if (!line_.empty() || expired.empty()) return expired;
  const auto last = std::ranges::max_element(expired, {}, &WaitingInput::deadline);
  if (last->deadline <= now) return expired;
  line_.add(*last);
  expired.erase(last);
  return expired;
}

BatchDecision BatchScheduler::next(TimePoint now) {
  BatchDecision decision;
  decision.expired = expire(now);
  if (line_.empty()) return decision;
  const int64_t probe = this->probe(now);
  const WaitingLine::Choice choice = line_.choose(probe > 0 ? probe : limits_.cap(), options_.inputs_max);
  const size_t all = choice.inputs.size();
  decision.reason = probe > 0 ? BatchReason::kProbe : BatchReason::kFull;
  if (!choice.full) {
    const TimePoint held = held_until(choice);
    if (now < held) {
      decision.reason = BatchReason::kHeld;
      decision.wake = std::min(held, line_.next_deadline());
      return decision;
    }
    const bool in_time = held == line_.oldest() + from_seconds(limits_.delay_s());
    decision.reason = limits_.delay_s() <= 0 ? BatchReason::kGreedy
                      : in_time              ? BatchReason::kDelayOver
                                             : BatchReason::kDeadline;
  }
  size_t count = all;
  if (const size_t sized = probe > 0 ? all : size_by_table(choice, now); sized < count) {
    count = sized;
    decision.reason = BatchReason::kSplit;
  }
  if (const size_t sized = size_for_deadline(choice, now); sized < count) {
    count = sized;
    decision.reason = BatchReason::kDeadline;
  }
  decision.launch = line_.take(choice, count);
  for (const WaitingInput& input : decision.launch) decision.cost += input.cost;
  return decision;
}

void BatchScheduler::look_at_table() {
  best_rate_ = 0;
  for (const auto& point : table_.by_cost()) best_rate_ = std::max(best_rate_, point.cost_per_s());
  const double batch_s = std::max(1e-4, mean_batch_s_);
  const double input_s = best_rate_ > 0 ? mean_cost_ / best_rate_ : 0;
  rate_.set_spans(std::max(kShortInputs * input_s, kShortBatches * batch_s), kLongBatches * batch_s);
}

void BatchScheduler::warmed_up() {
  limits_.settle(table_);
  look_at_table();
}

bool BatchScheduler::finished(int64_t cost, int inputs, double latency_s, TimePoint now) {
  table_.add(cost, inputs, latency_s, now);
  mean_batch_s_ += (mean_batch_s_ == 0 ? 1 : 0.1) * (latency_s - mean_batch_s_);
  if (++finished_ % kLookEvery == 0 || best_rate_ == 0) look_at_table();
  return limits_.update(table_, now);
}

}  // namespace spillway::engine
