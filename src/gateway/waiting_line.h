// WaitingLine: the requests that wait for an upstream with room, by model: the highest priority first, and in it the
// oldest. Only the first may look for room. Who cannot be answered by his deadline any more, by what the line has seen
// of late, is not let in or is told so at once: a refusal that comes early can be tried elsewhere, and a request that
// is computed and misses costs another its answer. Bounded: when it is full, who is of a higher priority takes the
// place of the youngest of the lowest. Any thread; time is given. Not its job: choosing upstreams.
#pragma once

#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <unordered_map>

#include "gateway/line_estimate.h"

namespace spillway::gateway {

class WaitingLine {
 public:
  explicit WaitingLine(size_t places_max) : places_max_(places_max) {}

  struct Asked {
    std::string_view model;
    int priority = 0;
    TimePoint since;     // seniority among equals
    TimePoint start_by;  // waits no longer
    TimePoint deadline;  // of the whole answer
  };
  enum class State { kWaits, kDisplaced, kLate };
  struct Place {
    std::string model;
    int priority = 0;
    TimePoint since, start_by, deadline;
    uint64_t order = 0;
    std::function<void()> wake;      // any thread, while the line is locked
    State state = State::kWaits;     // this and what follows: the line's, under its lock
    uint64_t round = 0, looked = 0;  // of the model's line: at this one's turn, and at its last look that found nothing
  };
  struct Entered {
    std::shared_ptr<Place> place;  // null: refused
    bool full = false;             // for want of a place, not of time
    Duration wait{};               // as expected
  };

  // Somebody came: whether he is to wait behind others before he may look for room.
  bool came(std::string_view model, int priority, TimePoint now);
  Entered enter(const Asked& asked, std::function<void()> wake, TimePoint now);
  // started: an upstream took him.
  void leave(const std::shared_ptr<Place>& place, bool started, TimePoint now);
  // Somebody who never waited was taken.
  void passed(std::string_view model, TimePoint now);
  void answered(std::string_view model, Duration took);
  // What an answer usually takes at most; zero while that is not known.
  Duration service(std::string_view model) const;

  // kFirst: may look for room. kBehind: may not, for the first has not seen what room there is. kAfter: the first
  // looked and could use none of it (a request that only some upstreams can take): others may.
  enum class Turn { kFirst, kAfter, kBehind, kDisplaced, kLate };
  Turn turn(Place& place, TimePoint now);
  void found_nothing(Place& place);
  bool is_first(const Place& place) const;
  // A place at an upstream is free.
  void freed();

  size_t size() const { return size_.load(std::memory_order_relaxed); }

 private:
  struct Rank {
    int urgency;  // minus the priority
    TimePoint since;
    uint64_t order;
    auto operator<=>(const Rank&) const = default;
  };
  using Places = std::map<Rank, std::shared_ptr<Place>>;
  struct ModelLine {
    Places places;
    std::map<int, size_t> count;  // by priority
    LineEstimate estimate;
    uint64_t round = 1;  // one more whenever there may be new room, or a new first
  };
  struct Hash : std::hash<std::string_view> {
    using is_transparent = void;
  };

  ModelLine& line_of(std::string_view model);
  static Rank rank(const Place& place) { return {-place.priority, place.since, place.order}; }
  void remove(const Place& place, TimePoint now);
  void review(TimePoint now);
  void review(ModelLine& line, TimePoint now);
  static void next_round(ModelLine& line);

  const size_t places_max_;
  mutable std::mutex mutex_;
  std::unordered_map<std::string, ModelLine, Hash, std::equal_to<>> lines_;  // models that upstreams have
  Places all_;
  std::atomic<size_t> size_{0};
  uint64_t next_order_ = 0;
  TimePoint reviewed_;
};

}  // namespace spillway::gateway
