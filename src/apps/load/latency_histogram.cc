#include "apps/load/latency_histogram.h"

#include <algorithm>
#include <cmath>

namespace spillway::apps {
namespace {

constexpr double kFirst = 1e-6;  // everything shorter is this
constexpr double kGrowth = 1.01;
constexpr size_t kBuckets = 2600;  // up to 1e5 s

size_t bucket_of(double seconds) {
  if (!(seconds > kFirst)) return 0;
  return std::min(kBuckets - 1, size_t(std::ceil(std::log(seconds / kFirst) / std::log(kGrowth))));
}

}  // namespace

void LatencyHistogram::add(double seconds) {
  if (counts_.empty()) counts_.resize(kBuckets);
  ++counts_[bucket_of(seconds)];
  ++count_;
  sum_ += seconds;
  max_ = std::max(max_, seconds);
}

double LatencyHistogram::percentile(double share) const {
  if (count_ == 0) return 0;
  const uint64_t rank = std::max<uint64_t>(1, uint64_t(std::ceil(share * double(count_))));
  uint64_t below = 0;
  for (size_t i = 0; i < counts_.size(); ++i) {
    below += counts_[i];
    if (below >= rank) return std::min(max_, kFirst * std::pow(kGrowth, double(i)));
  }
  return max_;
}

Percentiles LatencyHistogram::percentiles() const {
  if (count_ == 0) return {};
  return {count_, sum_ / double(count_), percentile(0.5), percentile(0.9), percentile(0.99), max_};
}

}  // namespace spillway::apps
