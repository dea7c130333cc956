// Counters, gauges and histograms. Each metric is declared once, where it is used, at namespace scope; the registry
// knows them all (registry.h) and exposition.h writes them. Updates are lock-free after the first use of a label set;
// any thread, also while statics are being built and destroyed: what a metric points to is never freed.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <functional>
#include <initializer_list>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "metrics/distribution.h"

namespace spillway::metrics {

enum class Kind { kCounter, kGauge, kHistogram };

// Whose question a metric answers: is the machine well, is the service well, does it do any good.
enum class Layer { kHardware, kService, kBusiness };

std::string_view name_of(Kind kind);    // "counter"
std::string_view name_of(Layer layer);  // "hardware"

struct Description {
  std::string name;  // spillway_..., with its unit: _seconds, _bytes; a counter ends in _total
  std::string help;
  std::vector<std::string> labels;
  std::vector<double> bounds = {};  // histograms only; rising
  Kind kind = Kind::kGauge;
  Layer layer = Layer::kService;
  std::string unit = {};  // "seconds"; empty: a plain number
};

// The unit that a name says: "seconds" of "spillway_x_seconds_total"; empty where it says none.
std::string_view unit_in(std::string_view name);

// Past this many series of one metric, new label sets share one series whose labels are all "other".
inline constexpr size_t kSeriesMax = 1000;

// One series, as it is read: a Value or a Distribution.
struct Reading {
  const std::vector<std::string>& label_values;
  double value = 0;                            // of counters and gauges
  const Distribution* distribution = nullptr;  // of histograms
};

// What the registry keeps of a metric.
class Exported {
 public:
  virtual ~Exported() = default;
  virtual const Description& description() const = 0;
  virtual void read(const std::function<void(const Reading&)>& take) const = 0;  // sorted by label values
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

  explicit SeriesTable(Description description);
  Series& with(std::initializer_list<std::string_view> label_values);
  const Description& description() const override { return description_; }
  std::vector<const Entry*> entries() const;  // sorted by label values
  void read(const std::function<void(const Reading&)>& take) const override;

 private:
  static constexpr size_t kBuckets = 64;
  using LabelValues = std::span<const std::string_view>;
  const Entry* find(size_t bucket, LabelValues values) const;
  Series& find_or_add(LabelValues values, bool may_add);  // growing_ is held
  Entry* add(size_t bucket, std::vector<std::string> label_values);

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
  explicit Family(Description description);
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
  Counter(std::string name, std::string help, std::vector<std::string> labels = {}, Layer layer = Layer::kService);
};

class Gauge : public Family<Value> {
 public:
  Gauge(std::string name, std::string help, std::vector<std::string> labels = {}, Layer layer = Layer::kService);
};

// Exported in the classic form (these bounds) and in the native one (distribution.h).
class Histogram : public Family<Distribution> {
 public:
  Histogram(std::string name, std::string help, std::vector<double> bounds, std::vector<std::string> labels = {},
            Layer layer = Layer::kService);
};

// count bounds, each factor times the one before: exponential_bounds(0.001, 2, 14).
std::vector<double> exponential_bounds(double first, double factor, int count);

}  // namespace spillway::metrics
