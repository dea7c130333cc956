// KeyRing: the keys of one provider, and which to use next. A key that was refused (401, 403), is out of money (402) or
// over its rate (429) rests while the others go on; the provider itself is not blamed. A pure state machine, time is
// given. Not thread-safe: its owner locks.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "base/clock.h"

namespace spillway::gateway {

class KeyRing {
 public:
  // keys may be empty: then there is one, which is no key at all and never rests for its own sake.
  explicit KeyRing(std::vector<std::string> keys);

  // The next usable key's index, in turn; nothing while all rest.
  std::optional<size_t> next(TimePoint now);
  const std::string& key(size_t index) const { return keys_[index].secret; }
  bool none() const { return keys_.size() == 1 && keys_[0].secret.empty(); }
  size_t size() const { return keys_.size(); }

  void refused(size_t index, TimePoint now);                 // 401, 402, 403: for minutes, longer each time
  void limited(size_t index, TimePoint now, Duration rest);  // 429
  void worked(size_t index);

  bool usable(size_t index, TimePoint now) const { return now >= keys_[index].rests_until; }
  // When the first is usable again: now where one is.
  TimePoint usable_at(TimePoint now) const;

 private:
  struct Key {
    std::string secret;
    TimePoint rests_until;
    int refusals = 0;
  };
  std::vector<Key> keys_;
  size_t turn_ = 0;
};

}  // namespace spillway::gateway
