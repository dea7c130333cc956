// SpanExporter: sends a span of each answered generation to an OpenTelemetry collector (OTLP over HTTP, JSON), with the
// GenAI semantic conventions' names. With a folder, spans go into a spool there first, and an outage of the collector
// loses none that fits its bound; without one they wait in memory and are sent once. Recording never waits: spans that
// come faster than they are taken on are dropped and counted. Has a thread of its own.
#pragma once

#include <condition_variable>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "base/clock.h"
#include "net/http_client.h"
#include "telemetry/outlets/outlet.h"
#include "telemetry/outlets/spool.h"
#include "telemetry/request_record.h"

namespace spillway::telemetry {

struct SpanExporterOptions {
  net::Url url;  // the collector's, with /v1/traces
  net::Headers headers;
  net::ClientOptions client;
  std::string service_name = "spillway";
  std::string service_version;
  size_t waiting_max = 8192;
  size_t batch_max = 512;
  Duration interval = std::chrono::seconds(2);  // without a spool: between two sendings
  std::optional<SpoolOptions> spool;
  Duration spool_interval = std::chrono::milliseconds(200);  // what a kill -9 may lose
  double spans_per_s_max = 50000;                            // while a spool is drained
};

class SpanExporter final : public RequestSink {
 public:
  static Result<std::unique_ptr<SpanExporter>> start(SpanExporterOptions options);
  ~SpanExporter() override;  // what waits is sent once, or spooled

  void record(const RequestRecord& request) override;

 private:
  explicit SpanExporter(SpanExporterOptions options) : options_(std::move(options)) {}
  void run();
  void send(const std::vector<RequestRecord>& spans);
  bool store(const std::vector<RequestRecord>& spans);
  void put_back(std::vector<RequestRecord> spans);

  const SpanExporterOptions options_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<RequestRecord> waiting_;
  bool stopping_ = false;
  bool disk_failed_ = false;  // has been logged
  std::unique_ptr<Spool> spool_;
  std::unique_ptr<Outlet> outlet_;  // after the spool
  std::thread thread_;
};

// The body of one export request.
std::string otlp_json(const std::vector<RequestRecord>& spans, const SpanExporterOptions& options);

}  // namespace spillway::telemetry
