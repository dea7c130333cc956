#include "kernels/cpu/quantized_table.h"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace spillway::kernels::cpu {
namespace {

constexpr int kScales = 12;  // that are tried for a group, from the one that reaches its largest value downwards
constexpr float kScaleStep = 0.02f;

// To nearest, ties to even, of what is far below 2^22.
float rounded(float x) {
  constexpr float kShift = 12582912.0f;
  return (x + kShift) - kShift;
}

float level(float value, float inverse) {
  return rounded(std::clamp(value * inverse, float(-kTableLevels - 1), float(kTableLevels)));
}

float squared_error(const float* values, int64_t count, float scale) {
  const float inverse = 1 / scale;
  float sum = 0;
  for (int64_t i = 0; i < count; ++i) {
    const float miss = level(values[i], inverse) * scale - values[i];
    sum += miss * miss;
  }
  return sum;
}

// Zero for a group of zeros.
float best_scale(const float* values, int64_t count) {
  float largest = 0;
  for (int64_t i = 0; i < count; ++i) largest = std::max(largest, std::abs(values[i]));
  if (!(largest > 1e-30f)) return 0;
  float best = 0, least = INFINITY;
  for (int t = 0; t < kScales; ++t) {
    const float scale = largest / kTableLevels * (1 - kScaleStep * float(t));
    const float error = squared_error(values, count, scale);
    if (error < least) least = error, best = scale;
  }
  return best;
}

}  // namespace

void quantize_table_row(const float* row, int64_t width, uint8_t* bytes, float* scales) {
  for (int64_t begin = 0; begin < width; begin += kTableGroup) {
    const int64_t count = std::min<int64_t>(kTableGroup, width - begin);
    const float scale = best_scale(row + begin, count), inverse = scale > 0 ? 1 / scale : 0;
    scales[begin / kTableGroup] = scale;
    for (int64_t i = 0; i < count; i += 8) {
      uint64_t word = 0;
      for (int64_t j = 0; j < std::min<int64_t>(8, count - i); ++j)
        word |= uint64_t(int(level(row[begin + i + j], inverse)) + kTableLevels + 1) << (7 * j);
      std::memcpy(bytes, &word, 7);
      bytes += 7;
    }
  }
}

void read_table_row(const uint8_t* bytes, const float* scales, int64_t width, bool add, float* y) {
  for (int64_t begin = 0; begin < width; begin += 8, bytes += 7) {
    uint64_t word = 0;
    std::memcpy(&word, bytes, 7);
    const float scale = scales[begin / kTableGroup];
    float values[8];
    for (int j = 0; j < 8; ++j) values[j] = float(int(word >> (7 * j) & 127) - (kTableLevels + 1)) * scale;
    const int64_t count = std::min<int64_t>(8, width - begin);
    for (int64_t j = 0; j < count; ++j) y[begin + j] = add ? y[begin + j] + values[j] : values[j];
  }
}

}  // namespace spillway::kernels::cpu
