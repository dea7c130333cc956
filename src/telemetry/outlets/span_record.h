// SpanRecord: a batch of spans as it is kept in the spool: the body of one export request, and what is told of it.
// Plain values.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/result.h"

namespace spillway::telemetry {

struct SpanRecord {
  int64_t time_ms = 0;  // since the epoch
  uint64_t spans = 0;
  std::string body;  // OTLP's JSON
};

// Compressed, and read back exactly. Broken bytes are an error.
std::string encode(const SpanRecord& record);
Result<SpanRecord> decode_spans(std::string_view bytes);

}  // namespace spillway::telemetry
