// The telemetry of a running server, put together from the configuration: outcomes, objectives, spans, readings of the
// hardware, outlets. Made before the server, which it outlives.
#pragma once

#include <memory>

#include "base/result.h"
#include "config/config.h"
#include "server/server.h"
#include "telemetry/hardware/gpu_faults.h"
#include "telemetry/objectives.h"
#include "telemetry/outcomes/outcomes.h"
#include "telemetry/outlets/recorder.h"
#include "telemetry/span_exporter.h"

namespace spillway::apps {

class TelemetryParts {
 public:
  static Result<std::unique_ptr<TelemetryParts>> make(const config::Config& config);

  // Before the server starts: who hears of its requests.
  void attach(server::ServerOptions& options);
  // Begins to read and to send.
  Status start(const config::Config& config);
  telemetry::SpanExporter* spans() const { return spans_.get(); }  // null: off

 private:
  std::unique_ptr<telemetry::Outcomes> outcomes_;  // null: off
  telemetry::Objectives objectives_;
  std::unique_ptr<telemetry::SpanExporter> spans_;  // null: off
  std::shared_ptr<telemetry::GpuFaults> faults_;
  telemetry::RecorderOptions recording_;
  std::unique_ptr<telemetry::Recorder> recorder_;  // last: it reads the others

  explicit TelemetryParts(telemetry::ObjectiveOptions objective) : objectives_(objective) {}
};

}  // namespace spillway::apps
