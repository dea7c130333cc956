#include "gateway/retry_budget.h"

#include <algorithm>
#include <cmath>

namespace spillway::gateway {

void RetryBudget::decay(TimePoint now) {
  if (!begun_) {
    begun_ = true;
    last_ = now;
    floor_ = options_.floor_per_s;  // of one second
  }
  const double passed = std::max(0.0, seconds(now - last_));
  last_ = std::max(last_, now);
  saved_ *= std::exp(-passed / seconds(options_.kept));
  floor_ = std::min(floor_ + passed * options_.floor_per_s, std::max(1.0, options_.floor_per_s));
}

void RetryBudget::request(TimePoint now) {
  std::lock_guard lock(mutex_);
  decay(now);
  saved_ += options_.share;
}

bool RetryBudget::take(TimePoint now) {
  std::lock_guard lock(mutex_);
  decay(now);
  if (saved_ >= 1) {
    saved_ -= 1;
    return true;
  }
  if (floor_ < 1) return false;
  floor_ -= 1;
  return true;
}

double RetryBudget::balance(TimePoint now) {
  std::lock_guard lock(mutex_);
  decay(now);
  return saved_ + floor_;
}

}  // namespace spillway::gateway
