// W3C trace context: which trace a request belongs to. Read from the traceparent header, or begun here. Plain values.
#pragma once

#include <string>
#include <string_view>

namespace spillway::telemetry {

struct TraceContext {
  std::string trace_id;   // 32 hexadecimal digits, not all zero
  std::string span_id;    // 16: of this server's span
  std::string parent_id;  // 16: of the caller's span; empty where the trace began here
  bool sampled = true;

  std::string traceparent() const;  // to hand on: this span as the parent
};

// From the header where it is valid, with a span of its own; else a new trace.
TraceContext trace_context(std::string_view traceparent);

}  // namespace spillway::telemetry
