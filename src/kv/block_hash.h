// Hashes of token blocks, for finding equal prefixes. A hash says "perhaps"; whoever shares pages compares the tokens.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace spillway::kv {

inline uint64_t mix(uint64_t x) {
  x ^= x >> 30;
  x *= 0xbf58476d1ce4e5b9ull;
  x ^= x >> 27;
  x *= 0x94d049bb133111ebull;
  return x ^ (x >> 31);
}

inline uint64_t hash_block(uint64_t before, std::span<const int32_t> tokens) {
  uint64_t hash = before + 0x9e3779b97f4a7c15ull;
  for (const int32_t token : tokens)
    hash = (hash ^ static_cast<uint32_t>(token)) * 0x9fb21c651e98df25ull + (hash >> 29);
  return mix(hash);
}

// One hash a full page, each of all tokens up to that page's end.
inline std::vector<uint64_t> prefix_hashes(std::span<const int32_t> tokens, int page_tokens, uint64_t salt = 0) {
  std::vector<uint64_t> hashes(tokens.size() / page_tokens);
  uint64_t hash = mix(salt);
  for (size_t page = 0; page < hashes.size(); ++page) {
    hash = hash_block(hash, tokens.subspan(page * page_tokens, page_tokens));
    hashes[page] = hash;
  }
  return hashes;
}

}  // namespace spillway::kv
