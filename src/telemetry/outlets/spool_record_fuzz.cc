// What an outlet reads back from the spool: points and spans. A disk may hold anything.
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "base/check.h"
#include "telemetry/outlets/points.h"
#include "telemetry/outlets/span_record.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace spillway::telemetry;
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  if (const auto points = decode(bytes); points.ok()) {
    const auto again = decode(encode(*points));
    SW_CHECK(again.ok() && again->points.size() == points->points.size(), "points are not read back");
    (void)influx_lines(*points);
    (void)remote_write({&*points, 1});
  }
  if (const auto spans = decode_spans(bytes); spans.ok()) {
    const auto again = decode_spans(encode(*spans));
    SW_CHECK(again.ok() && again->body == spans->body && again->spans == spans->spans, "spans are not read back");
  }
  return 0;
}
