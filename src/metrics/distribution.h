// What a series holds: a number, or a distribution of observations. A distribution counts each observation twice: by
// the bounds its metric declares (Prometheus's classic histogram) and by bounds that all distributions share, eight to
// each doubling (its native histogram, schema 3), from which any quantile follows within 9%. Updates are lock-free; any
// thread.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace spillway::metrics {

// A number that many threads add to.
class Value {
 public:
  void add(double by = 1) { value_.fetch_add(by, std::memory_order_relaxed); }
  void set(double to) { value_.store(to, std::memory_order_relaxed); }
  double get() const { return value_.load(std::memory_order_relaxed); }

 private:
  std::atomic<double> value_{0};
};

// The native form's bounds: bucket i holds (2^((i-1)/8), 2^(i/8)].
inline constexpr int kNativeSchema = 3;
inline constexpr int kNativePerOctave = 1 << kNativeSchema;
inline constexpr int kNativeExponentMin = -30;  // up to 2^-30 an observation counts as zero
inline constexpr int kNativeOctaves = 64;       // over 2^34 it counts in the last bucket
inline constexpr int kNativeBuckets = kNativeOctaves * kNativePerOctave;
inline constexpr int kNativeFirstIndex = kNativeExponentMin * kNativePerOctave + 1;

int native_index(double value);        // of a value over the zero threshold
double native_upper_bound(int index);  // 2^(index/8)
double native_zero_threshold();        // 2^-30

// A distribution as it was at one moment.
struct NativeReading {
  uint64_t count = 0;  // the buckets and zero together
  uint64_t zero = 0;
  double sum = 0;
  std::vector<uint64_t> buckets;  // kNativeBuckets of them, the first being kNativeFirstIndex; empty: all are zero

  // What came between an earlier reading of the same distribution and this one.
  NativeReading since(const NativeReading& earlier) const;
  void add(const NativeReading& other);
  // q in [0, 1]; NaN of an empty reading.
  double quantile(double q) const;
  // How many observations were at most this, from the bucket that holds it upwards by interpolation.
  double count_up_to(double value) const;
};

// An observation with the trace it came from.
struct Exemplar {
  std::string trace_id;  // 32 hexadecimal digits
  double value = 0;
  double unix_s = 0;
};

class Distribution {
 public:
  explicit Distribution(const std::vector<double>& bounds);
  ~Distribution();
  Distribution(const Distribution&) = delete;
  Distribution& operator=(const Distribution&) = delete;

  void observe(double value);  // not a number: left out
  // As observe, and keeps the trace (32 hexadecimal digits) as the exemplar of its classic bucket; an empty one is
  // none.
  void observe(double value, std::string_view trace_id);

  const std::vector<double>& bounds() const { return bounds_; }
  std::vector<uint64_t> counts() const;  // one a bound, and the rest; not cumulative
  double sum() const { return sum_.get(); }
  NativeReading native() const;
  std::vector<Exemplar> exemplars() const;  // one a bound, and the rest; an empty trace_id where there is none

 private:
  struct Octave {
    std::atomic<uint64_t> counts[kNativePerOctave] = {};
  };
  struct Exemplars;
  void count_native(double value);

  const std::vector<double>& bounds_;
  std::unique_ptr<std::atomic<uint64_t>[]> counts_;
  Value sum_;
  std::atomic<uint64_t> zero_{0};
  std::array<std::atomic<Octave*>, kNativeOctaves> octaves_{};  // made when first used
  std::atomic<Exemplars*> exemplars_{nullptr};                  // made when first used
};

}  // namespace spillway::metrics
