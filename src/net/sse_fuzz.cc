#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "base/check.h"
#include "net/sse.h"

namespace {

std::string read(std::string_view bytes, size_t cut) {
  spillway::net::SseParser parser(4096);
  std::string log;
  const auto on_event = [&](const spillway::net::SseEvent& event) {
    SW_CHECK(event.data.size() <= 4096, "event over its bound");
    log += (event.is_comment ? "#" : "") + event.event + "|" + event.id + "|" + event.data + "\n";
  };
  while (!bytes.empty()) {
    if (!parser.feed(bytes.substr(0, cut), on_event).ok()) return log + "!";
    bytes.remove_prefix(std::min(cut, bytes.size()));
  }
  return log;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0 || size > 1 << 16) return 0;
  const std::string_view bytes(reinterpret_cast<const char*>(data) + 1, size - 1);
  SW_CHECK(read(bytes, bytes.size() + 1) == read(bytes, 1 + data[0] % 32), "the cut of the stream changed its meaning");
  return 0;
}
