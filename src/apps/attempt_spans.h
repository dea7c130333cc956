// AttemptSpans: tells the span exporter of the gateway's attempts, each a span below that of its request. The request's
// own span is the server's. Owned by the command, outlives the gateway; any thread.
#pragma once

#include "gateway/span_sink.h"
#include "telemetry/span_exporter.h"

namespace spillway::apps {

class AttemptSpans final : public gateway::SpanSink {
 public:
  explicit AttemptSpans(telemetry::RequestSink& spans) : spans_(spans) {}
  void record(gateway::RequestSpan span) override;

 private:
  telemetry::RequestSink& spans_;
};

}  // namespace spillway::apps
