// BatchScheduler: when the next batch begins and what is in it. Pure: what arrives, what ends and the time go in, a
// decision comes out; the engine and the simulator drive the same object. One thread.
//
// A free device takes what waits, at once or after the short delay that BatchLimits found worth it. A busy one lets the
// line grow, and the next batch is sized by the cap, by the table of measured latencies (the size that makes the long
// times to an answer least, with what it takes from those to come) and by the nearest deadline less the predicted time.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "base/clock.h"
#include "engine/batching/batch_limits.h"
#include "engine/batching/latency_table.h"
#include "engine/batching/waiting_line.h"

namespace spillway::engine {

enum class BatchReason { kFull, kGreedy, kDelayOver, kDeadline, kSplit, kProbe, kIdle, kHeld };
const char* name_of(BatchReason reason);

struct BatchDecision {
  BatchReason reason = BatchReason::kIdle;
  std::vector<WaitingInput> launch;   // empty: nothing to do before `wake`
  std::vector<WaitingInput> expired;  // end now, whether or not a batch begins
  int64_t cost = 0;                   // of launch
  TimePoint wake = TimePoint::max();
};

// Cost that arrives in a second: over the last few batches or over a longer time, whichever is more.
class ArrivalRate {
 public:
  void set_spans(double short_s, double long_s) { span_s_ = {short_s, long_s}; }
  void add(double cost, TimePoint now);
  double per_s(TimePoint now) const;

 private:
  std::array<double, 2> span_s_{0.1, 1};
  std::array<double, 2> sum_{};  // decaying
  TimePoint last_;
};

class BatchScheduler {
 public:
  BatchScheduler(const BatchLimitOptions& limits, const std::array<QueuePolicy, 3>& policies)
      : options_(limits), line_(policies), limits_(limits) {}

  // Inputs of one moment; device_free: no batch is under way.
  void add(std::vector<WaitingInput> inputs, bool device_free, TimePoint now);
  std::vector<WaitingInput> cancel(OneShotId first, size_t count) { return line_.cancel(first, count); }
  std::vector<WaitingInput> cancel_all() { return line_.cancel_all(); }

  // Whether next() would launch a full batch.
  bool full() const { return line_.choose(limits_.cap(), options_.inputs_max).full; }

  // When next() has something to do, as of now; max() when nothing waits.
  TimePoint due(TimePoint now) const;

  // For a device that is free.
  BatchDecision next(TimePoint now);

  // Measures. True when cap or delay have moved.
  bool finished(int64_t cost, int inputs, double latency_s, TimePoint now);
  void warmed_up();
  // A measurement of the warm-up: no traffic.
  void measured(int64_t cost, int inputs, double latency_s, TimePoint now) { table_.add(cost, inputs, latency_s, now); }

  const WaitingLine& line() const { return line_; }
  const LatencyTable& table() const { return table_; }
  const BatchLimits& limits() const { return limits_; }

 private:
  struct Plan {
    double wait_s = 0;
    double device_s = 0;
  };
  Plan plan(const WaitingLine::Choice& choice, size_t size, TimePoint now) const;
  std::vector<WaitingInput> expire(TimePoint now);
  void look_at_table();
  int64_t probe(TimePoint now);
  TimePoint held_until(const WaitingLine::Choice& choice) const;
  size_t size_for_deadline(const WaitingLine::Choice& choice, TimePoint now) const;
  size_t size_by_table(const WaitingLine::Choice& choice, TimePoint now) const;

  BatchLimitOptions options_;
  WaitingLine line_;
  LatencyTable table_;
  BatchLimits limits_;
  ArrivalRate rate_;
  double best_rate_ = 0;                     // cost a second, measured, of the best size
  double mean_batch_s_ = 0, mean_cost_ = 0;  // of a batch, of an input
  int finished_ = 0;                         // batches
  int probed_ = 0;                           // finished_ at the last probe
};

}  // namespace spillway::engine
