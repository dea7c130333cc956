// The noise that sampling draws with: 32 bits for each (key, token), the same on the host and on every device.
#pragma once

#include <cstdint>

namespace spillway {

// Two rounds of a 32-bit finaliser with a key between.
constexpr uint32_t draw_noise(uint32_t key_low, uint32_t key_high, uint32_t token) {
  uint32_t h = token * 0x9e3779b1u + key_low;
  h ^= h >> 16;
  h *= 0x85ebca6bu;
  h ^= h >> 13;
  h *= 0xc2b2ae35u;
  h ^= (h >> 16) ^ key_high;
  h *= 0x7feb352du;
  h ^= h >> 15;
  h *= 0x846ca68bu;
  return h ^ (h >> 16);
}

}  // namespace spillway
