#include <algorithm>
#include <array>
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

// Bytes of some parts of a row's group to their places: [step][count][parts][bytes of the step].
template <size_t kParts>
void place_bytes(const std::array<const int8_t*, kParts>& parts, int64_t bytes, int64_t step, int row, int count,
                 std::byte* group) {
  for (int64_t at = 0; at < bytes; at += step) {
    const int64_t width = std::min(step, bytes - at);
    std::byte* target = group + (at * count + row * width) * static_cast<int64_t>(kParts);
    for (const int8_t* part : parts) {
      if (width == 4) {
        std::memcpy(target, part + at, 4);
      } else {
        std::memcpy(target, part + at, static_cast<size_t>(width));
      }
      target += width;
    }
  }
}

void pack_int8(const float* const* rows, int64_t step, int count, int64_t k, std::byte* out, float* scales,
               int32_t* sums) {
  int8_t low[kInt8Group + 4];
  int8_t high[kInt8Group + 4];
  for (int64_t begin = 0; begin < k; begin += kInt8Group, scales += count, sums += count) {
    const auto width = static_cast<int>(std::min<int64_t>(kInt8Group, k - begin));
    const auto padded = static_cast<int>(padded_k(width));
    for (int r = 0; r < count; ++r) {
      scales[r] = kernel_table().quantize_group(rows[r] + begin, width, low, high, &sums[r]);
      std::fill(low + width, low + padded, int8_t{0});
      std::fill(high + width, high + padded, int8_t{0});
      place_bytes<2>({low, high}, padded, step, r, count, out + begin * count * 2);
    }
  }
}

// by: [k], or null.
void pack_bytes(const float* const* rows, const float* by, int64_t step, int count, int64_t k, std::byte* out,
                float* scales, int32_t* sums, float* zeros) {
  int8_t bytes[kInt8Group + 4];
  for (int64_t begin = 0; begin < k; begin += kInt8Group, scales += count, sums += count, zeros += count) {
    const int64_t width = std::min<int64_t>(kInt8Group, k - begin);
    for (int r = 0; r < count; ++r) {
      const QuantizedGroup group =
          kernel_table().quantize_bytes(rows[r] + begin, by == nullptr ? nullptr : by + begin, width, bytes);
      scales[r] = group.scale;
      zeros[r] = group.zero;
      sums[r] = group.sum128;
      place_bytes<1>({bytes}, padded_k(width), step, r, count, out + begin * count);
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

const TileUnit* PackedRows::unit() const {
  const TileUnit* unit = kernel_table().unit;
  if (unit == nullptr || format == RowFormat::kF32 || format == RowFormat::kRounded) return nullptr;
  return format == RowFormat::kBf16 || rows > kRowTile ? unit : nullptr;
}

int64_t PackedRows::tile_most() const { return unit() != nullptr ? unit()->rows : kRowTile; }

int64_t PackedRows::tiles() const {
  const int64_t most = tile_most();
  return (rows + most - 1) / most;
}

int64_t PackedRows::tile_height() const {
  const int64_t count = tiles();
  return count == 0 ? tile_most() : (rows + count - 1) / count;
}

size_t packed_bytes(RowFormat format, int64_t rows, int64_t k) {
  const int64_t row =
      padded_k(k) * row_element_bytes(format) + row_groups(format, k) * 12;  // scale, sum and zero of each group
  const int64_t bytes = PackedRows{format, rows, k}.tile_capacity() * row;
  return static_cast<size_t>((bytes + 63) / 64 * 64);
}

void pack_tile(const PackedRows& packed, int64_t tile, const float* const* rows) {
  const int64_t height = packed.tile_height();
  const auto count = static_cast<int>(std::min(height, packed.rows - tile * height));
  const int64_t k = packed.k;
  const TileUnit* unit = packed.unit();
  std::byte* out = packed.data + tile * height * padded_k(k) * row_element_bytes(packed.format);
  switch (packed.format) {
    case RowFormat::kF32:
      return pack_f32(rows, count, k, reinterpret_cast<float*>(out));
    case RowFormat::kRounded:
      return pack_rounded(rows, count, k, reinterpret_cast<float*>(out));
    case RowFormat::kBf16:
      return (unit != nullptr ? unit->pack_pairs : kernel_table().pack_pairs)(rows, count, k,
                                                                              reinterpret_cast<uint32_t*>(out));
    case RowFormat::kInt8:
    case RowFormat::kBytes:
      break;
  }
  const int64_t capacity = packed.tile_capacity(), groups = row_groups(packed.format, k);
  auto* scales = reinterpret_cast<float*>(packed.data + capacity * padded_k(k) * row_element_bytes(packed.format));
  auto* sums = reinterpret_cast<int32_t*>(scales + capacity * groups);
  const int64_t offset = tile * height * groups;
  const int64_t step = unit != nullptr ? unit->step : 4;
  if (packed.format == RowFormat::kBytes) {
    auto* zeros = reinterpret_cast<float*>(sums + capacity * groups);
    return pack_bytes(rows, packed.by, step, count, k, out, scales + offset, sums + offset, zeros + offset);
  }
  pack_int8(rows, step, count, k, out, scales + offset, sums + offset);
}

}  // namespace spillway::kernels::cpu
