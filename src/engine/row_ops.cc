#include "engine/row_ops.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

#include "base/draw_noise.h"

// Function multiversioning needs the dynamic loader's help, which sanitizers' start-up does not survive.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__SANITIZE_THREAD__) && !defined(__SANITIZE_ADDRESS__)
#define SW_ROW_LOOP __attribute__((target_clones("default", "arch=x86-64-v3", "arch=x86-64-v4"), optimize("O3")))
#else
#define SW_ROW_LOOP
#endif

namespace spillway::engine {
namespace {

constexpr float kLowest = -std::numeric_limits<float>::infinity();

inline double gumbel_of(uint32_t bits) { return -std::log(-std::log((bits + 0.5) * 0x1p-32)); }

// The least noise whose Gumbel value reaches `needed`, rounded down: below it an index cannot win.
uint32_t least_noise(double needed) {
  const double bits = std::exp(-std::exp(-needed)) * 0x1p32 - 2;
  return bits <= 0 ? 0u : static_cast<uint32_t>(std::min(bits, 4294967295.0));
}

SW_ROW_LOOP
bool any_noise_from(uint32_t low, uint32_t high, uint32_t first, uint32_t threshold) {
  uint32_t best = 0;
  for (uint32_t i = 0; i < kRowBlock; ++i) best = std::max(best, draw_noise(low, high, first + i));
  return best >= threshold;
}

// exp for x <= 0: 2^k times a polynomial on the rest; 0 far below.
inline float exp_negative(float x) {
  x = x > -87.0f ? x : -87.0f;
  const float t = x * 1.44269504f;
  const float k = static_cast<float>(static_cast<int32_t>(t - 0.5f));
  const float r = (x - k * 0.693359375f) + k * 2.12194440e-4f;
  float p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.0f;
  return p * std::bit_cast<float>((static_cast<int32_t>(k) + 127) << 23);
}

}  // namespace

SW_ROW_LOOP
float row_max(std::span<const float> row) {
  constexpr int kLanes = 32;
  float lanes[kLanes];
  for (float& lane : lanes) lane = kLowest;
  const size_t whole = row.size() / kLanes * kLanes;
  const float* data = row.data();
  for (size_t i = 0; i < whole; i += kLanes) {
    for (int lane = 0; lane < kLanes; ++lane) lanes[lane] = data[i + lane] > lanes[lane] ? data[i + lane] : lanes[lane];
  }
  float max = kLowest;
  for (const float lane : lanes) max = lane > max ? lane : max;
  for (size_t i = whole; i < row.size(); ++i) max = data[i] > max ? data[i] : max;
  return max;
}

int32_t row_find(std::span<const float> row, float value) {
  constexpr size_t kBlock = 1024;  // the vectorised maximum says which block to search
  size_t begin = 0;
  while (begin + kBlock < row.size() && row_max(row.subspan(begin, kBlock)) < value) begin += kBlock;
  return static_cast<int32_t>(std::find(row.begin() + begin, row.end(), value) - row.begin());
}

SW_ROW_LOOP
double row_exp_sum(std::span<const float> row, float max, float scale) {
  constexpr int kLanes = 32;
  float lanes[kLanes] = {};
  double sum = 0;
  const float* data = row.data();
  const size_t whole = row.size() / kLanes * kLanes;
  for (size_t begin = 0; begin < whole; begin += kLanes * 64) {  // short float sums, added up as doubles
    const size_t end = std::min<size_t>(begin + kLanes * 64, whole);
    for (size_t i = begin; i < end; i += kLanes) {
      for (int lane = 0; lane < kLanes; ++lane) lanes[lane] += exp_negative((data[i + lane] - max) * scale);
    }
    for (float& lane : lanes) {
      sum += lane;
      lane = 0;
    }
  }
  for (size_t i = whole; i < row.size(); ++i) sum += exp_negative((data[i] - max) * scale);
  return sum;
}

double gumbel(uint64_t key, int32_t index) {
  return gumbel_of(
      draw_noise(static_cast<uint32_t>(key), static_cast<uint32_t>(key >> 32), static_cast<uint32_t>(index)));
}

int32_t row_gumbel_argmax(std::span<const float> row, float scale, uint64_t key) {
  const uint32_t low = static_cast<uint32_t>(key), high = static_cast<uint32_t>(key >> 32);
  const float max = row_max(row);
  int32_t best = row_find(row, max);
  // Start from the likeliest token: most blocks then need noise so rare that one look at the noise alone rules them
  // out.
  double best_value = static_cast<double>(max) * scale + gumbel(key, best);
  const int32_t size = static_cast<int32_t>(row.size());
  for (int32_t begin = 0; begin < size; begin += kRowBlock) {
    const int32_t end = std::min(begin + kRowBlock, size);
    const float block_max = row_max(row.subspan(begin, end - begin));
    if (block_max == kLowest) continue;
    const double needed = best_value - static_cast<double>(block_max) * scale;
    if (needed > 23) continue;  // the largest noise is below 22.9
    const uint32_t least = least_noise(needed);
    if (!any_noise_from(low, high, begin, least)) continue;
    for (int32_t i = begin; i < end; ++i) {
      const uint32_t bits = draw_noise(low, high, i);
      if (bits < least) continue;
      const double value = static_cast<double>(row[i]) * scale + gumbel_of(bits);
      if (value > best_value || (value == best_value && i < best)) {
        best_value = value;
        best = i;
      }
    }
  }
  return best;
}

}  // namespace spillway::engine
