#include "gateway/waiting_line.h"

#include <algorithm>
#include <vector>

namespace spillway::gateway {
namespace {

constexpr size_t kModelsMax = 256;  // remembered, beyond those that are waited for
constexpr Duration kReviewEvery = std::chrono::milliseconds(20);
// An expectation errs: who comes is let in with some of his time to spare, who waits is sent away only when it is
// clear.
constexpr double kEntryAllowance = 1.15;
constexpr double kReviewAllowance = 0.9;

Duration scaled(Duration time, double by) { return std::chrono::duration_cast<Duration>(time * by); }

}  // namespace

WaitingLine::ModelLine& WaitingLine::line_of(std::string_view model) {
  const auto found = lines_.find(model);
  if (found != lines_.end()) return found->second;
  // Where an upstream takes any name, clients could make up ever more of them.
  if (lines_.size() >= kModelsMax) std::erase_if(lines_, [](const auto& entry) { return entry.second.places.empty(); });
  return lines_[std::string(model)];
}

bool WaitingLine::came(std::string_view model, int priority, TimePoint now) {
  if (size() == 0) return false;
  std::lock_guard lock(mutex_);
  const auto line = lines_.find(model);
  if (line == lines_.end() || line->second.places.empty()) return false;
  line->second.estimate.came(priority, now);
  return line->second.places.begin()->second->priority >= priority;
}

WaitingLine::Entered WaitingLine::enter(const Asked& asked, std::function<void()> wake, TimePoint now) {
  std::lock_guard lock(mutex_);
  review(now);
  ModelLine& line = line_of(asked.model);
  size_t ahead = 0;
  for (auto it = line.count.lower_bound(asked.priority); it != line.count.end(); ++it) ahead += it->second;
  Entered entered;
  entered.wait = line.estimate.wait(ahead, asked.priority, now);
  const Duration wait = scaled(entered.wait, kEntryAllowance);
  // Who would be the next to go may try whatever the estimate says: somebody must, for it to be learned anew.
  const Duration service = line.estimate.service_within(asked.deadline - asked.since);
  const bool late = now + wait > asked.start_by || now + wait + service > asked.deadline;
  if (ahead > 0 && late) return entered;
  if (all_.size() >= places_max_) {
    entered.full = all_.empty() || all_.rbegin()->second->priority >= asked.priority;
    if (entered.full) return entered;
    const std::shared_ptr<Place> last = all_.rbegin()->second;
    remove(*last, now);
    last->state = State::kDisplaced;
    last->wake();
  }
  auto place = std::make_shared<Place>();
  place->model = asked.model;
  place->priority = asked.priority;
  place->since = asked.since;
  place->start_by = asked.start_by;
  place->deadline = asked.deadline;
  place->order = next_order_++;
  place->wake = std::move(wake);
  if (line.places.empty()) line.estimate.busy(now);
  line.places.emplace(rank(*place), place);
  ++line.count[place->priority];
  all_.emplace(rank(*place), place);
  size_ = all_.size();
  entered.place = std::move(place);
  return entered;
}

void WaitingLine::leave(const std::shared_ptr<Place>& place, bool started, TimePoint now) {
  std::lock_guard lock(mutex_);
  const auto found = lines_.find(place->model);
  if (found == lines_.end()) return;
  if (started) found->second.estimate.went(now);
  if (place->state == State::kWaits) remove(*place, now);
  review(now);
  next_round(found->second);
}

void WaitingLine::passed(std::string_view model, TimePoint now) {
  if (size() == 0) return;
  std::lock_guard lock(mutex_);
  const auto line = lines_.find(model);
  if (line != lines_.end() && !line->second.places.empty()) line->second.estimate.went(now);
}

void WaitingLine::answered(std::string_view model, Duration took) {
  std::lock_guard lock(mutex_);
  line_of(model).estimate.answered(took);
}

Duration WaitingLine::service(std::string_view model) const {
  std::lock_guard lock(mutex_);
  const auto line = lines_.find(model);
  return line == lines_.end() ? Duration::zero() : line->second.estimate.service();
}

WaitingLine::Turn WaitingLine::turn(Place& place, TimePoint now) {
  std::lock_guard lock(mutex_);
  review(now);
  switch (place.state) {
    case State::kDisplaced:
      return Turn::kDisplaced;
    case State::kLate:
      return Turn::kLate;
    case State::kWaits:
      break;
  }
  const ModelLine& line = lines_.find(place.model)->second;
  const Place& first = *line.places.begin()->second;
  place.round = line.round;
  if (&first == &place) return Turn::kFirst;
  return first.looked == line.round ? Turn::kAfter : Turn::kBehind;
}

void WaitingLine::found_nothing(Place& place) {
  std::lock_guard lock(mutex_);
  place.looked = place.round;
}

bool WaitingLine::is_first(const Place& place) const {
  std::lock_guard lock(mutex_);
  const auto line = lines_.find(place.model);
  return line != lines_.end() && !line->second.places.empty() && line->second.places.begin()->second.get() == &place;
}

void WaitingLine::freed() {
  if (size() == 0) return;
  std::lock_guard lock(mutex_);
  for (auto& [model, line] : lines_) next_round(line);
}

void WaitingLine::next_round(ModelLine& line) {
  if (line.places.empty()) return;
  ++line.round;
  line.places.begin()->second->wake();
}

void WaitingLine::remove(const Place& place, TimePoint now) {
  all_.erase(rank(place));
  size_ = all_.size();
  ModelLine& line = lines_.find(place.model)->second;
  if (line.places.erase(rank(place)) == 0) return;
  --line.count[place.priority];
  if (line.places.empty()) line.estimate.idle(now);
}

// Tells those who cannot make it any more. Whoever comes by does it for all, once in a while.
void WaitingLine::review(TimePoint now) {
  if (now - reviewed_ < kReviewEvery) return;
  reviewed_ = now;
  for (auto& [model, line] : lines_) review(line, now);
}

void WaitingLine::review(ModelLine& line, TimePoint now) {
  std::vector<std::shared_ptr<Place>> late;
  size_t ahead = 0;
  for (const auto& [rank, place] : line.places) {
    const Duration wait = scaled(line.estimate.wait(ahead, place->priority, now), kReviewAllowance);
    const Duration service = line.estimate.service_within(place->deadline - place->since);
    const bool misses = now + wait > place->start_by || now + wait + service > place->deadline;
    if (ahead > 0 && misses)
      late.push_back(place);
    else
      ++ahead;
  }
  for (const auto& place : late) {
    remove(*place, now);
    place->state = State::kLate;
    place->wake();
  }
}

}  // namespace spillway::gateway
