#include "kernels/cpu/quantized_table.h"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace spillway::kernels::cpu {
namespace {

constexpr int kScales = 12;  // that are tried for a group, from the one that reaches its largest value downwards
constexpr float kScaleStep = 0.02f;

typedef float Lanes __attribute__((vector_size(16)));  // every x86-64 and Arm CPU has them

// A group's values, behind the last of them zeros, which any scale gives back.
struct Group {
  alignas(16) float values[kTableGroup] = {};
  Lanes at(int i) const {
    Lanes lanes;
    std::memcpy(&lanes, values + i, sizeof(lanes));
    return lanes;
  }
};

// Of values divided by their scale: to nearest, ties to even, within the 128 levels.
Lanes levels_of(Lanes scaled) {
  constexpr float kShift = 12582912.0f;  // 1.5 * 2^23
  constexpr float kMost = kTableLevels, kLeast = -kTableLevels - 1;
  const Lanes below = scaled < kMost ? scaled : Lanes{} + kMost;
  return ((below > kLeast ? below : Lanes{} + kLeast) + kShift) - kShift;
}

float squared_error(const Group& group, float scale) {
  const float inverse = 1 / scale;
  Lanes sum = {};
  for (int i = 0; i < kTableGroup; i += 4) {
    const Lanes values = group.at(i), miss = levels_of(values * inverse) * scale - values;
    sum += miss * miss;
  }
  return sum[0] + sum[1] + sum[2] + sum[3];
}

// Zero for a group of zeros.
float best_scale(const Group& group) {
  float largest = 0;
  for (const float value : group.values) largest = std::max(largest, std::abs(value));
  if (!(largest > 1e-30f)) return 0;
  float best = 0, least = INFINITY;
  for (int t = 0; t < kScales; ++t) {
    const float scale = largest / kTableLevels * (1 - kScaleStep * float(t));
    const float error = squared_error(group, scale);
    if (error < least) least = error, best = scale;
  }
  return best;
}

}  // namespace

void quantize_table_row(const float* row, int64_t width, uint8_t* bytes, float* scales) {
  for (int64_t begin = 0; begin < width; begin += kTableGroup) {
    const int64_t count = std::min<int64_t>(kTableGroup, width - begin);
    Group group;
    std::copy_n(row + begin, count, group.values);
    const float scale = best_scale(group), inverse = scale > 0 ? 1 / scale : 0;
    scales[begin / kTableGroup] = scale;
    for (int i = 0; i < count; i += 8, bytes += 7) {
      const Lanes halves[2] = {levels_of(group.at(i) * inverse), levels_of(group.at(i + 4) * inverse)};
      uint64_t word = 0;
      for (int j = 0; j < 8; ++j) word |= uint64_t(int(halves[j / 4][j % 4]) + kTableLevels + 1) << (7 * j);
      std::memcpy(bytes, &word, 7);
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
