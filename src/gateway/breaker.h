// Breaker: whether requests may go to one upstream (or with one key). Opens after failures in a row or a share of
// failures in its window; while open nothing goes; then one probe at a time, and after enough good ones it closes and
// lets traffic in slowly. Each opening lasts longer than the one before, and good times wear that off again (as Envoy
// ejects outliers). A pure state machine: time is given. Not thread-safe: its owner locks.
#pragma once

#include <cstdint>

#include "base/clock.h"

namespace spillway::gateway {

struct BreakerOptions {
  int failures_in_row = 5;
  double failure_share = 0.5;  // of at least samples_min outcomes in the window
  int samples_min = 20;
  Duration window = std::chrono::seconds(10);
  Duration open = std::chrono::seconds(1);  // the first time; doubled each time after
  Duration open_max = std::chrono::seconds(15);
  int probes_to_close = 2;
  Duration slow_start = std::chrono::seconds(10);  // full traffic this long after it closed
};

class Breaker {
 public:
  enum class State { kClosed, kOpen, kHalfOpen };

  explicit Breaker(const BreakerOptions& options = {}) : options_(options) {}

  State state(TimePoint now) const;
  // Whether a request may go now. A probe that is let through must be told of by succeeded, failed or abandoned.
  bool admit(TimePoint now);
  void succeeded(TimePoint now);
  void failed(TimePoint now);
  void abandoned();  // the outcome says nothing: the client left
  // Opens at once: the upstream said itself that it cannot (key dead, draining).
  void open_until(TimePoint until);

  // Of its normal traffic, 0..1: below 1 while it warms up.
  double share(TimePoint now) const;
  TimePoint opens_again_at() const { return until_; }  // kOpen: when the first probe may go
  int times_opened() const { return times_opened_; }

 private:
  void open(TimePoint now);
  void roll(TimePoint now);

  BreakerOptions options_;
  State state_ = State::kClosed;
  int in_row_ = 0;
  int64_t good_[2] = {0, 0};  // of this half window and the one before
  int64_t bad_[2] = {0, 0};
  TimePoint half_began_;
  TimePoint until_;       // of kOpen
  TimePoint closed_at_;   // after an opening
  int times_opened_ = 0;  // in a row, worn off by good times
  int good_probes_ = 0;
  bool probing_ = false;
  TimePoint probe_began_;
};

}  // namespace spillway::gateway
