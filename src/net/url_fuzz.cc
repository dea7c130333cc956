#include <cstddef>
#include <cstdint>
#include <string_view>

#include "base/check.h"
#include "net/url.h"

// What parses must come to the same when it is written out and parsed again, and can break no request line.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto url = spillway::net::parse_url({reinterpret_cast<const char*>(data), size});
  if (!url.ok()) return 0;
  SW_CHECK(url->target.find_first_of("\r\n ") == std::string::npos, "a target with breaks");
  const auto again = spillway::net::parse_url(url->origin() + url->target);
  SW_CHECK(again.ok() || size > 8000, "what was written does not parse");
  if (again.ok()) SW_CHECK(again->origin() == url->origin() && again->target == url->target, "another URL came back");
  return 0;
}
