// LatencyMap: how long requests took, second by second, in buckets of equal ratio: the console's heat map and the
// percentiles beside it. record() is called at the end of every request on any thread: one atomic addition. roll() is
// the sampler's, once a second.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <mutex>
#include <vector>

namespace spillway::server {

class LatencyMap {
 public:
  static constexpr int kBuckets = 32;   // bucket i ends at bound(i); the last takes the rest
  static constexpr int kColumns = 180;  // seconds that are kept
  static double bound(int bucket);      // 1 ms * 1.5^i: the last is five minutes

  using Column = std::array<uint32_t, kBuckets>;

  void record(double seconds);

  // Ends the column of this second and begins the next.
  void roll();

  // Number of columns ended since the start; the last of them, and up to `count` of them, the newest last.
  uint64_t columns() const;
  std::vector<Column> newest(size_t count) const;

  // Of the last so many ended seconds, interpolated within its bucket; 0 without requests.
  double quantile(double q, size_t over_s) const;
  uint64_t count(size_t over_s) const;

 private:
  Column sum(size_t over_s) const;
  std::array<std::atomic<uint32_t>, kBuckets> now_{};
  mutable std::mutex mutex_;
  std::array<Column, kColumns> ring_{};
  uint64_t ended_ = 0;
};

}  // namespace spillway::server
