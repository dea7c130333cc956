// PrefixIndex: which upstream has which prompt prefixes in its cache, as far as the gateway can know. A block's hash
// covers everything before it, so the index is a prefix tree without pointers: one entry a block, with the set of
// upstreams that have it. It learns from the gateway's own decisions (record), from usage (observe) and from load
// reports (report). Beliefs expire; memory is bounded by entries, the least recently
// used going first, and leaves before their roots.
// Shared by all I/O threads: reading takes a shared lock, learning an exclusive one, both for microseconds.
#pragma once

#include <array>
#include <cstdint>
#include <list>
#include <shared_mutex>
#include <span>
#include <unordered_map>
#include <vector>

#include "base/clock.h"

namespace spillway::gateway {

inline constexpr size_t kPrefixUpstreamsMax = 256;

struct PrefixIndexOptions {
  size_t entries_max = 1 << 16;  // of about 120 bytes each
  Duration ttl = std::chrono::minutes(10);
};

class PrefixIndex {
 public:
  explicit PrefixIndex(PrefixIndexOptions options = {}) : options_(options) {}

  // matched[u]: how many leading blocks upstream u is believed to have. The span's size is the number of upstreams.
  void match(std::span<const uint64_t> blocks, TimePoint now, std::span<uint32_t> matched) const;

  // The upstream is going to compute these blocks.
  void record(size_t upstream, std::span<const uint64_t> blocks, TimePoint now);

  // A request that was expected to find so many of its tokens in the upstream's cache found so many there. Upstreams
  // that evict sooner than believed, or cache nothing, lose trust; match is to be weighed by it.
  void observe(size_t upstream, double tokens_expected, double tokens_cached);
  double trust(size_t upstream) const;  // 0..1; 1 until something else was observed

  // Blocks the upstream says it holds and no longer holds.
  void report(size_t upstream, std::span<const uint64_t> held, std::span<const uint64_t> dropped, TimePoint now);

  // The upstream restarted or left.
  void forget(size_t upstream);

  size_t entries() const;

 private:
  using Set = std::array<uint64_t, kPrefixUpstreamsMax / 64>;
  struct Entry {
    Set upstreams{};
    TimePoint used;
    std::list<uint64_t>::iterator place;  // in recency_
  };

  void touch(uint64_t hash, size_t upstream, TimePoint now);
  void drop(uint64_t hash, size_t upstream);

  const PrefixIndexOptions options_;
  mutable std::shared_mutex mutex_;
  std::unordered_map<uint64_t, Entry> entries_;
  std::list<uint64_t> recency_;  // most recent first
  std::array<double, kPrefixUpstreamsMax> distrust_{};
};

}  // namespace spillway::gateway
