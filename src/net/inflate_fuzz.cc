// Any bytes as a packed body: an error, or at most as much as was allowed.
#include <cstddef>
#include <cstdint>

#include "base/check.h"
#include "net/inflate.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  constexpr size_t kMax = 1 << 16;
  const auto out = spillway::net::inflate({reinterpret_cast<const char*>(data), size}, kMax);
  SW_CHECK(!out.ok() || out->size() <= kMax, "more than was allowed");
  return 0;
}
