// Rows of a table in 7 bits a value, see QuantizedTable. Eight values are seven bytes: value + 64, the first in the
// lowest bits. Any thread.
#pragma once

#include <cstdint>

namespace spillway::kernels::cpu {

constexpr int kTableGroup = 128;  // values that share a scale
constexpr int kTableLevels = 63;  // above zero; one more below

constexpr int64_t table_row_bytes(int64_t width) { return (width + 7) / 8 * 7; }
constexpr int64_t table_groups(int64_t width) { return (width + kTableGroup - 1) / kTableGroup; }

// One row; of a few scales each group takes the one with the least error. row: width floats.
void quantize_table_row(const float* row, int64_t width, uint8_t* bytes, float* scales);

// y = the row, or y += the row.
void read_table_row(const uint8_t* bytes, const float* scales, int64_t width, bool add, float* y);

}  // namespace spillway::kernels::cpu
