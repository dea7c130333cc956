#include "weights/checksum.h"

#include <cstring>

namespace spillway::weights {
namespace {

// Four vectors of four lanes, so that the additions of one do not wait for another's; a build for plain x86-64 splits
// each in two registers and is still faster than memory.
typedef uint64_t Lanes __attribute__((vector_size(32)));
constexpr size_t kVectors = 4;
constexpr size_t kStripe = kVectors * sizeof(Lanes);

uint64_t mix(uint64_t value) {  // the finaliser of MurmurHash3
  value = (value ^ (value >> 33)) * 0xff51afd7ed558ccdULL;
  value = (value ^ (value >> 33)) * 0xc4ceb9fe1a85ec53ULL;
  return value ^ (value >> 33);
}

struct Sums {
  Lanes first[kVectors] = {};
  Lanes second[kVectors] = {};

  void add(const std::byte* stripe) {
    for (size_t v = 0; v < kVectors; ++v) {
      Lanes lanes;
      std::memcpy(&lanes, stripe + v * sizeof(Lanes), sizeof(Lanes));
      first[v] += lanes;
      second[v] += first[v];
    }
  }

  uint64_t result(uint64_t size) const {
    uint64_t hash = mix(size + 1);
    for (size_t v = 0; v < kVectors; ++v) {
      for (size_t lane = 0; lane < sizeof(Lanes) / 8; ++lane) {
        hash = mix(hash ^ first[v][lane]) + 0x9e3779b97f4a7c15ULL;
        hash = mix(hash ^ second[v][lane]) + 0x9e3779b97f4a7c15ULL;
      }
    }
    return hash;
  }
};

}  // namespace

uint64_t checksum(std::span<const std::byte> bytes) {
  Sums sums;
  const size_t whole = bytes.size() / kStripe * kStripe;
  for (size_t at = 0; at < whole; at += kStripe) sums.add(bytes.data() + at);
  if (whole < bytes.size()) {
    std::byte last[kStripe] = {};
    std::memcpy(last, bytes.data() + whole, bytes.size() - whole);
    sums.add(last);
  }
  return sums.result(bytes.size());
}

}  // namespace spillway::weights
