#include <algorithm>
#include <cstring>

#include "kernels/cpu/packing.h"
#include "kernels/cpu/products.h"

namespace spillway::kernels::cpu {
namespace {

int64_t groups_of(int64_t k) { return (k + kInt8Group - 1) / kInt8Group; }

// Groups of K with a scale and a sum each.
int64_t row_groups(RowFormat format, int64_t k) {
  return format == RowFormat::kInt8 || format == RowFormat::kBytes ? groups_of(k) : 0;
}

void pack_f32(const float* const* rows, int count, int64_t k, float* out) {
  if (kernel_table().pack_floats != nullptr) return kernel_table().pack_floats(rows, count, k, out);
  for (int64_t i = 0; i < k; ++i) {
    for (int r = 0; r < count; ++r) out[i * count + r] = rows[r][i];
  }
  std::fill(out + k * count, out + padded_k(k) * count, 0.0f);
}

// Rounds by strips so that the halves are still in the first cache when they are interleaved.
constexpr int64_t kStrip = 256;

void pack_rounded(const float* const* rows, int count, int64_t k, float* out) {
  uint16_t halves[kStrip];
  for (int r = 0; r < count; ++r) {
    for (int64_t begin = 0; begin < k; begin += kStrip) {
      const int64_t end = std::min(begin + kStrip, k);
      kernel_table().round_to_bf16(rows[r] + begin, end - begin, halves);
      for (int64_t i = begin; i < end; ++i) {
        const uint32_t bits = static_cast<uint32_t>(halves[i - begin]) << 16;
        std::memcpy(out + i * count + r, &bits, 4);
      }
    }
  }
  std::fill(out + k * count, out + padded_k(k) * count, 0.0f);
}

void pack_int8(const float* const* rows, int count, int64_t k, std::byte* out, float* scales, int32_t* sums) {
  int8_t low[kInt8Group + 4];
  int8_t high[kInt8Group + 4];
  for (int64_t begin = 0; begin < k; begin += kInt8Group, scales += count, sums += count) {
    const auto width = static_cast<int>(std::min<int64_t>(kInt8Group, k - begin));
    const auto padded = static_cast<int>(padded_k(width));
    for (int r = 0; r < count; ++r) {
      scales[r] = kernel_table().quantize_group(rows[r] + begin, width, low, high, &sums[r]);
      std::fill(low + width, low + padded, int8_t{0});
      std::fill(high + width, high + padded, int8_t{0});
      std::byte* target = out + (begin / 4 * count + r) * 8;
      for (int i = 0; i < padded; i += 4, target += 8 * count) {
        std::memcpy(target, low + i, 4);
        std::memcpy(target + 4, high + i, 4);
      }
    }
  }
}

// by: [k], or null.
void pack_bytes(const float* const* rows, const float* by, int count, int64_t k, std::byte* out, float* scales,
                int32_t* sums, float* zeros) {
  int8_t bytes[kInt8Group + 4];
  for (int64_t begin = 0; begin < k; begin += kInt8Group, scales += count, sums += count, zeros += count) {
    const int64_t width = std::min<int64_t>(kInt8Group, k - begin);
    for (int r = 0; r < count; ++r) {
      const QuantizedGroup group =
          kernel_table().quantize_bytes(rows[r] + begin, by == nullptr ? nullptr : by + begin, width, bytes);
      scales[r] = group.scale;
      zeros[r] = group.zero;
      sums[r] = group.sum128;
      std::byte* target = out + begin * count + r * 4;
      for (int64_t i = 0; i < width; i += 4, target += 4 * count) std::memcpy(target, bytes + i, 4);
    }
  }
}

}  // namespace

int64_t row_element_bytes(RowFormat format) {
  switch (format) {
    case RowFormat::kF32:
    case RowFormat::kRounded:
      return 4;
    case RowFormat::kBf16:
    case RowFormat::kInt8:
      return 2;
    case RowFormat::kBytes:
      break;
  }
  return 1;
}

RowFormat row_format(const PackedLinear& weight) {
  switch (weight.precision) {
    case Precision::kFp32:
      return RowFormat::kF32;
    case Precision::kBf16:
      return kernel_table().native_bf16 ? RowFormat::kBf16 : RowFormat::kRounded;
    case Precision::kW8A8:
      return RowFormat::kBytes;
    case Precision::kInt8:
      return RowFormat::kInt8;
    case Precision::kTf32:
    case Precision::kFp8:
    case Precision::kInt4:
      break;
  }
  SW_CHECK(false, "a precision of GPUs");
}

int64_t tiles_of(int64_t rows) { return (rows + kRowTile - 1) / kRowTile; }
int64_t tile_height(int64_t rows) { return rows == 0 ? kRowTile : (rows + tiles_of(rows) - 1) / tiles_of(rows); }

size_t packed_bytes(RowFormat format, int64_t rows, int64_t k) {
  const int64_t row =
      padded_k(k) * row_element_bytes(format) + row_groups(format, k) * 12;  // scale, sum and zero of each group
  const int64_t bytes = tiles_of(rows) * kRowTile * row;
  return static_cast<size_t>((bytes + 63) / 64 * 64);
}

void pack_tile(const PackedRows& packed, int64_t tile, const float* const* rows) {
  const int64_t height = tile_height(packed.rows);
  const auto count = static_cast<int>(std::min(height, packed.rows - tile * height));
  const int64_t k = packed.k;
  std::byte* out = packed.data + tile * height * padded_k(k) * row_element_bytes(packed.format);
  switch (packed.format) {
    case RowFormat::kF32:
      return pack_f32(rows, count, k, reinterpret_cast<float*>(out));
    case RowFormat::kRounded:
      return pack_rounded(rows, count, k, reinterpret_cast<float*>(out));
    case RowFormat::kBf16:
      return kernel_table().pack_pairs(rows, count, k, reinterpret_cast<uint32_t*>(out));
    case RowFormat::kInt8:
    case RowFormat::kBytes:
      break;
  }
  const int64_t tiles = tiles_of(packed.rows), groups = row_groups(packed.format, k);
  auto* scales =
      reinterpret_cast<float*>(packed.data + tiles * kRowTile * padded_k(k) * row_element_bytes(packed.format));
  auto* sums = reinterpret_cast<int32_t*>(scales + tiles * kRowTile * groups);
  const int64_t offset = tile * height * groups;
  if (packed.format == RowFormat::kBytes) {
    auto* zeros = reinterpret_cast<float*>(sums + tiles * kRowTile * groups);
    return pack_bytes(rows, packed.by, count, k, out, scales + offset, sums + offset, zeros + offset);
  }
  pack_int8(rows, count, k, out, scales + offset, sums + offset);
}

}  // namespace spillway::kernels::cpu
