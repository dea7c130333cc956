// Points: what all series held at one moment, as it is kept in the spool and sent to outlets. One value a series, so
// that sending a batch twice changes nothing at its receiver. Plain values.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/result.h"

namespace spillway::telemetry {

struct Point {
  std::string name;                                         // a Prometheus sample's: "..._bucket", "..._sum" included
  std::vector<std::pair<std::string, std::string>> labels;  // sorted by name
  double value = 0;
};

struct PointBatch {
  int64_t time_ms = 0;  // since the epoch
  std::vector<Point> points;
};

// Every series of the registry as it is now, in batches of at most points_max.
std::vector<PointBatch> read_points(int64_t time_ms, size_t points_max);

// For the spool: compressed, and read back exactly. Broken bytes are an error.
std::string encode(const PointBatch& batch);
Result<PointBatch> decode(std::string_view bytes);

// The batch in the form of an outlet.
std::string influx_lines(const PointBatch& batch);              // InfluxDB line protocol, times in milliseconds
std::string remote_write(std::span<const PointBatch> batches);  // a Prometheus WriteRequest, compressed with snappy

}  // namespace spillway::telemetry
