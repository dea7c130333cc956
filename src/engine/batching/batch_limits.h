// BatchLimits: how large a batch may get (the cap, in cost) and how long one is held back for more to come (the delay).
// Both follow the measurements, with hysteresis, and change together at most once in a cooldown, so that no traffic can
// make them swing. Values; no clock: the scheduler's.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>
#include <vector>

#include "base/clock.h"
#include "engine/batching/latency_table.h"

namespace spillway::engine {

struct BatchLimitOptions {
  int64_t cost_max = 1;  // no cap goes above
  int inputs_max = 1;
  double delay_max_s = 0;       // no delay goes above
  double latency_target_s = 0;  // 0: none
  double cooldown_s = 30;
};

class BatchLimits {
 public:
  static constexpr int kSamplesMin = 8;  // of a size of batch, before the cap may be it

  explicit BatchLimits(const BatchLimitOptions& options) : options_(options), cap_(options.cost_max) {}

  int64_t cap() const { return cap_; }
  double delay_s() const { return delay_s_; }

  // Inputs that came together at this moment. found_idle: nothing was waiting and the device was free.
  void arrived(int64_t cost, int inputs, bool found_idle, const LatencyTable& table, TimePoint now);

  // After a batch. True when the cap or the delay has moved.
  bool update(const LatencyTable& table, TimePoint now);

  // The first cap, from the warm-up's measurements: no move.
  void settle(const LatencyTable& table);

  int moves() const { return moves_; }

 private:
  static constexpr int kDelays = 4;  // candidates, as shares of the time that the first batch would take
  static constexpr std::array<double, kDelays> kShares = {0, 0.125, 0.25, 0.5};

  struct Arrival {
    double at_s;  // since the first
    int64_t cost;
    int inputs;
  };
  int64_t best_cap(const LatencyTable& table) const;
  double best_delay() const;
  void judge_burst(const LatencyTable& table);

  BatchLimitOptions options_;
  int64_t cap_;
  double delay_s_ = 0;
  TimePoint moved_;  // when last
  int batches_ = 0;  // since then
  bool started_ = false;
  int moves_ = 0;

  // The burst being watched: what came since an idle device got its first input.
  std::vector<Arrival> burst_;
  TimePoint burst_began_;
  double burst_span_s_ = 0;
  // What the waits would have come to with each candidate, in sums of fourth powers: what is long weighs most.
  std::array<double, kDelays> regret_{};
  std::array<double, kDelays> delay_sum_s_{};
  int bursts_ = 0;
};

}  // namespace spillway::engine
