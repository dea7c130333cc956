#include "telemetry/trace_context.h"

#include <algorithm>

#include "base/random_bytes.h"

namespace spillway::telemetry {
namespace {

bool is_hex(std::string_view text) {
  return std::ranges::all_of(text, [](char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'); });
}

bool is_zero(std::string_view text) { return text.find_first_not_of('0') == std::string_view::npos; }

}  // namespace

std::string TraceContext::traceparent() const { return "00-" + trace_id + "-" + span_id + (sampled ? "-01" : "-00"); }

TraceContext trace_context(std::string_view header) {
  // version-trace-span-flags; a later version may have more behind a further dash.
  TraceContext context;
  const bool shaped = header.size() >= 55 && header[2] == '-' && header[35] == '-' && header[52] == '-';
  if (shaped) {
    const std::string_view version = header.substr(0, 2), trace = header.substr(3, 32), span = header.substr(36, 16),
                           flags = header.substr(53, 2);
    const bool ended = header.size() == 55 || (version != "00" && header[55] == '-');
    if (is_hex(version) && version != "ff" && is_hex(trace) && is_hex(span) && is_hex(flags) && ended &&
        !is_zero(trace) && !is_zero(span)) {
      context.trace_id = trace;
      context.parent_id = span;
      context.sampled = ((flags[1] >= 'a' ? flags[1] - 'a' + 10 : flags[1] - '0') & 1) != 0;
    }
  }
  if (context.trace_id.empty()) context.trace_id = random_hex(16);
  context.span_id = random_hex(8);
  return context;
}

}  // namespace spillway::telemetry
