#include "kernels/cpu/packing.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <string>
#include <vector>

#include "kernels/cpu/kernel_table.h"
#include "kernels/cpu/weight_rows.h"

namespace spillway::kernels {
namespace cpu {

int64_t padded_k(int64_t k) { return (k + 3) / 4 * 4; }
int64_t panels_of(int64_t n) { return (n + kPanel - 1) / kPanel; }

int64_t panel_bytes(PackedFormat format, int64_t k) {
  const int64_t elements = k * kPanel;
  switch (format) {
    case PackedFormat::kF32: return elements * 4;
    case PackedFormat::kF16:
    case PackedFormat::kBf16: return elements * 2;
    case PackedFormat::kF8:
    case PackedFormat::kInt8: break;
  }
  return elements;
}

int f8_byte(int c, int second) { return 16 * (c % 16 / 4) + 8 * (c / 16) + 2 * (c % 4) + second; }

namespace {

using tensor::DType;

// Copies stored elements of T (units of `unit` neighbouring K elements) of the panel's rows into place.
template <class T, class Place>
void copy_units(const PanelRows& rows, int64_t k, int unit, Place place) {
  constexpr int64_t kBlock = 32;  // K units whose lines of the panel stay in the first cache
  const int64_t whole = k / unit;
  for (int64_t begin = 0; begin < whole; begin += kBlock) {
    const int64_t end = std::min(begin + kBlock, whole);
    for (int c = 0; c < kPanel; ++c) {
      const std::byte* source = rows.row[static_cast<size_t>(c)].data;
      if (source == nullptr) continue;
      for (int64_t i = begin; i < end; ++i) {
        T value;
        std::memcpy(&value, source + i * static_cast<int64_t>(sizeof(T)), sizeof(T));
        std::memcpy(place(i, c), &value, sizeof(T));
      }
    }
  }
  if (whole * unit == k) return;  // an odd end: the rest of the unit is zero
  for (int c = 0; c < kPanel; ++c) {
    const std::byte* source = rows.row[static_cast<size_t>(c)].data;
    if (source == nullptr) continue;
    const auto element = sizeof(T) / static_cast<size_t>(unit);
    std::memcpy(place(whole, c), source + whole * static_cast<int64_t>(sizeof(T)),
                static_cast<size_t>(k - whole * unit) * element);
  }
}

void pack_stored(const PanelRows& rows, PackedFormat format, int64_t k, std::byte* out) {
  switch (format) {
    case PackedFormat::kF32:
      return copy_units<uint32_t>(rows, k, 1, [&](int64_t i, int c) { return out + (i * kPanel + c) * 4; });
    case PackedFormat::kF16:
      return copy_units<uint16_t>(rows, k, 1, [&](int64_t i, int c) { return out + (i * kPanel + c) * 2; });
    case PackedFormat::kBf16:
      return copy_units<uint32_t>(rows, k, 2, [&](int64_t i, int c) { return out + (i * kPanel + c) * 4; });
    case PackedFormat::kF8:
      return copy_units<uint16_t>(rows, k, 2, [&](int64_t i, int c) { return out + i * 2 * kPanel + f8_byte(c, 0); });
    case PackedFormat::kInt8: break;
  }
  SW_CHECK(false, "int8 is never stored");
}

void pack_converted(const PanelRows& rows, PackedFormat format, int64_t k, std::byte* out) {
  std::vector<float> values(static_cast<size_t>(k));
  for (int c = 0; c < kPanel; ++c) {
    if (!read_row(rows, c, 0, k, values.data())) continue;
    for (int64_t i = 0; i < k; ++i) {
      const float value = values[static_cast<size_t>(i)];
      if (format == PackedFormat::kF32) {
        std::memcpy(out + (i * kPanel + c) * 4, &value, 4);
      } else if (format == PackedFormat::kF16) {
        const uint16_t bits = tensor::float_to_f16(value);
        std::memcpy(out + (i * kPanel + c) * 2, &bits, 2);
      } else {
        const uint16_t bits = tensor::float_to_bf16(value);
        std::memcpy(out + (i / 2 * kPanel + c) * 4 + i % 2 * 2, &bits, 2);
      }
    }
  }
}

void pack_int8(const PanelRows& rows, int64_t k, std::byte* out, float* scales) {
  float values[kInt8Group];
  std::memset(out, 128, static_cast<size_t>(panel_bytes(PackedFormat::kInt8, padded_k(k))));
  for (int64_t begin = 0; begin < k; begin += kInt8Group, scales += kPanel) {
    const auto count = static_cast<int>(std::min<int64_t>(kInt8Group, k - begin));
    for (int c = 0; c < kPanel; ++c) {
      if (!read_row(rows, c, begin, count, values)) continue;
      float most = 0;
      for (int i = 0; i < count; ++i) most = std::max(most, std::fabs(values[i]));
      const float inverse = most > 0 ? 127.0f / most : 0.0f;
      scales[c] = most / 127.0f;
      uint8_t bytes[kInt8Group + 4];
      std::fill(bytes + count, bytes + count + 4, uint8_t{128});
      for (int i = 0; i < count; ++i) bytes[i] = static_cast<uint8_t>(static_cast<int>(values[i] * inverse + 128.5f));
      std::byte* target = out + begin * kPanel + 4 * c;
      for (int i = 0; i < count; i += 4) std::memcpy(target + i * kPanel, bytes + i, 4);
    }
  }
}

void pack_scales(const PanelRows& rows, int64_t blocks, float* out) {
  for (int64_t b = 0; b < blocks; ++b) {
    for (int c = 0; c < kPanel; ++c) {
      const float* scales = rows.row[static_cast<size_t>(c)].scales;
      out[b * kPanel + c] = scales == nullptr ? 0.0f : scales[b];
    }
  }
}

PackedFormat format_of(DType stored, Precision precision) {
  if (precision == Precision::kInt8) return PackedFormat::kInt8;
  if (stored == DType::kF8E4M3) return PackedFormat::kF8;
  if (stored == DType::kBF16 || precision == Precision::kBf16) return PackedFormat::kBf16;
  return stored == DType::kF16 ? PackedFormat::kF16 : PackedFormat::kF32;
}

// True when the stored bytes are already the format's elements.
bool as_stored(const WeightSource& source, PackedFormat format) {
  if (source.transposed) return false;
  const DType stored = source.weight.dtype;
  return (format == PackedFormat::kF32 && stored == DType::kF32) || (format == PackedFormat::kF16 && stored == DType::kF16) ||
         (format == PackedFormat::kBf16 && stored == DType::kBF16) || format == PackedFormat::kF8;
}

}  // namespace
}  // namespace cpu

Result<PackedLinear> pack_linear(const WeightSource& source, Precision precision, tensor::Stream& stream) {
  return pack_linear(std::span(&source, 1), precision, stream);
}

Result<PackedLinear> pack_linear(std::span<const WeightSource> sources, Precision precision, tensor::Stream& stream) {
  SW_ASSIGN(const cpu::StackedRows rows, cpu::stack_rows(sources));
  const WeightSource& first = sources.front();
  PackedLinear packed;
  packed.n = rows.n;
  packed.k = rows.k;
  packed.precision = precision;
  packed.format = cpu::format_of(first.weight.dtype, precision);
  if (packed.format == PackedFormat::kF8 && first.transposed) {
    return unsupported("expected a transposed weight of f32, bf16 or f16, found f8e4m3");
  }
  const int64_t panels = cpu::panels_of(packed.n);
  const int64_t bytes = cpu::panel_bytes(packed.format, cpu::padded_k(packed.k));
  packed.data = tensor::Tensor(tensor::DType::kU8, {panels * bytes});
  const bool int8 = packed.format == PackedFormat::kInt8;
  const bool scaled = int8 || !first.scales.empty();
  if (scaled) packed.scale_block = int8 ? cpu::kInt8Group : first.block_k;
  const int64_t blocks = scaled ? (packed.k + packed.scale_block - 1) / packed.scale_block : 0;
  if (scaled) packed.scales = tensor::Tensor::zeros(tensor::DType::kF32, {panels, blocks, cpu::kPanel});
  const bool stored = cpu::as_stored(first, packed.format);
  stream.parallel_tasks(panels, [&](int64_t p, int) {
    const cpu::PanelRows panel = rows.panel(p * cpu::kPanel);
    std::byte* out = packed.data.raw<std::byte>() + p * bytes;
    float* scales = scaled ? packed.scales.as<float>() + p * blocks * cpu::kPanel : nullptr;
    if (int8) return cpu::pack_int8(panel, packed.k, out, scales);
    if (!panel.full || cpu::padded_k(packed.k) != packed.k) std::memset(out, 0, static_cast<size_t>(bytes));
    if (scaled) cpu::pack_scales(panel, blocks, scales);
    stored ? cpu::pack_stored(panel, packed.format, packed.k, out)
           : cpu::pack_converted(panel, packed.format, packed.k, out);
  });
  return packed;
}

}  // namespace spillway::kernels
