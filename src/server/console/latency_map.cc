#include "server/console/latency_map.h"

#include <algorithm>
#include <cmath>

namespace spillway::server {
namespace {

constexpr double kFirst_s = 0.001;
constexpr double kRatio = 1.5;

}  // namespace

double LatencyMap::bound(int bucket) { return kFirst_s * std::pow(kRatio, bucket); }

void LatencyMap::record(double seconds) {
  const double steps = std::ceil(std::log(std::max(seconds, kFirst_s) / kFirst_s) / std::log(kRatio) - 1e-9);
  const int bucket = static_cast<int>(std::clamp(steps, 0.0, double(kBuckets - 1)));
  now_[bucket].fetch_add(1, std::memory_order_relaxed);
}

void LatencyMap::roll() {
  Column ended;
  for (int i = 0; i < kBuckets; ++i) ended[i] = now_[i].exchange(0, std::memory_order_relaxed);
  std::lock_guard lock(mutex_);
  ring_[ended_++ % kColumns] = ended;
}

uint64_t LatencyMap::columns() const {
  std::lock_guard lock(mutex_);
  return ended_;
}

std::vector<LatencyMap::Column> LatencyMap::newest(size_t count) const {
  std::lock_guard lock(mutex_);
  const uint64_t kept = std::min<uint64_t>({ended_, kColumns, count});
  std::vector<Column> out;
  for (uint64_t i = kept; i > 0; --i) out.push_back(ring_[(ended_ - i) % kColumns]);
  return out;
}

LatencyMap::Column LatencyMap::sum(size_t over_s) const {
  Column total{};
  for (const Column& column : newest(over_s)) {
    for (int i = 0; i < kBuckets; ++i) total[i] += column[i];
  }
  return total;
}

uint64_t LatencyMap::count(size_t over_s) const {
  uint64_t all = 0;
  for (const uint32_t n : sum(over_s)) all += n;
  return all;
}

double LatencyMap::quantile(double q, size_t over_s) const {
  const Column total = sum(over_s);
  uint64_t all = 0;
  for (const uint32_t n : total) all += n;
  if (all == 0) return 0;
  const double rank = q * static_cast<double>(all);
  double below = 0;
  for (int i = 0; i < kBuckets; ++i) {
    if (below + total[i] >= rank && total[i] > 0) {
      const double low = i == 0 ? 0 : bound(i - 1);
      return low + (bound(i) - low) * std::clamp((rank - below) / total[i], 0.0, 1.0);
    }
    below += total[i];
  }
  return bound(kBuckets - 1);
}

}  // namespace spillway::server
