// The status line and header fields of a response, as bytes. No I/O.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "net/http_message.h"

namespace spillway::net {

struct ResponseFraming {
  std::optional<uint64_t> content_length;
  bool chunked = false;
  bool close = false;
  bool http_1_0 = false;  // then a connection that stays open must say so
};

// Adds Date, Content-Length or Transfer-Encoding, and Connection; such fields of the caller's are dropped. Control
// characters in values become spaces, so that no value can begin a field of its own.
std::string response_head(int status, const Headers& headers, const ResponseFraming& framing);

bool has_no_body(int status);  // 1xx, 204, 304

}  // namespace spillway::net
