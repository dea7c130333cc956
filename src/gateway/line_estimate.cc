#include "gateway/line_estimate.h"

#include <algorithm>
#include <cmath>

namespace spillway::gateway {
namespace {

constexpr size_t kEvents = 1024;
constexpr size_t kEventsFew = 8;  // fewer say nothing of a pace
constexpr Duration kOld = std::chrono::seconds(30);
constexpr double kSmoothing = 0.05;
constexpr double kDeviations = 2;         // of allowance
constexpr double kServiceShareMax = 0.7;  // of all the time there is, with its allowance

}  // namespace

void RateWindow::add(Duration at) {
  events_.push_back(at);
  while (events_.size() > kEvents || (events_.size() > kEventsFew && at - events_.front() > kOld)) events_.pop_front();
}

double RateWindow::per_s(Duration now, size_t at_least) const {
  if (events_.size() < std::max<size_t>(2, at_least)) return 0;
  return double(events_.size() - 1) / std::max(1e-6, seconds(now - events_.front()));
}

void LineEstimate::busy(TimePoint now) {
  busy_ = true;
  busy_since_ = now;
}

void LineEstimate::idle(TimePoint now) {
  busy_total_ = busy_clock(now);
  busy_ = false;
}

void LineEstimate::came(int priority, TimePoint now) { came_[priority].add(busy_clock(now)); }

void LineEstimate::went(TimePoint now) { went_.add(busy_clock(now)); }

void LineEstimate::answered(Duration took) {
  const double took_s = seconds(took);
  if (service_s_ == 0) {
    service_s_ = took_s;
    deviation_s_ = took_s / 4;
    return;
  }
  deviation_s_ += kSmoothing * (std::abs(took_s - service_s_) - deviation_s_);
  service_s_ += kSmoothing * (took_s - service_s_);
}

// Those ahead go first, and so does who comes meanwhile with a higher priority. How long the present onrush lasts
// nobody knows: as long again as it has lasted is the guess that is right for whatever kind of onrush.
Duration LineEstimate::wait(size_t ahead, int priority, TimePoint now) const {
  const Duration clock = busy_clock(now);
  const double pace = went_.per_s(clock, kEventsFew);
  if (pace == 0) return Duration::zero();
  double above = 0;
  for (auto it = came_.upper_bound(priority); it != came_.end(); ++it) above += it->second.per_s(clock, 2);
  const double lasts = busy_ ? seconds(now - busy_since_) : 0;
  double wait = (double(ahead + 1) + above * lasts) / pace;
  if (pace > above) wait = std::min(wait, double(ahead + 1) / (pace - above));
  return from_seconds(std::min(wait, 1e6));
}

Duration LineEstimate::service_within(Duration whole) const {
  return from_seconds(std::max(service_s_, std::min(seconds(service()), kServiceShareMax * seconds(whole))));
}

Duration LineEstimate::service() const { return from_seconds(service_s_ + kDeviations * deviation_s_); }

}  // namespace spillway::gateway
