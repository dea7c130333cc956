// Randomness of decisions: pure functions of a request's seed, so that a decision can be repeated.
#pragma once

#include <cmath>
#include <cstdint>
#include <string_view>

namespace spillway::gateway {

inline uint64_t mix_bits(uint64_t x) {
  x ^= x >> 30;
  x *= 0xbf58476d1ce4e5b9ull;
  x ^= x >> 27;
  x *= 0x94d049bb133111ebull;
  return x ^ (x >> 31);
}

inline uint64_t hash_text(std::string_view text, uint64_t seed = 0) {
  uint64_t hash = 0xcbf29ce484222325ull ^ seed;
  for (const char c : text) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3ull;
  return mix_bits(hash);
}

// In (0, 1); `stream` keeps the draws of one request apart.
inline double uniform(uint64_t seed, uint64_t stream) {
  const uint64_t bits = mix_bits(seed + 0x9e3779b97f4a7c15ull * (stream + 1));
  return (static_cast<double>(bits >> 11) + 0.5) * 0x1p-53;
}

}  // namespace spillway::gateway
