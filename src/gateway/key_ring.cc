#include "gateway/key_ring.h"

#include <algorithm>

namespace spillway::gateway {
namespace {

constexpr Duration kRefusedRest = std::chrono::seconds(30);
constexpr Duration kRefusedRestMax = std::chrono::minutes(10);

}  // namespace

KeyRing::KeyRing(std::vector<std::string> keys) {
  for (std::string& key : keys) keys_.push_back({std::move(key), {}, 0});
  if (keys_.empty()) keys_.push_back({});
}

std::optional<size_t> KeyRing::next(TimePoint now) {
  for (size_t i = 0; i < keys_.size(); ++i) {
    const size_t index = (turn_ + i) % keys_.size();
    if (!usable(index, now)) continue;
    turn_ = index + 1;
    return index;
  }
  return std::nullopt;
}

void KeyRing::refused(size_t index, TimePoint now) {
  Key& key = keys_[index];
  const Duration rest = std::min(kRefusedRest * (int64_t{1} << std::min(key.refusals, 10)), kRefusedRestMax);
  if (now < key.rests_until) return;  // told already, by a request sent at the same time
  ++key.refusals;
  key.rests_until = now + rest;
}

void KeyRing::limited(size_t index, TimePoint now, Duration rest) {
  keys_[index].rests_until = std::max(keys_[index].rests_until, now + rest);
}

void KeyRing::worked(size_t index) { keys_[index].refusals = 0; }

TimePoint KeyRing::usable_at(TimePoint now) const {
  TimePoint first = TimePoint::max();
  for (const Key& key : keys_) first = std::min(first, key.rests_until);
  return std::max(first, now);
}

}  // namespace spillway::gateway
