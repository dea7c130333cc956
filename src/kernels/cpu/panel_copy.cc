#include "kernels/cpu/panel_copy.h"

#include <algorithm>
#include <cstring>

#include "kernels/cpu/kernel_table.h"
#include "kernels/cpu/packing.h"

namespace spillway::kernels::cpu {

namespace {

typedef uint32_t Units __attribute__((vector_size(16)));

}  // namespace

void transpose_4x4(const std::byte* const* rows, int64_t at, std::byte* out) {
  Units a, b, c, d;
  std::memcpy(&a, rows[0] + at, 16);
  std::memcpy(&b, rows[1] + at, 16);
  std::memcpy(&c, rows[2] + at, 16);
  std::memcpy(&d, rows[3] + at, 16);
  const Units ab0 = __builtin_shufflevector(a, b, 0, 4, 1, 5), ab1 = __builtin_shufflevector(a, b, 2, 6, 3, 7);
  const Units cd0 = __builtin_shufflevector(c, d, 0, 4, 1, 5), cd1 = __builtin_shufflevector(c, d, 2, 6, 3, 7);
  const Units columns[4] = {
      __builtin_shufflevector(ab0, cd0, 0, 1, 4, 5), __builtin_shufflevector(ab0, cd0, 2, 3, 6, 7),
      __builtin_shufflevector(ab1, cd1, 0, 1, 4, 5), __builtin_shufflevector(ab1, cd1, 2, 3, 6, 7)};
  for (int64_t i = 0; i < 4; ++i) std::memcpy(out + i * kPanel * 4, &columns[i], 16);
}

namespace {

// Eight 16-bit units of four rows; f8_byte() keeps four outputs of a pair together.
typedef uint16_t Pairs __attribute__((vector_size(16)));

void transpose_4x8(const std::byte* const* rows, int64_t at, std::byte* out) {
  Pairs a, b, c, d;
  std::memcpy(&a, rows[0] + at, 16);
  std::memcpy(&b, rows[1] + at, 16);
  std::memcpy(&c, rows[2] + at, 16);
  std::memcpy(&d, rows[3] + at, 16);
  const Units ab0 = (Units)__builtin_shufflevector(a, b, 0, 8, 1, 9, 2, 10, 3, 11),
              ab1 = (Units)__builtin_shufflevector(a, b, 4, 12, 5, 13, 6, 14, 7, 15);
  const Units cd0 = (Units)__builtin_shufflevector(c, d, 0, 8, 1, 9, 2, 10, 3, 11),
              cd1 = (Units)__builtin_shufflevector(c, d, 4, 12, 5, 13, 6, 14, 7, 15);
  const Units columns[4] = {
      __builtin_shufflevector(ab0, cd0, 0, 4, 1, 5), __builtin_shufflevector(ab0, cd0, 2, 6, 3, 7),
      __builtin_shufflevector(ab1, cd1, 0, 4, 1, 5), __builtin_shufflevector(ab1, cd1, 2, 6, 3, 7)};
  for (int64_t i = 0; i < 4; ++i) {
    std::memcpy(out + (2 * i) * 2 * kPanel, &columns[i], 8);
    std::memcpy(out + (2 * i + 1) * 2 * kPanel, reinterpret_cast<const std::byte*>(&columns[i]) + 8, 8);
  }
}

// A format whose units of `bytes` bytes of K go to place(unit, output). Whole pieces of 16 bytes of four rows by
// transpose(), whose first output and unit go to the same place; what is left one by one.
template <class Place, class Transpose>
void copy_units(const std::byte* const* rows, int64_t begin, int64_t end, int64_t bytes, Place place,
                Transpose transpose) {
  constexpr int64_t kStrip = 256;  // bytes of each row whose lines of the panel stay in the first cache
  const int64_t whole = begin + (end - begin) / 16 * 16;
  for (int64_t strip = begin; strip < whole; strip += kStrip) {
    for (int c = 0; c + 4 <= kPanel && rows[c + 3] != nullptr; c += 4) {
      for (int64_t at = strip; at < std::min(strip + kStrip, whole); at += 16)
        transpose(rows + c, at, place((at - begin) / bytes, c));
    }
  }
  for (int c = 0; c < kPanel && rows[c] != nullptr; ++c) {
    const bool alone = rows[c / 4 * 4 + 3] == nullptr;
    for (int64_t at = alone ? begin : whole; at < end; at += bytes) {
      std::memcpy(place((at - begin) / bytes, c), rows[c] + at, static_cast<size_t>(std::min(bytes, end - at)));
    }
  }
}

void copy_f16(const std::byte* const* rows, int64_t begin, int64_t count, std::byte* out) {
  for (int c = 0; c < kPanel && rows[c] != nullptr; ++c) {
    for (int64_t i = 0; i < count; ++i) std::memcpy(out + (i * kPanel + c) * 2, rows[c] + (begin + i) * 2, 2);
  }
}

// Bytes [begin, end) of each row.
void copy_bytes(const std::byte* const* rows, PackedFormat format, int64_t begin, int64_t end, std::byte* out) {
  if (format == PackedFormat::kF8) {
    const auto pairs = [out](int64_t i, int c) { return out + i * 2 * kPanel + f8_byte(c, 0); };
    return copy_units(rows, begin, end, 2, pairs, transpose_4x8);
  }
  const auto words = [out](int64_t i, int c) { return out + (i * kPanel + c) * 4; };
  copy_units(rows, begin, end, 4, words, transpose_4x4);
}

// Whether all rows have the same place in their lines of memory, and units do not lie across two.
bool in_step(const std::byte* const* rows, uintptr_t unit) {
  const auto first = reinterpret_cast<uintptr_t>(rows[0]);
  bool same = first % unit == 0;
  for (int c = 1; c < kPanel; ++c) same = same && (reinterpret_cast<uintptr_t>(rows[c]) - first) % 64 == 0;
  return same;
}

}  // namespace

void copy_panel(const std::byte* const* rows, PackedFormat format, int64_t begin, int64_t count, std::byte* out,
                const NextRows& next) {
  SW_CHECK(format != PackedFormat::kInt8 && format != PackedFormat::kInt4, "integers are never stored");
  const bool full = rows[kPanel - 1] != nullptr;
  if (!full || padded_k(count) != count) std::memset(out, 0, static_cast<size_t>(panel_bytes(format, padded_k(count))));
  if (format == PackedFormat::kF16) return copy_f16(rows, begin, count, out);
  const int64_t size = panel_bytes(format, 4) / (4 * kPanel), at = begin * size, bytes = count * size;
  const auto copy = format == PackedFormat::kF8 ? kernel_table().copy_pairs : kernel_table().copy_words;
  if (!full || copy == nullptr) return copy_bytes(rows, format, at, at + bytes, out);
  LineCopy lines;
  lines.rows = reinterpret_cast<const char* const*>(rows);
  lines.at = at;
  lines.bytes = bytes;
  lines.aligned = in_step(rows, format == PackedFormat::kF8 ? 2 : 4);
  lines.next = reinterpret_cast<const char* const*>(next.rows);
  lines.next_at = next.begin * size;
  lines.out = reinterpret_cast<char*>(out);
  copy(lines);
}

}  // namespace spillway::kernels::cpu
