#include "net/request_id.h"

#include <algorithm>

#include "base/random_bytes.h"

namespace spillway::net {

std::string request_id(std::string_view given) {
  const auto plain = [](char c) {
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '-' || c == '_' ||
           c == '.' || c == ':';
  };
  if (!given.empty() && given.size() <= 128 && std::ranges::all_of(given, plain)) return std::string(given);
  // From the generator for secrets: whoever knows an id may report what came of its request.
  return random_hex(16);
}

}  // namespace spillway::net
