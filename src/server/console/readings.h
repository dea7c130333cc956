// What the sampler reads from elsewhere: rates of counters in the registry, metrics of a layer as JSON, the processors.
// The sampler's thread.
#pragma once

#include <boost/json/array.hpp>
#include <map>
#include <string>
#include <string_view>

#include "base/clock.h"
#include "metrics/metrics.h"

namespace spillway::server {

// Sum of all series of a counter or gauge; 0 where no such metric is declared.
double metric_total(std::string_view name);

// Increases a second of counters between two calls of update().
class CounterRates {
 public:
  void update(TimePoint now);
  double per_s(std::string_view name);  // the counter is followed from its first use on

 private:
  struct Followed {
    double last = 0;
    double rate = 0;
  };
  std::map<std::string, Followed, std::less<>> followed_;
  TimePoint updated_;
};

// Every series of the layer's counters and gauges, and the mean of histograms: [{name, unit, help, labels, value}], at
// most kReadingsMax.
inline constexpr size_t kReadingsMax = 400;
boost::json::array layer_readings(metrics::Layer layer);

// Use of the processors since the update before, 0..1 of all of them.
class HostCpu {
 public:
  void update();
  double busy() const { return busy_; }
  double own() const { return own_; }  // of it, this process
  int processors() const { return processors_; }

 private:
  double busy_ = 0, own_ = 0;
  int processors_ = 1;
  double total_before_ = 0, idle_before_ = 0, own_before_ = 0;
};

}  // namespace spillway::server
