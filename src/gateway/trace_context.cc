#include "gateway/trace_context.h"

#include <algorithm>
#include <cstring>

#include "base/random_bytes.h"

namespace spillway::gateway {
namespace {

constexpr size_t kLength = 55;  // of version 00: "00-" 32 "-" 16 "-" 2

uint64_t random_bits() {
  uint64_t bits = 0;
  random_bytes(&bits, sizeof bits);
  return bits;
}

int digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  return -1;  // capitals are not allowed in a traceparent
}

template <size_t N>
bool read_hex(std::string_view text, std::array<uint8_t, N>& out) {
  for (size_t i = 0; i < N; ++i) {
    const int high = digit(text[2 * i]), low = digit(text[2 * i + 1]);
    if (high < 0 || low < 0) return false;
    out[i] = uint8_t(high << 4 | low);
  }
  return true;
}

template <size_t N>
bool all_zero(const std::array<uint8_t, N>& bytes) {
  return std::ranges::all_of(bytes, [](uint8_t b) { return b == 0; });
}

}  // namespace

std::string hex_text(const uint8_t* bytes, size_t size) {
  std::string out(size * 2, '0');
  write_hex(bytes, size, out.data());
  return out;
}

std::array<uint8_t, 8> random_span_id() {
  const uint64_t bits = random_bits() | 1;  // all zeros means none
  std::array<uint8_t, 8> id;
  std::memcpy(id.data(), &bits, id.size());
  return id;
}

std::string TraceContext::trace_text() const { return hex_text(trace_id.data(), trace_id.size()); }

std::string TraceContext::header(const std::array<uint8_t, 8>& span) const {
  return "00-" + trace_text() + "-" + hex_text(span.data(), span.size()) + (sampled ? "-01" : "-00");
}

std::optional<TraceContext> continue_trace(std::string_view text) {
  // Later versions may be longer and begin alike; version ff is none.
  if (text.size() < kLength || (text.size() > kLength && (text.starts_with("00") || text[kLength] != '-')))
    return std::nullopt;
  if (text[2] != '-' || text[35] != '-' || text[52] != '-' || text.starts_with("ff")) return std::nullopt;
  TraceContext context;
  std::array<uint8_t, 1> version, flags;
  const bool read = read_hex(text.substr(0, 2), version) && read_hex(text.substr(3, 32), context.trace_id) &&
                    read_hex(text.substr(36, 16), context.parent_id) && read_hex(text.substr(53, 2), flags);
  if (!read || all_zero(context.trace_id) || all_zero(context.parent_id)) return std::nullopt;
  context.sampled = (flags[0] & 1) != 0;
  context.span_id = random_span_id();
  return context;
}

TraceContext begin_trace() {
  TraceContext context;
  for (size_t half = 0; half < 2; ++half) {
    const uint64_t bits = random_bits() | 1;
    std::memcpy(context.trace_id.data() + 8 * half, &bits, 8);
  }
  context.span_id = random_span_id();
  return context;
}

}  // namespace spillway::gateway
