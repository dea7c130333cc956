#include "gateway/policies/prefix_index.h"

#include <algorithm>
#include <mutex>

#include "base/check.h"

namespace spillway::gateway {

void PrefixIndex::match(std::span<const uint64_t> blocks, TimePoint now, std::span<uint32_t> matched) const {
  std::fill(matched.begin(), matched.end(), 0);
  const size_t upstreams = std::min(matched.size(), kPrefixUpstreamsMax);
  Set left{};
  for (size_t u = 0; u < upstreams; ++u) left[u / 64] |= uint64_t{1} << (u % 64);
  std::shared_lock lock(mutex_);
  // Sets only shrink along a prompt: an upstream is done at the first block that it lacks.
  const auto stop = [&](const Set& gone, size_t depth) {
    for (size_t word = 0; word < gone.size(); ++word) {
      for (uint64_t bits = gone[word]; bits != 0; bits &= bits - 1) {
        matched[word * 64 + static_cast<size_t>(__builtin_ctzll(bits))] = static_cast<uint32_t>(depth);
      }
    }
  };
  size_t depth = 0;
  for (; depth < blocks.size(); ++depth) {
    const auto found = entries_.find(blocks[depth]);
    if (found == entries_.end() || now - found->second.used > options_.ttl) break;
    Set gone{};
    bool any_gone = false, any_left = false;
    for (size_t word = 0; word < left.size(); ++word) {
      gone[word] = left[word] & ~found->second.upstreams[word];
      left[word] &= found->second.upstreams[word];
      any_gone |= gone[word] != 0;
      any_left |= left[word] != 0;
    }
    if (any_gone) stop(gone, depth);
    if (!any_left) return;
  }
  stop(left, depth);
}

void PrefixIndex::touch(uint64_t hash, size_t upstream, TimePoint now) {
  auto found = entries_.find(hash);
  if (found == entries_.end()) {
    if (entries_.size() >= options_.entries_max) {
      entries_.erase(recency_.back());
      recency_.pop_back();
    }
    recency_.push_front(hash);
    found = entries_.emplace(hash, Entry{}).first;
    found->second.place = recency_.begin();
  } else {
    recency_.splice(recency_.begin(), recency_, found->second.place);
    if (now - found->second.used > options_.ttl) found->second.upstreams = {};
  }
  found->second.used = std::max(found->second.used, now);
  found->second.upstreams[upstream / 64] |= uint64_t{1} << (upstream % 64);
}

void PrefixIndex::drop(uint64_t hash, size_t upstream) {
  const auto found = entries_.find(hash);
  if (found == entries_.end()) return;
  Set& upstreams = found->second.upstreams;
  upstreams[upstream / 64] &= ~(uint64_t{1} << (upstream % 64));
  if (upstreams != Set{}) return;
  recency_.erase(found->second.place);
  entries_.erase(found);
}

void PrefixIndex::record(size_t upstream, std::span<const uint64_t> blocks, TimePoint now) {
  if (upstream >= kPrefixUpstreamsMax || options_.entries_max == 0) return;
  const size_t count = std::min(blocks.size(), options_.entries_max);
  std::unique_lock lock(mutex_);
  // Last block first, so that the root is the most recent and leaves go before it.
  for (size_t i = count; i-- > 0;) touch(blocks[i], upstream, now);
}

void PrefixIndex::observe(size_t upstream, double tokens_expected, double tokens_cached) {
  if (upstream >= kPrefixUpstreamsMax || tokens_expected <= 0) return;
  constexpr double kMemory = 0.9;  // the last ten or so requests count
  const double missed = std::clamp(1 - tokens_cached / tokens_expected, 0.0, 1.0);
  std::unique_lock lock(mutex_);
  distrust_[upstream] = kMemory * distrust_[upstream] + (1 - kMemory) * missed;
}

double PrefixIndex::trust(size_t upstream) const {
  if (upstream >= kPrefixUpstreamsMax) return 0;
  std::shared_lock lock(mutex_);
  return 1 - distrust_[upstream];
}

void PrefixIndex::report(size_t upstream, std::span<const uint64_t> held, std::span<const uint64_t> dropped,
                         TimePoint now) {
  if (upstream >= kPrefixUpstreamsMax || options_.entries_max == 0) return;
  std::unique_lock lock(mutex_);
  for (const uint64_t hash : dropped) drop(hash, upstream);
  for (size_t i = std::min(held.size(), options_.entries_max); i-- > 0;) touch(held[i], upstream, now);
}

void PrefixIndex::forget(size_t upstream) {
  if (upstream >= kPrefixUpstreamsMax) return;
  std::unique_lock lock(mutex_);
  std::vector<uint64_t> held;
  for (const auto& [hash, entry] : entries_) {
    if ((entry.upstreams[upstream / 64] >> (upstream % 64)) & 1) held.push_back(hash);
  }
  for (const uint64_t hash : held) drop(hash, upstream);
  distrust_[upstream] = 0;
}

size_t PrefixIndex::entries() const {
  std::shared_lock lock(mutex_);
  return entries_.size();
}

}  // namespace spillway::gateway
