// WaitingLine: the requests that wait for an upstream with room. Whoever frees a place wakes the first of each model:
// the highest priority, and in it the oldest. Bounded: when it is full, who is of a higher priority takes the place of
// the youngest of the lowest, who is told that he was shed. Any thread. Not its job: choosing upstreams, deadlines.
#pragma once

#include <atomic>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <unordered_map>

#include "base/clock.h"
#include "net/channel.h"

namespace spillway::gateway {

class WaitingLine {
 public:
  explicit WaitingLine(size_t places_max) : places_max_(places_max) {}

  struct Place {
    std::string model;
    int priority = 0;
    uint64_t order = 0;
    std::shared_ptr<net::Signal> signal;
    std::atomic<bool> shed{false};
  };

  // Null: the line is full of requests of the same or a higher priority.
  std::shared_ptr<Place> enter(std::string_view model, int priority, std::shared_ptr<net::Signal> signal);
  void leave(const std::shared_ptr<Place>& place);
  // Whether somebody waits for the model who goes before a newcomer of this priority.
  bool has_before(std::string_view model, int priority) const;
  // A place at an upstream is free.
  void freed();

  size_t size() const { return size_.load(std::memory_order_relaxed); }
  // Of those who wait at least as urgently: how long until the last of them goes, at the pace of late.
  Duration expected_wait(int priority, TimePoint now) const;
  // One went from the line to an upstream.
  void departed(TimePoint now);

 private:
  using Rank = std::pair<int, uint64_t>;  // minus the priority, then the order of coming
  using Line = std::map<Rank, std::shared_ptr<Place>>;
  void remove(const Place& place);

  const size_t places_max_;
  mutable std::mutex mutex_;
  std::unordered_map<std::string, Line> lines_;  // by model
  std::map<Rank, std::shared_ptr<Place>> all_;
  std::atomic<size_t> size_{0};
  uint64_t next_order_ = 0;
  TimePoint last_departure_;
  double departures_per_s_ = 0;
};

}  // namespace spillway::gateway
