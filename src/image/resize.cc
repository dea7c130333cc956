#include "image/resize.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numbers>
#include <vector>

namespace spillway::image {
namespace {

// Weights carry this many binary places: 32 bits less 8 of the pixel and 2 for sums over 1 (bicubic, lanczos).
constexpr int kPlaces = 32 - 8 - 2;

double sinc(double x) { return x == 0 ? 1 : std::sin(std::numbers::pi * x) / (std::numbers::pi * x); }

double weight(Filter filter, double x) {
  x = std::abs(x);
  switch (filter) {
    case Filter::kBox:
      return x <= 0.5 ? 1 : 0;
    case Filter::kBilinear:
      return std::max(1 - x, 0.0);
    case Filter::kHamming:
      return x < 1 ? sinc(x) * (0.54 + 0.46 * std::cos(std::numbers::pi * x)) : 0;
    case Filter::kBicubic: {
      constexpr double a = -0.5;
      if (x < 1) return ((a + 2) * x - (a + 3)) * x * x + 1;
      return x < 2 ? (((x - 5) * x + 8) * x - 4) * a : 0;
    }
    case Filter::kLanczos:
      return x < 3 ? sinc(x) * sinc(x / 3) : 0;
    case Filter::kNearest:
      break;
  }
  return 0;
}

double support_of(Filter filter) {
  switch (filter) {
    case Filter::kBox:
      return 0.5;
    case Filter::kBicubic:
      return 2;
    case Filter::kLanczos:
      return 3;
    default:
      return 1;
  }
}

// What each output position is made of: taps inputs from first on.
struct Taps {
  std::vector<int> first, count;
  std::vector<int32_t> weights;  // stride a position
  int stride = 0;
};

Taps taps_for(int in, int out, Filter filter) {
  const double scale = double(in) / out, widen = std::max(scale, 1.0), narrow = 1 / widen;
  const double support = support_of(filter) * widen;
  Taps taps;
  taps.stride = int(std::ceil(support)) * 2 + 1;
  taps.weights.resize(size_t(out) * taps.stride);
  std::vector<double> row(taps.stride);
  for (int at = 0; at < out; ++at) {
    const double center = (at + 0.5) * scale;
    const int first = std::max(int(center - support + 0.5), 0);
    const int count = std::min(int(center + support + 0.5), in) - first;
    double sum = 0;
    for (int i = 0; i < count; ++i) sum += row[i] = weight(filter, (i + first - center + 0.5) * narrow);
    for (int i = 0; i < count; ++i) {
      const double scaled = (sum != 0 ? row[i] / sum : row[i]) * (1 << kPlaces);
      taps.weights[size_t(at) * taps.stride + i] = int32_t(scaled < 0 ? scaled - 0.5 : scaled + 0.5);
    }
    taps.first.push_back(first);
    taps.count.push_back(count);
  }
  return taps;
}

uint8_t to_byte(int64_t sum) { return uint8_t(std::clamp<int64_t>(sum >> kPlaces, 0, 255)); }

// One output line of `width` pixels from lines `step` bytes apart (columns) or pixels 3 apart (rows).
Image shrink_rows(const Image& from, int width, Filter filter) {
  const Taps taps = taps_for(from.width, width, filter);
  Image to{width, from.height, std::vector<uint8_t>(size_t(width) * from.height * 3)};
  for (int y = 0; y < from.height; ++y) {
    const uint8_t* line = from.rgb.data() + size_t(y) * from.width * 3;
    uint8_t* out = to.rgb.data() + size_t(y) * width * 3;
    for (int x = 0; x < width; ++x, out += 3) {
      const int32_t* weights = taps.weights.data() + size_t(x) * taps.stride;
      const uint8_t* pixel = line + size_t(taps.first[x]) * 3;
      int64_t sum[3] = {1 << (kPlaces - 1), 1 << (kPlaces - 1), 1 << (kPlaces - 1)};
      for (int i = 0; i < taps.count[x]; ++i, pixel += 3) {
        for (int c = 0; c < 3; ++c) sum[c] += int64_t(weights[i]) * pixel[c];
      }
      for (int c = 0; c < 3; ++c) out[c] = to_byte(sum[c]);
    }
  }
  return to;
}

Image shrink_columns(const Image& from, int height, Filter filter) {
  const Taps taps = taps_for(from.height, height, filter);
  const size_t line = size_t(from.width) * 3;
  Image to{from.width, height, std::vector<uint8_t>(line * height)};
  std::vector<int32_t> sums(line);
  for (int y = 0; y < height; ++y) {
    std::fill(sums.begin(), sums.end(), 1 << (kPlaces - 1));
    for (int i = 0; i < taps.count[y]; ++i) {
      const int32_t w = taps.weights[size_t(y) * taps.stride + i];
      const uint8_t* row = from.rgb.data() + line * (taps.first[y] + i);
      for (size_t k = 0; k < line; ++k) sums[k] += w * row[k];
    }
    uint8_t* out = to.rgb.data() + line * y;
    for (size_t k = 0; k < line; ++k) out[k] = to_byte(sums[k]);
  }
  return to;
}

Image pick_nearest(const Image& from, int width, int height) {
  Image to{width, height, std::vector<uint8_t>(size_t(width) * height * 3)};
  const double scale_x = double(from.width) / width, scale_y = double(from.height) / height;
  for (int y = 0; y < height; ++y) {
    const uint8_t* line = from.rgb.data() + size_t((y + 0.5) * scale_y) * from.width * 3;
    for (int x = 0; x < width; ++x) {
      std::copy_n(line + size_t((x + 0.5) * scale_x) * 3, 3, to.rgb.data() + (size_t(y) * width + x) * 3);
    }
  }
  return to;
}

}  // namespace

Image resize(const Image& from, int width, int height, Filter filter) {
  if (width == from.width && height == from.height) return from;
  if (filter == Filter::kNearest) return pick_nearest(from, width, height);
  if (width == from.width) return shrink_columns(from, height, filter);
  Image rows = shrink_rows(from, width, filter);
  return height == rows.height ? rows : shrink_columns(rows, height, filter);
}

}  // namespace spillway::image
