#include "metrics/distribution.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstring>
#include <limits>
#include <mutex>

namespace spillway::metrics {
namespace {

constexpr size_t kTraceIdSize = 32;

// 2^(i/8 - 1): the upper bounds of the buckets of one octave, as frexp's fraction.
const std::array<double, kNativePerOctave>& fractions() {
  static const auto bounds = [] {
    std::array<double, kNativePerOctave> made{};
    for (int i = 0; i < kNativePerOctave; ++i) made[size_t(i)] = std::exp2(double(i) / kNativePerOctave - 1);
    return made;
  }();
  return bounds;
}

double unix_now() { return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count(); }

}  // namespace

int native_index(double value) {
  if (value >= std::exp2(double(kNativeExponentMin + kNativeOctaves))) {
    return kNativeFirstIndex + kNativeBuckets - 1;
  }
  int exponent = 0;
  const double fraction = std::frexp(value, &exponent);
  const auto bound = std::lower_bound(fractions().begin(), fractions().end(), fraction);
  return int(bound - fractions().begin()) + (exponent - 1) * kNativePerOctave;
}

double native_upper_bound(int index) { return std::exp2(double(index) / kNativePerOctave); }
double native_zero_threshold() { return std::exp2(double(kNativeExponentMin)); }

NativeReading NativeReading::since(const NativeReading& earlier) const {
  NativeReading between = *this;
  between.zero -= std::min(earlier.zero, between.zero);
  between.sum -= earlier.sum;
  for (size_t i = 0; i < std::min(between.buckets.size(), earlier.buckets.size()); ++i) {
    between.buckets[i] -= std::min(earlier.buckets[i], between.buckets[i]);
  }
  between.count = between.zero;
  for (const uint64_t count : between.buckets) between.count += count;
  return between;
}

void NativeReading::add(const NativeReading& other) {
  count += other.count;
  zero += other.zero;
  sum += other.sum;
  if (buckets.size() < other.buckets.size()) buckets.resize(other.buckets.size());
  for (size_t i = 0; i < other.buckets.size(); ++i) buckets[i] += other.buckets[i];
}

double NativeReading::quantile(double q) const {
  if (count == 0) return std::numeric_limits<double>::quiet_NaN();
  const double rank = std::clamp(q, 0.0, 1.0) * double(count);
  if (rank <= double(zero)) return 0;
  double below = double(zero);
  size_t last = 0;
  for (size_t i = 0; i < buckets.size(); ++i) {
    if (buckets[i] == 0) continue;
    last = i;
    if (below + double(buckets[i]) >= rank) {
      // Bounds grow by a factor, so what lies between them is spread by that factor too.
      const double share = (rank - below) / double(buckets[i]);
      return std::exp2((double(kNativeFirstIndex) + double(i) - 1 + share) / kNativePerOctave);
    }
    below += double(buckets[i]);
  }
  return native_upper_bound(kNativeFirstIndex + int(last));
}

double NativeReading::count_up_to(double value) const {
  if (value < 0) return 0;
  if (value <= native_zero_threshold()) return double(zero);
  const int at = native_index(value) - kNativeFirstIndex;
  double below = double(zero);
  for (int i = 0; i < at && i < int(buckets.size()); ++i) below += double(buckets[size_t(i)]);
  if (at >= int(buckets.size())) return below;
  const double share = std::log2(value) * kNativePerOctave - (kNativeFirstIndex + at - 1);
  return below + std::clamp(share, 0.0, 1.0) * double(buckets[size_t(at)]);
}

// One slot a classic bucket. Writers that meet leave the slot to the other: an exemplar is a sample anyway.
struct Distribution::Exemplars {
  struct Slot {
    char trace_id[kTraceIdSize] = {};
    double value = 0;
    double unix_s = 0;
  };
  explicit Exemplars(size_t size) : slots(size) {}
  std::mutex mutex;
  std::vector<Slot> slots;
};

Distribution::Distribution(const std::vector<double>& bounds)
    : bounds_(bounds), counts_(new std::atomic<uint64_t>[bounds.size() + 1]()) {}

Distribution::~Distribution() {
  for (auto& octave : octaves_) delete octave.load();
  delete exemplars_.load();
}

void Distribution::observe(double value) {
  if (std::isnan(value)) return;
  // The native count first and read last, so that a reader never finds more in the classic buckets than in all.
  count_native(value);
  const auto bound = std::lower_bound(bounds_.begin(), bounds_.end(), value);
  counts_[size_t(bound - bounds_.begin())].fetch_add(1, std::memory_order_release);
  sum_.add(value);
}

void Distribution::observe(double value, std::string_view trace_id) {
  observe(value);
  if (trace_id.size() != kTraceIdSize || std::isnan(value)) return;
  Exemplars* kept = exemplars_.load(std::memory_order_acquire);
  if (kept == nullptr) {
    auto made = std::make_unique<Exemplars>(bounds_.size() + 1);
    if (exemplars_.compare_exchange_strong(kept, made.get(), std::memory_order_acq_rel)) kept = made.release();
  }
  const std::unique_lock lock(kept->mutex, std::try_to_lock);
  if (!lock) return;
  const auto bound = std::lower_bound(bounds_.begin(), bounds_.end(), value);
  Exemplars::Slot& slot = kept->slots[size_t(bound - bounds_.begin())];
  std::memcpy(slot.trace_id, trace_id.data(), kTraceIdSize);
  slot.value = value;
  slot.unix_s = unix_now();
}

void Distribution::count_native(double value) {
  if (value <= native_zero_threshold()) {
    zero_.fetch_add(1, std::memory_order_relaxed);
    return;
  }
  const size_t at = size_t(native_index(value) - kNativeFirstIndex);
  std::atomic<Octave*>& place = octaves_[at / kNativePerOctave];
  Octave* octave = place.load(std::memory_order_acquire);
  if (octave == nullptr) {
    auto made = std::make_unique<Octave>();
    if (place.compare_exchange_strong(octave, made.get(), std::memory_order_acq_rel)) octave = made.release();
  }
  octave->counts[at % kNativePerOctave].fetch_add(1, std::memory_order_relaxed);
}

std::vector<uint64_t> Distribution::counts() const {
  std::vector<uint64_t> counts(bounds_.size() + 1);
  for (size_t i = 0; i < counts.size(); ++i) counts[i] = counts_[i].load(std::memory_order_acquire);
  return counts;
}

NativeReading Distribution::native() const {
  NativeReading reading;
  reading.sum = sum_.get();
  reading.zero = zero_.load(std::memory_order_relaxed);
  reading.count = reading.zero;
  for (size_t o = 0; o < octaves_.size(); ++o) {
    const Octave* octave = octaves_[o].load(std::memory_order_acquire);
    if (octave == nullptr) continue;
    reading.buckets.resize(kNativeBuckets);
    for (size_t i = 0; i < kNativePerOctave; ++i) {
      const uint64_t count = octave->counts[i].load(std::memory_order_relaxed);
      reading.buckets[o * kNativePerOctave + i] = count;
      reading.count += count;
    }
  }
  return reading;
}

std::vector<Exemplar> Distribution::exemplars() const {
  Exemplars* kept = exemplars_.load(std::memory_order_acquire);
  if (kept == nullptr) return {};
  std::vector<Exemplar> read(bounds_.size() + 1);
  const std::lock_guard lock(kept->mutex);
  for (size_t i = 0; i < read.size(); ++i) {
    const Exemplars::Slot& slot = kept->slots[i];
    if (slot.trace_id[0] == 0) continue;
    read[i] = {std::string(slot.trace_id, kTraceIdSize), slot.value, slot.unix_s};
  }
  return read;
}

}  // namespace spillway::metrics
