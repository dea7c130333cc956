// LatencyWindow: quantiles of durations over about the last minute, in buckets a tenth apart. Pure, time is given. Not
// thread-safe: its owner locks.
#pragma once

#include <array>
#include <cstdint>
#include <optional>

#include "base/clock.h"

namespace spillway::gateway {

class LatencyWindow {
 public:
  void add(TimePoint now, Duration took);
  // Nothing while there are fewer than samples_min.
  std::optional<Duration> quantile(TimePoint now, double q, int64_t samples_min = 50);
  int64_t samples() const { return counts_[0] + counts_[1]; }

 private:
  static constexpr int kBuckets = 200;  // 10 us times 1.1 to the power of the bucket: to about half an hour
  static int bucket_of(Duration took);
  void roll(TimePoint now);

  std::array<std::array<uint32_t, kBuckets>, 2> buckets_{};  // this half minute and the one before
  std::array<int64_t, 2> counts_{};
  TimePoint began_;
};

}  // namespace spillway::gateway
