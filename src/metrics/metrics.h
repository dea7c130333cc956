// Counters, gauges and histograms. Each metric is declared once, where it is used, at namespace scope; the registry
// knows them all and writes Prometheus text. Updates are lock-free after the first use of a label set; any thread, also
// while statics are being built and destroyed: what a metric points to is never freed.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <initializer_list>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace spillway::metrics {

enum class Kind { kCounter, kGauge, kHistogram };

// A number that many threads add to.
class Value {
 public:
  void add(double by = 1) { value_.fetch_add(by, std::memory_order_relaxed); }
  void set(double to) { value_.store(to, std::memory_order_relaxed); }
  double get() const { return value_.load(std::memory_order_relaxed); }

 private:
  std::atomic<double> value_{0};
};

// Observations counted by upper bound (inclusive, as Prometheus has it).
class Distribution {
 public:
  explicit Distribution(const std::vector<double>& bounds);
  void observe(double value);
  const std::vector<double>& bounds() const { return bounds_; }
  std::vector<uint64_t> counts() const;  // one a bound, and the rest; not cumulative
  double sum() const { return sum_.get(); }

 private:
  const std::vector<double>& bounds_;
  std::unique_ptr<std::atomic<uint64_t>[]> counts_;
  Value sum_;
};

struct Description {
  std::string name;                 // spillway_..., with its unit: _seconds, _bytes, _total
  std::string help;
  std::vector<std::string> labels;
  std::vector<double> bounds = {};  // histograms only; rising
};

// Past this many series of one metric, new label sets share one series whose labels are all "other".
inline constexpr size_t kSeriesMax = 1000;

// What the registry keeps of a metric.
class Exported {
 public:
  virtual ~Exported() = default;
  virtual const Description& description() const = 0;
  virtual void write(std::string& out) const = 0;  // its HELP, TYPE and samples
};

// All series of one metric, by label values: a small hash table whose chains only grow, so that lookups take no lock.
template <class Series>
class SeriesTable final : public Exported {
 public:
  struct Entry {
    std::vector<std::string> label_values;
    std::unique_ptr<Series> series;
    const Entry* next;
  };

  SeriesTable(Kind kind, Description description);
  Series& with(std::initializer_list<std::string_view> label_values);
  const Description& description() const override { return description_; }
  std::vector<const Entry*> entries() const;  // sorted by label values
  void write(std::string& out) const override;

 private:
  static constexpr size_t kBuckets = 64;
  using LabelValues = std::span<const std::string_view>;
  const Entry* find(size_t bucket, LabelValues values) const;
  Series& find_or_add(LabelValues values, bool may_add);  // growing_ is held
  Entry* add(size_t bucket, std::vector<std::string> label_values);

  const Kind kind_;
  const Description description_;
  std::array<std::atomic<const Entry*>, kBuckets> buckets_{};
  std::atomic<Series*> only_{nullptr};  // the one series of a metric without labels
  std::mutex growing_;
  size_t size_ = 0;
};

extern template class SeriesTable<Value>;
extern template class SeriesTable<Distribution>;

// The handle that code declares: a reference into the registry.
template <class Series>
class Family {
 public:
  Family(Kind kind, Description description);
  Family(const Family&) = delete;
  Family& operator=(const Family&) = delete;

  // The series of these label values, in the order of the declared labels.
  Series& with(std::initializer_list<std::string_view> label_values) { return table_.with(label_values); }
  Series& operator*() { return with({}); }
  Series* operator->() { return &with({}); }
  const Description& description() const { return table_.description(); }

  // visitor(const std::vector<std::string>& label_values, const Series&), sorted by label values.
  void visit(auto&& visitor) const {
    for (const auto* entry : table_.entries()) visitor(entry->label_values, std::as_const(*entry->series));
  }

 private:
  SeriesTable<Series>& table_;
};

extern template class Family<Value>;
extern template class Family<Distribution>;

class Counter : public Family<Value> {
 public:
  Counter(std::string name, std::string help, std::vector<std::string> labels = {});
};

class Gauge : public Family<Value> {
 public:
  Gauge(std::string name, std::string help, std::vector<std::string> labels = {});
};

class Histogram : public Family<Distribution> {
 public:
  Histogram(std::string name, std::string help, std::vector<double> bounds, std::vector<std::string> labels = {});
};

// count bounds, each factor times the one before: exponential_bounds(0.001, 2, 14).
std::vector<double> exponential_bounds(double first, double factor, int count);

// Every declared metric and those of the process in Prometheus text format 0.0.4, sorted by name.
std::string prometheus_text();
inline constexpr std::string_view kPrometheusContentType = "text/plain; version=0.0.4; charset=utf-8";

}  // namespace spillway::metrics
