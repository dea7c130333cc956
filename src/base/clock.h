// Time as the program sees it: the steady clock, or a simulated one that tests and the scheduler's simulator move by
// hand.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>

namespace spillway {

using Duration = std::chrono::nanoseconds;
using TimePoint = std::chrono::time_point<std::chrono::steady_clock, Duration>;

class Clock {
 public:
  virtual ~Clock() = default;
  virtual TimePoint now() const = 0;
};

class SteadyClock final : public Clock {
 public:
  TimePoint now() const override { return std::chrono::steady_clock::now(); }
};

class SimulatedClock final : public Clock {
 public:
  TimePoint now() const override { return TimePoint(Duration(now_ns_.load(std::memory_order_relaxed))); }
  void advance(Duration by) { now_ns_.fetch_add(by.count(), std::memory_order_relaxed); }

 private:
  std::atomic<int64_t> now_ns_{0};
};

inline double seconds(Duration duration) { return std::chrono::duration<double>(duration).count(); }
inline Duration from_seconds(double value) {
  return std::chrono::duration_cast<Duration>(std::chrono::duration<double>(value));
}

}  // namespace spillway
