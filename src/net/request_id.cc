#include "net/request_id.h"

#include <algorithm>
#include <cstdint>
#include <random>

namespace spillway::net {

std::string request_id(std::string_view given) {
  const auto plain = [](char c) {
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '-' || c == '_' ||
           c == '.' || c == ':';
  };
  if (!given.empty() && given.size() <= 128 && std::ranges::all_of(given, plain)) return std::string(given);
  thread_local std::mt19937_64 random([] {
    std::random_device device;
    std::seed_seq seed{device(), device(), device(), device()};
    return std::mt19937_64(seed);
  }());
  std::string id(32, '0');
  uint64_t bits = 0;
  for (size_t i = 0; i < id.size(); ++i, bits >>= 4) {
    if (i % 16 == 0) bits = random();
    id[i] = "0123456789abcdef"[bits & 15];
  }
  return id;
}

}  // namespace spillway::net
