// Recorder: takes a reading of everything at even intervals: hardware into metrics, metrics into points, points into
// the spool, from which outlets send them. A disk that is full or slow holds up the recorder's thread and nobody else;
// what does not fit waits in memory, up to a bound.
#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "base/clock.h"
#include "telemetry/outlets/outlet.h"
#include "telemetry/outlets/spool.h"

namespace spillway::telemetry {

struct RecorderOptions {
  Duration interval = std::chrono::seconds(10);
  std::vector<std::function<void()>> samplers;  // called at each interval, before points are read
  SpoolOptions spool;                           // used when there are outlets
  std::vector<OutletOptions> outlets;
  size_t batch_points_max = 5000;
  uint64_t waiting_bytes_max = 16 << 20;  // in memory, while the disk takes nothing
};

class Recorder {
 public:
  static Result<std::unique_ptr<Recorder>> start(RecorderOptions options);
  ~Recorder();  // takes a last reading, so that a stop loses nothing

 private:
  explicit Recorder(RecorderOptions options) : options_(std::move(options)) {}
  void run();
  void sample();
  void store(std::string record, size_t points);
  void append_waiting();

  struct Waiting {
    std::string record;
    size_t points = 0;
  };

  const RecorderOptions options_;
  std::unique_ptr<Spool> spool_;
  std::vector<std::unique_ptr<Outlet>> outlets_;  // after the spool
  std::deque<Waiting> waiting_;                   // the recorder's thread
  uint64_t waiting_bytes_ = 0;
  int64_t last_ms_ = 0;
  bool disk_failed_ = false;
  std::mutex mutex_;
  std::condition_variable changed_;
  bool stopping_ = false;
  std::thread thread_;
};

}  // namespace spillway::telemetry
