// Durations counted in buckets that each are 1% wider than the one before: percentiles of any number of them in a few
// KB, right to 1%. One thread.
#pragma once

#include <cstdint>
#include <vector>

namespace spillway::apps {

struct Percentiles {
  uint64_t count = 0;
  double mean = 0, p50 = 0, p90 = 0, p99 = 0, max = 0;  // seconds; all zero when count is
};

class LatencyHistogram {
 public:
  void add(double seconds);
  uint64_t count() const { return count_; }
  double percentile(double share) const;  // share in (0, 1]; the nearest rank
  Percentiles percentiles() const;

 private:
  std::vector<uint32_t> counts_;
  uint64_t count_ = 0;
  double sum_ = 0, max_ = 0;
};

}  // namespace spillway::apps
