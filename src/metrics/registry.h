// The process's list of metrics. Built on first use and never destroyed, so that a metric may be declared in any
// translation unit. Code that records declares a Counter, Gauge or Histogram; what exports, stores or shows metrics
// reads them here: for (const Exported* metric : Registry::instance().sorted()) metric->read(...).
#pragma once

#include <memory>
#include <mutex>
#include <string_view>
#include <vector>

#include "metrics/metrics.h"

namespace spillway::metrics {

class Registry {
 public:
  static Registry& instance();
  void add(std::unique_ptr<Exported> metric);         // a name declared twice, or one Prometheus refuses, is a bug
  std::vector<const Exported*> sorted() const;        // by name; those of the process are read anew
  const Exported* find(std::string_view name) const;  // nullptr where there is none

 private:
  mutable std::mutex mutex_;
  std::vector<std::unique_ptr<Exported>> metrics_;
};

}  // namespace spillway::metrics
