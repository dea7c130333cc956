#include "gateway/latency_window.h"

#include <algorithm>
#include <cmath>

namespace spillway::gateway {
namespace {

constexpr Duration kHalf = std::chrono::seconds(30);
constexpr double kSmallest = 1e-5, kFactor = 1.1;

}  // namespace

int LatencyWindow::bucket_of(Duration took) {
  const double s = std::max(kSmallest, seconds(took));
  return std::clamp(int(std::log(s / kSmallest) / std::log(kFactor)), 0, kBuckets - 1);
}

void LatencyWindow::roll(TimePoint now) {
  if (now - began_ < kHalf) return;
  const bool skipped = now - began_ >= 2 * kHalf;
  buckets_[1] = buckets_[0];
  if (skipped) buckets_[1] = {};
  counts_[1] = skipped ? 0 : counts_[0];
  buckets_[0] = {};
  counts_[0] = 0;
  began_ = now;
}

void LatencyWindow::add(TimePoint now, Duration took) {
  roll(now);
  ++buckets_[0][size_t(bucket_of(took))];
  ++counts_[0];
}

std::optional<Duration> LatencyWindow::quantile(TimePoint now, double q, int64_t samples_min) {
  roll(now);
  if (samples() < samples_min) return std::nullopt;
  const double wanted = q * double(samples());
  double seen = 0;
  for (int i = 0; i < kBuckets; ++i) {
    seen += buckets_[0][size_t(i)] + buckets_[1][size_t(i)];
    if (seen >= wanted) return from_seconds(kSmallest * std::pow(kFactor, i + 1));
  }
  return from_seconds(kSmallest * std::pow(kFactor, kBuckets));
}

}  // namespace spillway::gateway
