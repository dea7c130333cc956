// What the gateway tells a tracer of each request: one span of the request and one of each attempt, by OpenTelemetry's
// conventions for generative AI. Who exports them implements SpanSink; the gateway only fills in what it knows.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "gateway/trace_context.h"

namespace spillway::gateway {

struct AttemptSpan {
  std::array<uint8_t, 8> span_id{};
  std::string upstream;
  std::string provider;  // gen_ai.provider.name: the kind of that upstream
  std::string result;    // "ok" or the reason of the failure
  int status = 0;
  std::chrono::system_clock::time_point began, ended;
};

struct RequestSpan {
  TraceContext trace;
  std::string operation;       // gen_ai.operation.name: "chat", "text_completion", "embeddings", "rerank"
  std::string provider;        // gen_ai.provider.name: the kind of the upstream that answered
  std::string upstream;        // its name
  std::string request_model;   // gen_ai.request.model
  std::string response_model;  // gen_ai.response.model
  std::string request_id;
  std::string finish_reason;
  std::string tenant;
  int64_t input_tokens = -1;  // gen_ai.usage.*; -1: not told
  int64_t cached_tokens = -1;
  int64_t output_tokens = -1;
  int status = 0;       // of the answer
  std::string outcome;  // "ok" or the error's label: error.type
  std::optional<double> first_token_s;
  std::chrono::system_clock::time_point began, ended;
  std::vector<AttemptSpan> attempts;
};

class SpanSink {
 public:
  virtual ~SpanSink() = default;
  virtual void record(RequestSpan span) = 0;  // must not block
};

}  // namespace spillway::gateway
