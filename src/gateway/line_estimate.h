// LineEstimate: how long somebody who waits for a model will wait, and how long his answer takes then. Learned from
// what happens while the line is not empty: how many a second go to upstreams (the pace of the fleet, whatever bounds
// it), how many a second come who go first, how long answers took of late. A pure state machine, time is given. Owned
// by WaitingLine, one for each model, under its lock. Not its job: who waits, and in which order.
#pragma once

#include <cstddef>
#include <deque>
#include <map>

#include "base/clock.h"

namespace spillway::gateway {

// Events a second, over the last of them.
class RateWindow {
 public:
  void add(Duration at);
  // 0 where fewer than at_least were seen.
  double per_s(Duration now, size_t at_least) const;

 private:
  std::deque<Duration> events_;
};

class LineEstimate {
 public:
  // The line is not empty from now on, or is empty again. Rates are measured on the clock of the time between.
  void busy(TimePoint now);
  void idle(TimePoint now);

  void came(int priority, TimePoint now);  // while the line is busy
  void went(TimePoint now);                // to an upstream, from the line or past it, while the line is busy
  void answered(Duration took);            // from an upstream's taking it to the end of the answer

  // Until the one before whom `ahead` of the same or a higher priority wait is taken. Zero while nothing is known.
  Duration wait(size_t ahead, int priority, TimePoint now) const;
  // What an answer takes, with some allowance for the slower ones.
  Duration service() const;
  // The same for who has so much time in all: with less allowance where that would leave him none to wait in. He may
  // miss; but refused for that, he would lose his place to others who are as likely to miss, whatever their priority.
  Duration service_within(Duration whole) const;

 private:
  Duration busy_clock(TimePoint now) const { return busy_total_ + (busy_ ? now - busy_since_ : Duration::zero()); }

  bool busy_ = false;
  TimePoint busy_since_;
  Duration busy_total_{};
  RateWindow went_;
  std::map<int, RateWindow> came_;  // by priority
  double service_s_ = 0, deviation_s_ = 0;
};

}  // namespace spillway::gateway
