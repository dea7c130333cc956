#include "gateway/concurrency_limit.h"

#include <algorithm>
#include <cmath>

namespace spillway::gateway {
namespace {

constexpr double kBestRises = 0.01;  // a second
constexpr double kDecrease = 0.9;
constexpr double kDecreaseRefused = 0.7;
constexpr double kInUse = 0.7;  // the limit rises only when this share of it was in use

}  // namespace

void ConcurrencyLimit::first_token(TimePoint now, Duration after, int in_flight) {
  const double took = seconds(after);
  if (best_s_ < 0) {
    best_s_ = took;
  } else {
    best_s_ *= 1 + kBestRises * std::clamp(seconds(now - best_at_), 0.0, 10.0);
    best_s_ = std::min(best_s_, took);
  }
  best_at_ = now;
  // Prompts differ: twice the best is still no queue.
  sample(now, std::max(0.0, took - 2 * best_s_), in_flight);
}

void ConcurrencyLimit::queue_wait(TimePoint now, Duration wait, int in_flight) {
  sample(now, seconds(wait), in_flight);
}

void ConcurrencyLimit::sample(TimePoint now, double wait_s, int in_flight) {
  wait_sum_s_ += wait_s;
  ++samples_;
  in_flight_max_ = std::max(in_flight_max_, in_flight);
  if (now - changed_at_ < options_.interval) return;
  const double wait = wait_sum_s_ / samples_;
  if (wait > seconds(options_.wait_target)) {
    limit_ = std::max(options_.min, limit_ * kDecrease);
    searching_ = false;
  } else if (in_flight_max_ >= kInUse * limit_) {
    limit_ = std::min(options_.max, searching_ ? 2 * limit_ : limit_ + std::max(1.0, std::sqrt(limit_) / 2));
  }
  wait_sum_s_ = 0;
  samples_ = 0;
  in_flight_max_ = 0;
  changed_at_ = now;
}

void ConcurrencyLimit::refused(TimePoint now, int in_flight) {
  if (now - changed_at_ < options_.interval) return;
  const double base = std::min(limit_, std::max(1.0, double(in_flight)));
  limit_ = std::max(options_.min, base * kDecreaseRefused);
  searching_ = false;
  changed_at_ = now;
}

}  // namespace spillway::gateway
