#include "telemetry/outlets/span_record.h"

#include <fmt/format.h>
#include <snappy.h>

#include <cstring>

namespace spillway::telemetry {
namespace {

constexpr size_t kHeadBytes = 16;  // time and count, little-endian
constexpr size_t kUncompressedMax = 64 << 20;

}  // namespace

std::string encode(const SpanRecord& record) {
  std::string plain(kHeadBytes, '\0');
  std::memcpy(plain.data(), &record.time_ms, 8);
  std::memcpy(plain.data() + 8, &record.spans, 8);
  plain += record.body;
  std::string out;
  snappy::Compress(plain.data(), plain.size(), &out);
  return out;
}

Result<SpanRecord> decode_spans(std::string_view bytes) {
  size_t size = 0;
  std::string plain;
  if (!snappy::GetUncompressedLength(bytes.data(), bytes.size(), &size) || size > kUncompressedMax ||
      !snappy::Uncompress(bytes.data(), bytes.size(), &plain)) {
    return corrupt(fmt::format("spans: expected a snappy block of at most {} bytes, found another", kUncompressedMax));
  }
  if (plain.size() < kHeadBytes) {
    return corrupt(fmt::format("spans: expected at least {} bytes in the block, found {}", kHeadBytes, plain.size()));
  }
  SpanRecord record;
  std::memcpy(&record.time_ms, plain.data(), 8);
  std::memcpy(&record.spans, plain.data() + 8, 8);
  record.body = plain.substr(kHeadBytes);
  return record;
}

}  // namespace spillway::telemetry
