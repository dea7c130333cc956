#include "engine/batching/device_share.h"

#include <algorithm>

#include "base/check.h"

namespace spillway::engine {

DeviceShare::Member DeviceShare::join(double weight) {
  SW_CHECK(weight > 0, "a share's weight");
  std::lock_guard lock(mutex_);
  members_[++last_] = State{.weight = weight, .virtual_s = virtual_now_s_};
  return last_;
}

void DeviceShare::leave(Member member) {
  {
    std::lock_guard lock(mutex_);
    members_.erase(member);
  }
  turn_.notify_all();
}

DeviceShare::Member DeviceShare::next() const {
  Member best = 0;
  double least = 0;
  for (const auto& [member, state] : members_) {
    if (!state.waiting || (best != 0 && state.virtual_s >= least)) continue;
    best = member;
    least = state.virtual_s;
  }
  return best;
}

void DeviceShare::acquire(Member member) {
  std::unique_lock lock(mutex_);
  State& state = members_.at(member);
  state.virtual_s = std::max(state.virtual_s, virtual_now_s_);  // who idled has saved nothing up
  state.waiting = true;
  turn_.wait(lock, [&] { return owner_ == 0 && next() == member; });
  state.waiting = false;
  owner_ = member;
  virtual_now_s_ = state.virtual_s;
}

void DeviceShare::release(Member member, double device_s, bool more) {
  {
    std::lock_guard lock(mutex_);
    State& state = members_.at(member);
    state.used_s += device_s;
    state.virtual_s += device_s / state.weight;
    state.waiting = more;
    owner_ = 0;
  }
  turn_.notify_all();
}

void DeviceShare::withdraw(Member member) {
  {
    std::lock_guard lock(mutex_);
    members_.at(member).waiting = false;
  }
  turn_.notify_all();
}

double DeviceShare::used_s(Member member) const {
  std::lock_guard lock(mutex_);
  return members_.at(member).used_s;
}

bool DeviceShare::contended() const {
  std::lock_guard lock(mutex_);
  return next() != 0;
}

}  // namespace spillway::engine
