#include "gateway/waiting_line.h"

#include <algorithm>
#include <vector>

namespace spillway::gateway {
namespace {

constexpr double kSmoothing = 0.1;

}  // namespace

std::shared_ptr<WaitingLine::Place> WaitingLine::enter(std::string_view model, int priority,
                                                       std::shared_ptr<net::Signal> signal) {
  std::lock_guard lock(mutex_);
  if (all_.size() >= places_max_) {
    if (all_.empty() || all_.rbegin()->second->priority >= priority) return nullptr;
    const std::shared_ptr<Place> last = all_.rbegin()->second;
    remove(*last);
    last->shed = true;
    last->signal->notify();
  }
  auto place = std::make_shared<Place>();
  place->model = model;
  place->priority = priority;
  place->order = next_order_++;
  place->signal = std::move(signal);
  const Rank rank{-priority, place->order};
  lines_[place->model].emplace(rank, place);
  all_.emplace(rank, place);
  size_ = all_.size();
  return place;
}

void WaitingLine::leave(const std::shared_ptr<Place>& place) {
  std::lock_guard lock(mutex_);
  if (!place->shed) remove(*place);
}

void WaitingLine::remove(const Place& place) {
  const Rank rank{-place.priority, place.order};
  all_.erase(rank);
  size_ = all_.size();
  const auto line = lines_.find(place.model);
  if (line == lines_.end()) return;
  line->second.erase(rank);
  if (line->second.empty()) lines_.erase(line);
}

bool WaitingLine::has_before(std::string_view model, int priority) const {
  if (size() == 0) return false;
  std::lock_guard lock(mutex_);
  const auto line = lines_.find(std::string(model));
  return line != lines_.end() && line->second.begin()->second->priority >= priority;
}

void WaitingLine::freed() {
  if (size() == 0) return;
  std::lock_guard lock(mutex_);
  for (const auto& [model, line] : lines_) line.begin()->second->signal->notify();
}

void WaitingLine::departed(TimePoint now) {
  std::lock_guard lock(mutex_);
  const double gap = seconds(now - last_departure_);
  last_departure_ = now;
  if (gap <= 0 || gap > 10) return;
  const double pace = 1 / gap;
  departures_per_s_ = departures_per_s_ == 0 ? pace : 1 / ((1 - kSmoothing) / departures_per_s_ + kSmoothing * gap);
}

Duration WaitingLine::expected_wait(int priority, TimePoint) const {
  std::lock_guard lock(mutex_);
  if (departures_per_s_ == 0) return Duration::zero();
  size_t before = 0;
  const auto end = all_.lower_bound(Rank{-priority, next_order_});
  before = size_t(std::distance(all_.begin(), end));
  return from_seconds(double(before) / departures_per_s_);
}

}  // namespace spillway::gateway
