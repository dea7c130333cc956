// Any bytes as a safetensors file: an error or ranges inside the file, never a crash.
#include <cstdlib>

#include "weights/safetensors_header.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto entries = spillway::weights::parse_header({reinterpret_cast<const std::byte*>(data), size}, size);
  if (!entries.ok()) return 0;
  for (const auto& entry : *entries) {
    if (entry.begin > entry.end || entry.end > size) std::abort();
  }
  return 0;
}
