// SpanExporter: sends a span of each answered generation to an OpenTelemetry collector (OTLP over HTTP, JSON), with the
// GenAI semantic conventions' names. Recording never waits: spans that come faster than they are sent are dropped and
// counted. Has a thread of its own.
#pragma once

#include <condition_variable>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "base/clock.h"
#include "net/http_client.h"
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
  Duration interval = std::chrono::seconds(2);
};

class SpanExporter final : public RequestSink {
 public:
  explicit SpanExporter(SpanExporterOptions options);
  ~SpanExporter() override;  // sends what waits, once

  void record(const RequestRecord& request) override;

 private:
  void run();
  void send(const std::vector<RequestRecord>& spans);

  const SpanExporterOptions options_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<RequestRecord> waiting_;
  bool stopping_ = false;
  std::thread thread_;
};

// The body of one export request.
std::string otlp_json(const std::vector<RequestRecord>& spans, const SpanExporterOptions& options);

}  // namespace spillway::telemetry
