#include "kernels/cpu/int8_packing.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <vector>

#include "kernels/cpu/kernel_table.h"
#include "kernels/cpu/packing.h"

namespace spillway::kernels::cpu {
namespace {

// Bytes of kPanel rows, [kPanel][stride], to [words][kPanel][4].
void transpose_group(const std::vector<uint8_t>& bytes, int64_t stride, int words, std::byte* out) {
  for (int c = 0; c < kPanel; c += 4) {
    const std::byte* four[4];
    for (int j = 0; j < 4; ++j) four[j] = reinterpret_cast<const std::byte*>(bytes.data() + (c + j) * stride);
    int i = 0;
    for (; i + 4 <= words; i += 4) transpose_4x4(four, 4 * i, out + (i * kPanel + c) * 4);
    for (; i < words; ++i) {
      for (int j = 0; j < 4; ++j) std::memcpy(out + (i * kPanel + c + j) * 4, four[j] + 4 * i, 4);
    }
  }
}

// How many whole groups the instruction set's own way took.
int64_t pack_whole_groups(const PanelRows& rows, const Int8Packing& packing, int64_t begin, int64_t end, std::byte* out,
                          float* scales, const NextRows& next) {
  const auto quantize = kernel_table().quantize_panel;
  const int64_t groups = (end - begin) / kInt8Group;
  if (quantize == nullptr || groups == 0 || rows.dtype != tensor::DType::kBF16 || !rows.full ||
      packing.group != kInt8Group || packing.smooth != nullptr || packing.with_sums) {
    return 0;
  }
  std::array<const char*, kPanel> data;
  for (size_t c = 0; c < kPanel; ++c) {
    if (rows.row[c].stride != 1) return 0;
    data[c] = reinterpret_cast<const char*>(rows.row[c].data);
  }
  QuantizeTask task;
  task.rows = data.data();
  task.at = begin * 2;
  task.groups = groups;
  task.next = reinterpret_cast<const char* const*>(next.rows);
  task.next_at = next.begin * 2;
  task.out = reinterpret_cast<uint8_t*>(out);
  task.scales = scales;
  quantize(task);
  return groups;
}

}  // namespace

void pack_int8(const PanelRows& rows, const Int8Packing& packing, int64_t begin, int64_t end, std::byte* out,
               float* scales, const NextRows& next) {
  const int64_t scale_floats = packing.with_sums ? 2 * kPanel : kPanel;
  const int64_t done = pack_whole_groups(rows, packing, begin, end, out, scales, next);
  begin += done * packing.group;
  if (begin >= end) return;
  out += done * packing.group * kPanel;
  scales += done * scale_floats;
  const int64_t stride = padded_k(packing.group);
  std::vector<float> values(static_cast<size_t>(packing.group));
  std::vector<uint8_t> bytes(static_cast<size_t>(kPanel * stride));
  for (; begin < end; begin += packing.group, out += packing.group * kPanel, scales += scale_floats) {
    const int64_t count = std::min(packing.group, end - begin);
    if (count < stride || !rows.full) {
      std::fill(bytes.begin(), bytes.end(), uint8_t{128});
      std::fill(scales, scales + scale_floats, 0.0f);
    }
    for (int c = 0; c < kPanel; ++c) {
      if (!read_row(rows, c, begin, count, values.data())) continue;
      for (int64_t i = 0; packing.smooth != nullptr && i < count; ++i) {
        values[static_cast<size_t>(i)] *= packing.smooth[begin + i];
      }
      uint8_t* row = bytes.data() + c * stride;
      scales[c] = kernel_table().quantize_weights(values.data(), count, row);
      if (!packing.with_sums) continue;
      int32_t sum = 0;
      for (int64_t i = 0; i < count; ++i) sum += row[i] - 128;
      scales[kPanel + c] = static_cast<float>(sum);
    }
    transpose_group(bytes, stride, static_cast<int>(padded_k(count) / 4), out);
  }
}

}  // namespace spillway::kernels::cpu
