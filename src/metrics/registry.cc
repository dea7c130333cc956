#include "metrics/registry.h"

#include <algorithm>

#include "base/check.h"
#include "metrics/process.h"

namespace spillway::metrics {
namespace {

bool valid_name(std::string_view name, bool colons) {
  if (name.empty() || (name[0] >= '0' && name[0] <= '9')) return false;
  return std::ranges::all_of(name, [&](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' ||
           (colons && c == ':');
  });
}

}  // namespace

Registry& Registry::instance() {
  static Registry& registry = *new Registry;
  return registry;
}

void Registry::add(std::unique_ptr<Exported> metric) {
  const Description& added = metric->description();
  SW_CHECK(valid_name(added.name, true), "metric name " + added.name);
  for (const std::string& label : added.labels) {
    SW_CHECK(valid_name(label, false) && label != "le", "label " + label + " of " + added.name);
  }
  SW_CHECK(std::ranges::adjacent_find(added.bounds, std::greater_equal<>()) == added.bounds.end(),
           "bounds of " + added.name + " must rise");
  SW_CHECK((added.kind == Kind::kCounter) == added.name.ends_with("_total"),
           "a counter, and nothing else, ends in _total: " + added.name);
  std::lock_guard lock(mutex_);
  for (const auto& known : metrics_) {
    SW_CHECK(known->description().name != added.name, "metric declared twice: " + added.name);
  }
  metrics_.push_back(std::move(metric));
}

std::vector<const Exported*> Registry::sorted() const {
  refresh_process();
  std::vector<const Exported*> all;
  {
    std::lock_guard lock(mutex_);
    for (const auto& metric : metrics_) all.push_back(metric.get());
  }
  std::ranges::sort(all, {}, [](const Exported* metric) -> const std::string& { return metric->description().name; });
  return all;
}

const Exported* Registry::find(std::string_view name) const {
  std::lock_guard lock(mutex_);
  for (const auto& metric : metrics_) {
    if (metric->description().name == name) return metric.get();
  }
  return nullptr;
}

}  // namespace spillway::metrics
