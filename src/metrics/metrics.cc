#include "metrics/metrics.h"

#include <algorithm>
#include <functional>

#include "base/check.h"
#include "metrics/registry.h"

namespace spillway::metrics {
namespace {

using LabelValues = std::span<const std::string_view>;

size_t hash_of(LabelValues values) {
  size_t hash = 0;
  for (std::string_view value : values) hash = hash * 31 + std::hash<std::string_view>()(value);
  return hash ^ (hash >> 17);
}

template <class Series>
std::unique_ptr<Series> make_series(const Description& description) {
  if constexpr (std::is_same_v<Series, Distribution>) {
    return std::make_unique<Distribution>(description.bounds);
  } else {
    return std::make_unique<Series>();
  }
}

}  // namespace

Distribution::Distribution(const std::vector<double>& bounds)
    : bounds_(bounds), counts_(new std::atomic<uint64_t>[bounds.size() + 1]()) {}

void Distribution::observe(double value) {
  const auto bound = std::lower_bound(bounds_.begin(), bounds_.end(), value);
  counts_[size_t(bound - bounds_.begin())].fetch_add(1, std::memory_order_relaxed);
  sum_.add(value);
}

std::vector<uint64_t> Distribution::counts() const {
  std::vector<uint64_t> counts(bounds_.size() + 1);
  for (size_t i = 0; i < counts.size(); ++i) counts[i] = counts_[i].load(std::memory_order_relaxed);
  return counts;
}

template <class Series>
SeriesTable<Series>::SeriesTable(Kind kind, Description description)
    : kind_(kind), description_(std::move(description)) {
  // A metric without labels is exported as zero before its first use.
  if (description_.labels.empty()) only_ = add(0, {})->series.get();
}

template <class Series>
Series& SeriesTable<Series>::with(std::initializer_list<std::string_view> label_values) {
  SW_CHECK(label_values.size() == description_.labels.size(), "label values of " + description_.name);
  if (label_values.size() == 0) return *only_.load(std::memory_order_relaxed);
  const LabelValues values(label_values.begin(), label_values.size());
  const size_t bucket = hash_of(values) % kBuckets;
  if (const Entry* entry = find(bucket, values)) return *entry->series;
  std::lock_guard lock(growing_);
  return find_or_add(values, size_ < kSeriesMax);
}

template <class Series>
Series& SeriesTable<Series>::find_or_add(LabelValues values, bool may_add) {
  const size_t bucket = hash_of(values) % kBuckets;
  if (const Entry* entry = find(bucket, values)) return *entry->series;
  if (may_add) return *add(bucket, {values.begin(), values.end()})->series;
  const std::vector<std::string_view> other(values.size(), "other");
  return find_or_add(other, true);
}

template <class Series>
auto SeriesTable<Series>::find(size_t bucket, LabelValues values) const -> const Entry* {
  const Entry* entry = buckets_[bucket].load(std::memory_order_acquire);
  while (entry && !std::ranges::equal(values, entry->label_values)) entry = entry->next;
  return entry;
}

template <class Series>
auto SeriesTable<Series>::add(size_t bucket, std::vector<std::string> label_values) -> Entry* {
  auto* entry = new Entry{std::move(label_values), make_series<Series>(description_), buckets_[bucket].load()};
  buckets_[bucket].store(entry, std::memory_order_release);
  ++size_;
  return entry;
}

template <class Series>
auto SeriesTable<Series>::entries() const -> std::vector<const Entry*> {
  std::vector<const Entry*> all;
  for (const auto& bucket : buckets_) {
    for (const Entry* entry = bucket.load(std::memory_order_acquire); entry; entry = entry->next) all.push_back(entry);
  }
  std::ranges::sort(all, {}, [](const Entry* entry) -> const auto& { return entry->label_values; });
  return all;
}

template <class Series>
static SeriesTable<Series>& register_table(Kind kind, Description description) {
  auto table = std::make_unique<SeriesTable<Series>>(kind, std::move(description));
  SeriesTable<Series>& kept = *table;
  Registry::instance().add(std::move(table));
  return kept;
}

template <class Series>
Family<Series>::Family(Kind kind, Description description)
    : table_(register_table<Series>(kind, std::move(description))) {}

Counter::Counter(std::string name, std::string help, std::vector<std::string> labels)
    : Family(Kind::kCounter, {std::move(name), std::move(help), std::move(labels)}) {}

Gauge::Gauge(std::string name, std::string help, std::vector<std::string> labels)
    : Family(Kind::kGauge, {std::move(name), std::move(help), std::move(labels)}) {}

Histogram::Histogram(std::string name, std::string help, std::vector<double> bounds, std::vector<std::string> labels)
    : Family(Kind::kHistogram, {std::move(name), std::move(help), std::move(labels), std::move(bounds)}) {}

std::vector<double> exponential_bounds(double first, double factor, int count) {
  std::vector<double> bounds;
  for (double bound = first; int(bounds.size()) < count; bound *= factor) bounds.push_back(bound);
  return bounds;
}

template class SeriesTable<Value>;
template class SeriesTable<Distribution>;
template class Family<Value>;
template class Family<Distribution>;

}  // namespace spillway::metrics
