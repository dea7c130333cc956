#include "engine/batching/batch_scheduler.h"

#include <algorithm>

namespace spillway::engine {
namespace {

constexpr double kSplitGain = 0.97;  // two batches must end this much sooner than one

}  // namespace

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

// Where latencies go in steps, a batch just past a step costs as the next: the part before it and the rest may both end
// sooner than all at once.
size_t BatchScheduler::size_by_table(const WaitingLine::Choice& choice) const {
  const size_t all = choice.inputs.size();
  if (all < 2) return all;
  const double one_s = table_.predict(choice.cost, static_cast<int>(all));
  size_t best = all;
  double best_s = kSplitGain * one_s;
  int64_t cost = 0;
  int bucket = -1;
  for (size_t i = 0; i + 1 < all; ++i) {
    cost += choice.inputs[i]->cost;
    const int next = LatencyTable::cost_bucket(cost + choice.inputs[i + 1]->cost);
    if (next == bucket) continue;  // only where the next input reaches another bucket
    bucket = next;
    const int count = static_cast<int>(i + 1);
    const double two_s =
        table_.predict(cost, count) + table_.predict(choice.cost - cost, static_cast<int>(all) - count);
    if (two_s < best_s) {
      best_s = two_s;
      best = i + 1;
    }
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

BatchDecision BatchScheduler::next(TimePoint now) {
  BatchDecision decision;
  decision.expired = line_.expire(now);
  if (line_.empty()) return decision;
  const WaitingLine::Choice choice = line_.choose(limits_.cap(), options_.inputs_max);
  const size_t all = choice.inputs.size();
  decision.reason = BatchReason::kFull;
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
  if (const size_t sized = size_by_table(choice); sized < count) {
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

bool BatchScheduler::finished(int64_t cost, int inputs, double latency_s, TimePoint now) {
  table_.add(cost, inputs, latency_s, now);
  return limits_.update(table_, now);
}

}  // namespace spillway::engine
