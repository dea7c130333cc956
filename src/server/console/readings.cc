#include "server/console/readings.h"

#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <boost/json/object.hpp>
#include <fstream>

#include "metrics/registry.h"

namespace spillway::server {
namespace {

namespace json = boost::json;

json::object labels_of(const metrics::Description& description, const std::vector<std::string>& values) {
  json::object labels;
  for (size_t i = 0; i < values.size() && i < description.labels.size(); ++i) labels[description.labels[i]] = values[i];
  return labels;
}

}  // namespace

double metric_total(std::string_view name) {
  const metrics::Exported* metric = metrics::Registry::instance().find(name);
  double total = 0;
  if (metric != nullptr) metric->read([&](const metrics::Reading& reading) { total += reading.value; });
  return total;
}

void CounterRates::update(TimePoint now) {
  const double elapsed = seconds(now - updated_);
  for (auto& [name, followed] : followed_) {
    const double total = metric_total(name);
    followed.rate = elapsed > 0 ? std::max(0.0, total - followed.last) / elapsed : 0;
    followed.last = total;
  }
  updated_ = now;
}

double CounterRates::per_s(std::string_view name) {
  auto found = followed_.find(name);
  if (found == followed_.end()) found = followed_.emplace(std::string(name), Followed{metric_total(name), 0}).first;
  return found->second.rate;
}

json::array layer_readings(metrics::Layer layer) {
  json::array out;
  for (const metrics::Exported* metric : metrics::Registry::instance().sorted()) {
    const metrics::Description& description = metric->description();
    if (description.layer != layer) continue;
    metric->read([&](const metrics::Reading& reading) {
      if (out.size() >= kReadingsMax) return;
      double value = reading.value;
      if (reading.distribution != nullptr) {
        uint64_t count = 0;
        for (const uint64_t n : reading.distribution->counts()) count += n;
        value = count == 0 ? 0 : reading.distribution->sum() / static_cast<double>(count);
      }
      if (!(value == value)) return;  // not known: JSON has no "not a number"
      out.push_back(json::object{{"name", description.name},
                                 {"kind", metrics::name_of(description.kind)},
                                 {"unit", description.unit},
                                 {"help", description.help},
                                 {"labels", labels_of(description, reading.label_values)},
                                 {"value", value}});
    });
  }
  return out;
}

void HostCpu::update() {
  std::ifstream stat("/proc/stat");
  std::string name;
  stat >> name;
  double total = 0, idle = 0, value = 0;
  for (int field = 0; field < 8 && stat >> value; ++field) {
    total += value;
    if (field == 3 || field == 4) idle += value;  // idle, waiting for disks
  }
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  const auto time = [](const timeval& t) {
    return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_usec) / 1e6;
  };
  const double own = (time(usage.ru_utime) + time(usage.ru_stime)) * static_cast<double>(sysconf(_SC_CLK_TCK));
  processors_ = std::max(1, static_cast<int>(sysconf(_SC_NPROCESSORS_ONLN)));
  const double passed = total - total_before_;
  if (total_before_ > 0 && passed > 0) {
    busy_ = std::clamp(1 - (idle - idle_before_) / passed, 0.0, 1.0);
    own_ = std::clamp((own - own_before_) / passed, 0.0, busy_);
  }
  total_before_ = total;
  idle_before_ = idle;
  own_before_ = own;
}

}  // namespace spillway::server
