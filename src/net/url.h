// http and https URLs. Not for general URIs: no user part, no fragment kept.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/result.h"

namespace spillway::net {

struct Url {
  bool tls = false;
  std::string host;  // an IPv6 address without its brackets
  uint16_t port = 80;
  std::string target = "/";  // path and query

  std::string authority() const;  // host[:port], brackets for IPv6, no default port
  std::string origin() const;     // scheme://authority
};

Result<Url> parse_url(std::string_view text);

// base "http://h/v1" or "http://h/v1/" and "/chat" -> target "/v1/chat".
Url join_path(const Url& base, std::string_view path);

}  // namespace spillway::net
