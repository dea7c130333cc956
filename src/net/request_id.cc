#include "net/request_id.h"

#include <openssl/rand.h>

#include <algorithm>

#include "base/check.h"

namespace spillway::net {

std::string request_id(std::string_view given) {
  const auto plain = [](char c) {
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '-' || c == '_' ||
           c == '.' || c == ':';
  };
  if (!given.empty() && given.size() <= 128 && std::ranges::all_of(given, plain)) return std::string(given);
  // From the generator for secrets: whoever knows an id may report what came of its request.
  unsigned char bytes[16] = {};
  SW_CHECK(RAND_bytes(bytes, sizeof bytes) == 1, "the system has no random bytes");
  std::string id;
  for (const unsigned char byte : bytes) {
    id += "0123456789abcdef"[byte >> 4];
    id += "0123456789abcdef"[byte & 15];
  }
  return id;
}

}  // namespace spillway::net
