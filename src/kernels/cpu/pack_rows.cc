#include <algorithm>
#include <cstring>

#include "kernels/cpu/packing.h"
#include "kernels/cpu/products.h"

namespace spillway::kernels::cpu {
namespace {

int64_t groups_of(int64_t k) { return (k + kInt8Group - 1) / kInt8Group; }

bool of_integers(RowFormat format) { return format == RowFormat::kInt8 || format == RowFormat::kBytes; }

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
    case RowFormat::kScaled:
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
      return weight.scale_block > 0 ? RowFormat::kScaled : RowFormat::kF32;
    case Precision::kBf16:
      if (weight.scale_block > 0) return RowFormat::kScaled;
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

int64_t padded_rows_k(int64_t k) { return (k + 63) / 64 * 64; }

int64_t tiles_of(const PackedRows& x) {
  const int64_t most = of_integers(x.format) ? kRowTile : kRowsTile;
  return (x.rows + most - 1) / most;
}
int64_t tile_height(const PackedRows& x) {
  const int64_t tiles = tiles_of(x);
  return tiles == 0 ? 1 : (x.rows + tiles - 1) / tiles;
}

size_t packed_bytes(RowFormat format, int64_t rows, int64_t k) {
  int64_t bytes = rows * padded_rows_k(k) * row_element_bytes(format);
  if (of_integers(format)) {
    const int64_t row = padded_k(k) * row_element_bytes(format) + groups_of(k) * 12;  // scale, sum and zero of each
    bytes = (rows + kRowTile - 1) / kRowTile * kRowTile * row;
  }
  return static_cast<size_t>((bytes + 63) / 64 * 64);
}

void pack_tile(const PackedRows& packed, int64_t tile, const float* const* rows) {
  const int64_t height = tile_height(packed);
  const auto count = static_cast<int>(std::min(height, packed.rows - tile * height));
  const int64_t k = packed.k;
  const int64_t row = packed.format == RowFormat::kScaled ? k
                      : of_integers(packed.format)        ? padded_k(k)
                                                          : padded_rows_k(k);
  std::byte* out = packed.data + tile * height * row * row_element_bytes(packed.format);
  auto* floats = reinterpret_cast<float*>(out);
  switch (packed.format) {
    case RowFormat::kF32:
    case RowFormat::kRounded:
      return kernel_table().pack_rows(rows, count, k, nullptr, packed.format == RowFormat::kRounded, floats);
    case RowFormat::kScaled:
      for (int r = 0; r < count; ++r) std::copy_n(rows[r], k, floats + r * k);
      return;
    case RowFormat::kBf16:
      return kernel_table().pack_rows_bf16(rows, count, k, nullptr, reinterpret_cast<uint16_t*>(out));
    case RowFormat::kInt8:
    case RowFormat::kBytes:
      break;
  }
  const int64_t tiles = tiles_of(packed), groups = groups_of(k);
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
