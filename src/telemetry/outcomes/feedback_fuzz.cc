// Feedback bodies and traceparent headers of any bytes: parsed or refused, never worse.
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "base/check.h"
#include "telemetry/outcomes/feedback.h"
#include "telemetry/outcomes/journal.h"
#include "telemetry/outcomes/statistics.h"
#include "telemetry/outlets/points.h"
#include "telemetry/trace_context.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace spillway::telemetry;
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  const auto feedback = parse_feedback(bytes);
  if (feedback.ok() && !feedback->grades.empty()) {
    const double quality = ndcg(feedback->grades);
    SW_CHECK(quality >= 0 && quality <= 1.0000001, "nDCG lies between 0 and 1");
  }
  const TraceContext context = trace_context(bytes);
  SW_CHECK(context.trace_id.size() == 32 && context.span_id.size() == 16, "a trace has its ids");
  const auto page = decode_page(bytes);
  if (page.ok()) SW_CHECK(decode_page(encode_page(*page)).ok(), "a page that was read can be written and read");
  const auto points = decode(bytes);
  if (points.ok()) SW_CHECK(decode(encode(*points)).ok(), "what was read can be written and read");
  return 0;
}
