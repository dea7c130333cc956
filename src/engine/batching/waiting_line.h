// WaitingLine: the inputs that wait for a batch, by priority and then by arrival, each priority under its QueuePolicy.
// Values; no clock, no thread: the scheduler's.
#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <vector>

#include "base/clock.h"
#include "engine/one_shot_engine.h"

namespace spillway::engine {

struct WaitingInput {
  OneShotId id = 0;  // rising in order of arrival
  int64_t cost = 0;
  Priority priority = Priority::kNormal;
  TimePoint arrived;
  TimePoint deadline = TimePoint::max();
  int passed = 0;        // times that a later one was taken before it because it did not fit
  bool delayed = false;  // past its time, and behind the rest of its priority
};

class WaitingLine {
 public:
  static constexpr int kPassesMax = 4;   // then nothing goes before it any more
  static constexpr int kLookahead = 64;  // how far behind one that does not fit is looked for some that do

  explicit WaitingLine(const std::array<QueuePolicy, 3>& policies) : policies_(policies) {}

  // Its deadline becomes what the policy makes of it.
  void add(WaitingInput input);

  // Takes out those of [first, first + count) that wait.
  std::vector<WaitingInput> cancel(OneShotId first, size_t count);
  std::vector<WaitingInput> cancel_all();

  // Takes out those whose time is over; those of a policy that only delays go behind instead.
  std::vector<WaitingInput> expire(TimePoint now);

  // What a batch within the bounds would hold: in order, and smaller ones from behind where the next does not fit. The
  // first is taken whatever it costs.
  struct Choice {
    std::vector<const WaitingInput*> inputs;
    int64_t cost = 0;
    TimePoint deadline = TimePoint::max();  // the nearest
    bool full = false;                      // something waiting found no room
  };
  Choice choose(int64_t cost_max, int inputs_max) const;
  // Takes the first `count` of the choice out.
  std::vector<WaitingInput> take(const Choice& choice, size_t count);

  bool empty() const { return size() == 0; }
  int size() const { return size_[0] + size_[1] + size_[2]; }
  int size(Priority priority) const { return size_[level(priority)]; }
  int64_t cost() const { return cost_[0] + cost_[1] + cost_[2]; }
  int64_t cost(Priority priority) const { return cost_[level(priority)]; }
  TimePoint oldest() const;                                   // arrival; max() when empty
  TimePoint next_deadline() const { return next_deadline_; }  // no later than the first; max() when none

  static int level(Priority priority) { return static_cast<int>(priority) + 1; }

 private:
  template <class Which>
  std::vector<WaitingInput> remove_if(Which which);
  void forget(const WaitingInput& input);

  std::array<QueuePolicy, 3> policies_;
  std::array<std::deque<WaitingInput>, 3> in_time_, delayed_;
  std::array<int, 3> size_{};
  std::array<int64_t, 3> cost_{};
  TimePoint next_deadline_ = TimePoint::max();
};

}  // namespace spillway::engine
