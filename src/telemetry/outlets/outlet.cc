#include "telemetry/outlets/outlet.h"

#include <algorithm>
#include <chrono>

#include "base/log.h"
#include "metrics/metrics.h"
#include "telemetry/outlets/span_record.h"

namespace spillway::telemetry {
namespace {

metrics::Counter points_total("spillway_telemetry_points_total",
                              "Points (of the outlet otlp: spans) by outlet and what its receiver said of them.",
                              {"outlet", "result"});
metrics::Counter tries_total("spillway_telemetry_failed_sends_total", "Sends that will be tried again.", {"outlet"});
metrics::Gauge lag_seconds("spillway_telemetry_lag_seconds",
                           "Age of the oldest points or spans that wait to be sent; 0: none wait.", {"outlet"});
metrics::Counter damaged_total("spillway_telemetry_spool_damaged_total", "Records of the spool that could not be read.",
                               {"outlet"});

constexpr Duration kIdle = std::chrono::seconds(1);
constexpr double kPointsMax = 5000;         // in a request of several records, as receivers advise
constexpr uint64_t kPeekBytes = 128 << 10;  // of the spool at once: compressed, some thousands of points

int64_t unix_ms() {
  return std::chrono::duration_cast<std::chrono::milliseconds>(std::chrono::system_clock::now().time_since_epoch())
      .count();
}

// Whether trying again may help: the receiver is down or full, or an operator can put it right (key, database).
bool is_worth_again(int status) {
  return status >= 500 || status == 401 || status == 403 || status == 404 || status == 408 || status == 429;
}

}  // namespace

Outlet::Outlet(OutletOptions options, Spool& spool)
    : options_(std::move(options)), spool_(spool), thread_([this] { run(); }) {}

Outlet::~Outlet() {
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

void Outlet::wake() {
  {
    std::lock_guard lock(mutex_);
    news_ = true;
  }
  changed_.notify_all();
}

void Outlet::wait(Duration time) {
  std::unique_lock lock(mutex_);
  changed_.wait_for(lock, time, [this] { return stopping_; });
}

void Outlet::run() {
  for (;;) {
    {
      std::lock_guard lock(mutex_);
      if (stopping_) return;
      news_ = false;
    }
    if (send_next()) continue;
    if (pause_ > Duration::zero()) {
      wait(pause_);
      continue;
    }
    std::unique_lock lock(mutex_);
    changed_.wait_for(lock, kIdle, [this] { return stopping_ || news_; });
  }
}

bool Outlet::send_next() {
  auto records = spool_.peek_some(options_.name, alone_ > 0 ? 1 : kPeekBytes);
  if (!records.ok()) {
    SW_WARN("telemetry {}: {}", options_.name, records.error().message);
    pause_ = options_.retry_max;
    return false;
  }
  if (records->empty()) {
    lag_seconds.with({options_.name}).set(0);
    pause_ = {};
    return false;
  }
  auto shipment = pack(*records);
  Sent sent = Sent::kRejected;
  size_t taken = 1;
  if (shipment.ok()) {
    taken = shipment->records;
    lag_seconds.with({options_.name}).set(std::max(0.0, double(unix_ms() - shipment->time_ms) / 1000));
    if (const Duration early = free_at_ - std::chrono::steady_clock::now(); early > Duration::zero()) wait(early);
    sent = send(*shipment);
    free_at_ = std::chrono::steady_clock::now() + from_seconds(shipment->items / options_.points_per_s_max);
    if (sent == Sent::kRejected && taken > 1) {
      alone_ = taken;  // only what is wrong shall be lost
      return true;
    }
    if (sent != Sent::kAgain) {
      points_total.with({options_.name, sent == Sent::kDone ? "accepted" : "rejected"}).add(shipment->items);
    }
  } else {
    SW_WARN("telemetry {}: {}", options_.name, shipment.error().message);
    damaged_total.with({options_.name}).add();
  }
  if (sent == Sent::kAgain) {
    tries_total.with({options_.name}).add();
    pause_ = std::clamp(pause_ * 2, options_.retry_min, options_.retry_max);
    return false;
  }
  pause_ = {};
  alone_ -= std::min(alone_, taken);
  if (const auto moved = spool_.advance(options_.name, (*records)[taken - 1].next); !moved.ok()) {
    // The cursor on disk is behind: after a restart these points are sent once more, which changes nothing.
    SW_WARN("telemetry {}: {}", options_.name, moved.error().message);
  }
  return true;
}

Result<Outlet::Shipment> Outlet::pack(const std::vector<Spool::Record>& records) const {
  Shipment shipment;
  net::ClientRequest& request = shipment.request;
  request.method = "POST";
  request.url = options_.url;
  request.headers = options_.headers;
  request.response_timeout = request.read_timeout = std::chrono::seconds(30);
  if (options_.form == OutletOptions::Form::kSpans) {
    SW_ASSIGN(SpanRecord spans, decode_spans(records.front().payload));
    request.headers.set("Content-Type", "application/json");
    request.body = std::move(spans.body);
    shipment.items = double(spans.spans);
    shipment.time_ms = spans.time_ms;
    shipment.records = 1;
    return shipment;
  }
  SW_TRY(pack_points(records, shipment));
  return shipment;
}

Status Outlet::pack_points(const std::vector<Spool::Record>& records, Shipment& shipment) const {
  std::vector<PointBatch> batches;
  for (const Spool::Record& record : records) {
    auto batch = decode(record.payload);
    if (!batch.ok() && batches.empty()) return std::move(batch).error();
    const bool fits = batch.ok() && (batches.empty() || shipment.items + double(batch->points.size()) <= kPointsMax);
    if (!fits) break;  // goes with the next request, or is told to be damaged then
    shipment.items += double(batch->points.size());
    batches.push_back(std::move(*batch));
  }
  shipment.records = batches.size();
  shipment.time_ms = batches.front().time_ms;
  net::ClientRequest& request = shipment.request;
  if (options_.form == OutletOptions::Form::kInfluxLines) {
    request.headers.set("Content-Type", "text/plain; charset=utf-8");
    for (const PointBatch& batch : batches) request.body += influx_lines(batch);
  } else {
    request.headers.set("Content-Type", "application/x-protobuf");
    request.headers.set("Content-Encoding", "snappy");
    request.headers.set("X-Prometheus-Remote-Write-Version", "0.1.0");
    request.headers.set("User-Agent", "spillway");
    request.body = remote_write(batches);
  }
  return {};
}

Outlet::Sent Outlet::send(Shipment& shipment) {
  if (shipment.request.body.empty()) return Sent::kDone;
  const auto answer = net::fetch_blocking(std::move(shipment.request), options_.client);
  const bool accepted = answer.ok() && answer->status / 100 == 2;
  if (accepted) {
    if (std::exchange(was_down_, false)) SW_WARN("telemetry {}: the receiver answers again", options_.name);
    return Sent::kDone;
  }
  const std::string why = answer.ok() ? "status " + std::to_string(answer->status) + ": " + answer->body.substr(0, 200)
                                      : answer.error().message;
  if (answer.ok() && !is_worth_again(answer->status)) {
    SW_WARN("telemetry {}: {} of them were refused: {}", options_.name, shipment.items, why);
    return Sent::kRejected;
  }
  if (!std::exchange(was_down_, true)) {
    SW_WARN("telemetry {}: {}; what there is waits in the spool until it answers", options_.name, why);
  }
  return Sent::kAgain;
}

}  // namespace spillway::telemetry
