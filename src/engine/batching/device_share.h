// DeviceShare: the models on one device take turns, each as often as its weight says: who has had the least device time
// for its weight goes first, and idling saves nothing up. Owned by the engines that share it; any thread.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <map>
#include <mutex>

#include "base/clock.h"

namespace spillway::engine {

class DeviceShare {
 public:
  using Member = uint64_t;

  Member join(double weight);
  void leave(Member member);

  // Waits for the member's turn. The device is its own until release().
  void acquire(Member member);
  // more: it wants another turn at once, and the device is kept for it where it is next, until acquire() or withdraw().
  void release(Member member, double device_s, bool more);
  void withdraw(Member member);

  // Device time by weight that the member has had, for tests and metrics.
  double used_s(Member member) const;
  // Whether others want the device now.
  bool contended() const;

 private:
  struct State {
    double weight = 1;
    double virtual_s = 0;  // device time by weight
    double used_s = 0;
    bool waiting = false;
  };
  Member next() const;  // mutex_ is held; 0: nobody waits

  mutable std::mutex mutex_;
  std::condition_variable turn_;
  std::map<Member, State> members_;
  Member last_ = 0;
  Member owner_ = 0;          // 0: the device is free
  double virtual_now_s_ = 0;  // of the last turn given
};

}  // namespace spillway::engine
