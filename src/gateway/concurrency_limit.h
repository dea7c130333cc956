// ConcurrencyLimit: how many requests at once an upstream can take before they queue there. Learned from the wait that
// requests meet (time to first token beyond the best seen of late, or what the upstream reports), never from whole
// durations, which measure the length of answers. Additive increase while the limit is in use and the wait short;
// multiplicative decrease when the mean wait passes the target or the upstream refuses. A pure state machine, time is
// given. Not thread-safe: its owner locks.
#pragma once

#include "base/clock.h"

namespace spillway::gateway {

struct ConcurrencyLimitOptions {
  double initial = 64;
  double min = 1;
  double max = 1024;
  Duration wait_target = std::chrono::milliseconds(250);  // mean wait in the upstream's queue that is still well
  Duration interval = std::chrono::milliseconds(200);     // between two changes
};

class ConcurrencyLimit {
 public:
  explicit ConcurrencyLimit(const ConcurrencyLimitOptions& options) : options_(options), limit_(options.initial) {}

  // A request got its first token; in_flight: how many were under way there then.
  void first_token(TimePoint now, Duration after, int in_flight);
  // The upstream told its queue's wait itself.
  void queue_wait(TimePoint now, Duration wait, int in_flight);
  // 429 or 503: it has more than it wants.
  void refused(TimePoint now, int in_flight);

  int limit() const { return int(limit_); }

 private:
  void sample(TimePoint now, double wait_s, int in_flight);

  const ConcurrencyLimitOptions options_;
  double limit_;
  bool searching_ = true;  // nothing was too much yet: it doubles
  double best_s_ = -1;     // time to first token without a queue; rises slowly so that it can be learned anew
  TimePoint best_at_;
  double wait_sum_s_ = 0;
  int samples_ = 0;
  int in_flight_max_ = 0;
  TimePoint changed_at_;
};

}  // namespace spillway::gateway
