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

std::string_view name_of(Kind kind) {
  switch (kind) {
    case Kind::kCounter:
      return "counter";
    case Kind::kGauge:
      return "gauge";
    case Kind::kHistogram:
      return "histogram";
  }
  return "unknown";
}

std::string_view name_of(Layer layer) {
  switch (layer) {
    case Layer::kHardware:
      return "hardware";
    case Layer::kService:
      return "service";
    case Layer::kBusiness:
      return "business";
  }
  return "unknown";
}

std::string_view unit_in(std::string_view name) {
  constexpr std::string_view kTotal = "_total";
  if (name.ends_with(kTotal)) name.remove_suffix(kTotal.size());
  const std::string_view last = name.substr(name.rfind('_') + 1);
  for (std::string_view unit : {"seconds", "bytes", "ratio", "celsius", "watts", "joules", "hertz", "tokens"}) {
    if (last == unit) return unit;
  }
  return "";
}

template <class Series>
SeriesTable<Series>::SeriesTable(Description description) : description_(std::move(description)) {
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
  std::ranges::sort(
      all, {}, [](const Entry* entry) -> const auto& { return entry->label_values; });
  return all;
}

template <class Series>
void SeriesTable<Series>::read(const std::function<void(const Reading&)>& take) const {
  for (const Entry* entry : entries()) {
    if constexpr (std::is_same_v<Series, Distribution>) {
      take({entry->label_values, 0, entry->series.get()});
    } else {
      take({entry->label_values, entry->series->get()});
    }
  }
}

template <class Series>
static SeriesTable<Series>& register_table(Description description) {
  if (description.unit.empty()) description.unit = unit_in(description.name);
  auto table = std::make_unique<SeriesTable<Series>>(std::move(description));
  SeriesTable<Series>& kept = *table;
  Registry::instance().add(std::move(table));
  return kept;
}

template <class Series>
Family<Series>::Family(Description description) : table_(register_table<Series>(std::move(description))) {}

Counter::Counter(std::string name, std::string help, std::vector<std::string> labels, Layer layer)
    : Family({std::move(name), std::move(help), std::move(labels), {}, Kind::kCounter, layer}) {}

Gauge::Gauge(std::string name, std::string help, std::vector<std::string> labels, Layer layer)
    : Family({std::move(name), std::move(help), std::move(labels), {}, Kind::kGauge, layer}) {}

Histogram::Histogram(std::string name, std::string help, std::vector<double> bounds, std::vector<std::string> labels,
                     Layer layer)
    : Family({std::move(name), std::move(help), std::move(labels), std::move(bounds), Kind::kHistogram, layer}) {}

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
