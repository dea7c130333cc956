#include "telemetry/outlets/recorder.h"

#include <sys/resource.h>
#include <time.h>

#include <algorithm>
#include <chrono>

#include "base/log.h"
#include "metrics/metrics.h"

namespace spillway::telemetry {
namespace {

metrics::Counter sampling_seconds("spillway_telemetry_sampling_cpu_seconds_total",
                                  "Processor time that readings took, spooling included.");
metrics::Counter readings_total(
    "spillway_telemetry_readings_total",
    "Readings taken for the outlets. Itself a point of each, so that a receiver can tell that "
    "none is missing: the values follow one another.");
metrics::Counter lost_total("spillway_telemetry_points_lost_total",
                            "Points that were lost because the disk took none (disk).", {"reason"});
metrics::Gauge waiting_bytes("spillway_telemetry_waiting_bytes", "Points in memory that the disk did not take yet.");

double thread_cpu_s() {
  timespec now{};
  ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return double(now.tv_sec) + double(now.tv_nsec) * 1e-9;
}

int64_t unix_ms() {
  return std::chrono::duration_cast<std::chrono::milliseconds>(std::chrono::system_clock::now().time_since_epoch())
      .count();
}

}  // namespace

Result<std::unique_ptr<Recorder>> Recorder::start(RecorderOptions options) {
  std::unique_ptr<Recorder> recorder(new Recorder(std::move(options)));
  if (!recorder->options_.outlets.empty()) {
    std::vector<std::string> readers;
    for (const OutletOptions& outlet : recorder->options_.outlets) readers.push_back(outlet.name);
    SW_ASSIGN(recorder->spool_, Spool::open(recorder->options_.spool, readers));
    for (const OutletOptions& outlet : recorder->options_.outlets) {
      recorder->outlets_.push_back(std::make_unique<Outlet>(outlet, *recorder->spool_));
    }
  }
  recorder->thread_ = std::thread([raw = recorder.get()] { raw->run(); });
  return recorder;
}

Recorder::~Recorder() {
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_all();
  if (thread_.joinable()) thread_.join();
}

void Recorder::run() {
  ::setpriority(PRIO_PROCESS, 0, 10);  // of this thread: serving goes first
  TimePoint next = std::chrono::steady_clock::now();
  for (bool last = false; !last;) {
    sample();
    next = std::max(next + options_.interval, std::chrono::steady_clock::now());
    std::unique_lock lock(mutex_);
    last = changed_.wait_until(lock, next, [this] { return stopping_; });
  }
  sample();
}

void Recorder::sample() {
  const double start = thread_cpu_s();
  for (const auto& sampler : options_.samplers) sampler();
  if (spool_ != nullptr) {
    readings_total->add();
    last_ms_ = std::max(last_ms_ + 1, unix_ms());  // also when the clock is set back while running
    for (const PointBatch& batch : read_points(last_ms_, options_.batch_points_max)) {
      store(encode(batch), batch.points.size());
    }
    append_waiting();
    publish(*spool_, "points");
    waiting_bytes->set(double(waiting_bytes_));
    for (const auto& outlet : outlets_) outlet->wake();
  }
  sampling_seconds->add(thread_cpu_s() - start);
}

void Recorder::store(std::string record, size_t points) {
  waiting_bytes_ += record.size();
  waiting_.push_back({std::move(record), points});
  while (waiting_bytes_ > options_.waiting_bytes_max) {
    append_waiting();
    if (waiting_bytes_ <= options_.waiting_bytes_max) return;
    lost_total.with({"disk"}).add(double(waiting_.front().points));
    waiting_bytes_ -= waiting_.front().record.size();
    waiting_.pop_front();
  }
}

void Recorder::append_waiting() {
  while (!waiting_.empty()) {
    const Status appended = spool_->append(waiting_.front().record);
    if (!appended.ok()) {
      if (!std::exchange(disk_failed_, true)) {
        SW_WARN("telemetry: {}; points wait in memory, up to {} bytes", appended.error().message,
                options_.waiting_bytes_max);
      }
      return;
    }
    waiting_bytes_ -= waiting_.front().record.size();
    waiting_.pop_front();
  }
  if (std::exchange(disk_failed_, false)) SW_WARN("telemetry: the disk takes points again");
}

}  // namespace spillway::telemetry
