// The process's list of metrics. Built on first use and never destroyed, so that a metric may be declared in any
// translation unit. Not for callers: they declare a Counter, Gauge or Histogram.
#pragma once

#include <mutex>
#include <vector>

#include "metrics/metrics.h"

namespace spillway::metrics {

class Registry {
 public:
  static Registry& instance();
  void add(std::unique_ptr<Exported> metric);  // a name declared twice, or one Prometheus refuses, is a bug
  std::vector<const Exported*> sorted() const;

 private:
  mutable std::mutex mutex_;
  std::vector<std::unique_ptr<Exported>> metrics_;
};

}  // namespace spillway::metrics
