// RetryBudget: how many second attempts the whole fleet may make: a share of the first attempts of the last seconds,
// and a few a second besides so that little traffic is not left without. What keeps a failing fleet from being buried
// under retries. Pure, time is given; any thread.
#pragma once

#include <mutex>

#include "base/clock.h"

namespace spillway::gateway {

struct RetryBudgetOptions {
  double share = 0.2;                        // retries for each request
  double floor_per_s = 10;                   // given besides
  Duration kept = std::chrono::seconds(10);  // what was saved up is worth this long
};

class RetryBudget {
 public:
  explicit RetryBudget(const RetryBudgetOptions& options) : options_(options) {}

  void request(TimePoint now);  // a first attempt was made
  bool take(TimePoint now);     // whether a retry (or a hedge) may be made; then it is counted
  double balance(TimePoint now);

 private:
  void decay(TimePoint now);

  const RetryBudgetOptions options_;
  std::mutex mutex_;
  bool begun_ = false;
  double saved_ = 0;  // from requests; wears off with the time constant `kept`
  double floor_ = 0;  // a bucket of its own
  TimePoint last_;
};

}  // namespace spillway::gateway
