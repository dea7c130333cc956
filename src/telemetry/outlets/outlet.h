// Outlet: sends what the spool holds to one receiver, in order, at a limited rate, again and again until the receiver
// has it. What was sent twice because an answer was lost is the same series at the same time, which receivers keep
// once. Has a thread of its own; the spool outlives it.
#pragma once

#include <atomic>
#include <condition_variable>
#include <mutex>
#include <string>
#include <thread>

#include "base/clock.h"
#include "net/http_client.h"
#include "telemetry/outlets/points.h"
#include "telemetry/outlets/spool.h"

namespace spillway::telemetry {

struct OutletOptions {
  std::string name;  // "influxdb", "remote_write", "otlp": of its cursor and in metrics
  // What the spool holds and how it is sent: points as lines or as a WriteRequest, spans as OTLP's JSON.
  enum class Form { kInfluxLines, kRemoteWrite, kSpans } form = Form::kInfluxLines;
  net::Url url;          // with the path and query of writes
  net::Headers headers;  // Authorization and the like
  net::ClientOptions client;
  double points_per_s_max = 50000;
  Duration retry_min = std::chrono::milliseconds(500);
  Duration retry_max = std::chrono::seconds(30);
};

class Outlet {
 public:
  Outlet(OutletOptions options, Spool& spool);
  ~Outlet();    // stops; what was not sent stays in the spool
  void wake();  // there is something new

 private:
  enum class Sent { kDone, kRejected, kAgain };
  void run();
  bool send_next();  // false: nothing there, or not to be had now
  // Records of the spool as one request.
  struct Shipment {
    net::ClientRequest request;
    double items = 0;  // points or spans in it
    int64_t time_ms = 0;
    size_t records = 0;  // that it holds, from the first on
  };
  // The first, and further ones where the form lets several go together.
  Result<Shipment> pack(const std::vector<Spool::Record>& records) const;
  Status pack_points(const std::vector<Spool::Record>& records, Shipment& shipment) const;
  Sent send(Shipment& shipment);
  void wait(Duration time);

  const OutletOptions options_;
  Spool& spool_;
  std::mutex mutex_;
  std::condition_variable changed_;
  bool news_ = false;      // under mutex_
  bool stopping_ = false;  // under mutex_
  bool was_down_ = false;  // has been logged
  size_t alone_ = 0;       // so many records go one by one, since a request of several was refused
  Duration pause_{};       // before the next try
  TimePoint free_at_{};    // when the rate allows the next batch
  std::thread thread_;     // last
};

}  // namespace spillway::telemetry
