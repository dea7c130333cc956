// Counters, gauges and histograms. Each metric is declared once, where it is used, at namespace scope; the registry
// knows them all and writes Prometheus text. Updates are lock-free after the first use of a label set; any thread.
#pragma once

#include <array>
#include <atomic>
#include <initializer_list>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
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

class Distribution {
 public:
  explicit Distribution(const std::vector<double>& bounds);
  void observe(double value);
  const std::vector<double>& bounds() const { return bounds_; }
  std::vector<uint64_t> counts() const;   // one a bound, and the rest; not cumulative
  double sum() const { return sum_.get(); }

 private:
  const std::vector<double>& bounds_;
  std::unique_ptr<std::atomic<uint64_t>[]> counts_;
  Value sum_;
};

struct Description {
  std::string name;                    // spillway_..., with its unit: _seconds, _bytes, _total
  std::string help;
  std::vector<std::string> labels;
  std::vector<double> bounds;          // histograms only
};

// All series of one metric, by label values. Past series_max, new label sets share one series labelled "other".
template <class Series>
class Family {
 public:
  Family(Kind kind, Description description);
  Series& with(std::initializer_list<std::string_view> label_values);
  Series& operator*() { return with({}); }
  Series* operator->() { return &with({}); }
  const Description& description() const { return description_; }
  void visit(auto&& visitor) const;    // (label values, series)

 private:
  static constexpr size_t kSeriesMax = 1000;
  Kind kind_;
  Description description_;
  mutable std::mutex mutex_;
  std::map<std::vector<std::string>, std::unique_ptr<Series>, std::less<>> series_;
};

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

// Every declared metric in Prometheus text format 0.0.4, sorted by name.
std::string prometheus_text();

}  // namespace spillway::metrics
