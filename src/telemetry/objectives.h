// Objectives: how the service stands against its promise, and quantiles of its latencies over the last minutes, as
// gauges. A RequestSink (any thread) that counts good and bad answers; refresh() is called at even intervals by one
// thread.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <deque>
#include <map>
#include <string>

#include "base/clock.h"
#include "metrics/distribution.h"
#include "telemetry/request_record.h"

namespace spillway::telemetry {

struct ObjectiveOptions {
  double availability = 0.9999;  // share of answers that must be good
  double latency_s = 0;          // an answer's first token (or end) must come within it; 0: no matter
};

class Objectives final : public RequestSink {
 public:
  explicit Objectives(ObjectiveOptions options);

  void record(const RequestRecord& request) override;
  void refresh(TimePoint now);

 private:
  struct Counts {
    TimePoint at;
    uint64_t good = 0, bad = 0;
  };
  void refresh_burn(TimePoint now);
  void refresh_quantiles(TimePoint now);

  const ObjectiveOptions options_;
  std::atomic<uint64_t> good_{0}, bad_{0};
  std::deque<Counts> history_;  // the last day, thinned as it ages
  struct Reading {
    TimePoint at;
    metrics::NativeReading values;
  };
  std::map<std::string, std::deque<Reading>> readings_;  // by histogram
};

}  // namespace spillway::telemetry
