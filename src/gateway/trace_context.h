// TraceContext: W3C's traceparent, read from a request or begun here, and made anew for each upstream that is asked, so
// that its spans hang below this gateway's. Value type.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace spillway::gateway {

struct TraceContext {
  std::array<uint8_t, 16> trace_id{};
  std::array<uint8_t, 8> parent_id{};  // the caller's span; zeros: the trace begins here
  std::array<uint8_t, 8> span_id{};    // ours
  bool sampled = true;

  // "00-TRACE-SPAN-FLAGS" with another span of the same trace.
  std::string header(const std::array<uint8_t, 8>& span) const;
  std::string trace_text() const;
};

// The caller's traceparent with a span of our own below it; nothing when it is not well-formed (then it does not
// count).
std::optional<TraceContext> continue_trace(std::string_view traceparent);
TraceContext begin_trace();
std::array<uint8_t, 8> random_span_id();
std::string hex_text(const uint8_t* bytes, size_t size);

}  // namespace spillway::gateway
