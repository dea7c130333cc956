// RequestRecord: what is known of a request once its answer has ended: for spans, for joining outcomes to it, for
// objectives. RequestSink: who wants to know. Plain values; a sink is called on I/O threads and returns at once.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "base/clock.h"
#include "telemetry/trace_context.h"

namespace spillway::telemetry {

struct RequestRecord {
  enum class Protocol : uint8_t { kHttp, kGrpc } protocol = Protocol::kHttp;
  std::string id;          // as X-Request-Id
  bool id_is_ours = true;  // false: the client chose it, so others may guess it
  uint64_t caller = 0;     // stands for the key that was presented; 0: none was
  TraceContext trace;
  std::string route;        // "/v1/chat/completions"; of gRPC "/inference.GRPCInferenceService/ModelInfer"
  std::string operation;    // OpenTelemetry's: "chat", "text_completion", "embeddings"; empty: no generation
  std::string model;        // as asked for
  std::string answered_by;  // the model that answered
  std::string version;      // of the model that answered: its fingerprint
  std::string tenant;
  std::string arm;       // of an experiment: X-Experiment-Arm, else the upstream
  std::string upstream;  // of the gateway; empty: answered here
  std::string
      provider;  // of an attempt at an upstream, OpenTelemetry's: "openai", ...; empty: a request to this server
  std::string finish_reason;
  std::string outcome;    // "ok", or the error's label
  std::string predicted;  // the label that a classifier gave
  int status = 0;         // HTTP's; of a gRPC call, the one that stands for its error
  int grpc_code = 0;      // of a gRPC call
  int64_t started_unix_ns = 0;
  double duration_s = 0;
  std::optional<double> first_token_s;
  int64_t prompt_tokens = 0, cached_tokens = 0, output_tokens = 0;
  double cost = 0;  // dollars, as the upstream's price says
};

class RequestSink {
 public:
  virtual ~RequestSink() = default;
  virtual void record(const RequestRecord& request) = 0;
};

}  // namespace spillway::telemetry
