#include "apps/attempt_spans.h"

#include <algorithm>
#include <chrono>

namespace spillway::apps {

void AttemptSpans::record(gateway::RequestSpan span) {
  for (size_t i = 0; i < span.attempts.size(); ++i) {
    const gateway::AttemptSpan& attempt = span.attempts[i];
    const bool answered = attempt.result == "ok";
    telemetry::RequestRecord record;
    record.id = span.request_id;
    record.trace.trace_id = span.trace.trace_text();
    record.trace.span_id = gateway::hex_text(attempt.span_id.data(), attempt.span_id.size());
    record.trace.parent_id = gateway::hex_text(span.trace.parent_id.data(), span.trace.parent_id.size());
    record.trace.sampled = span.trace.sampled;
    record.operation = span.operation;
    record.model = span.request_model;
    record.tenant = span.tenant;
    record.upstream = attempt.upstream;
    record.provider = attempt.provider;
    record.outcome = attempt.result;
    record.status = attempt.status;
    record.started_unix_ns =
        std::chrono::duration_cast<std::chrono::nanoseconds>(attempt.began.time_since_epoch()).count();
    record.duration_s = std::chrono::duration<double>(attempt.ended - attempt.began).count();
    if (answered) {
      record.answered_by = span.response_model;
      record.finish_reason = span.finish_reason;
      record.first_token_s = span.first_token_s;
      record.prompt_tokens = std::max<int64_t>(0, span.input_tokens);
      record.cached_tokens = std::max<int64_t>(0, span.cached_tokens);
      record.output_tokens = std::max<int64_t>(0, span.output_tokens);
    }
    spans_.record(record);
  }
}

}  // namespace spillway::apps
