// The rows of stacked weights as packing reads them. Plain values that borrow the sources' bytes.
#pragma once

#include <array>
#include <vector>

#include "kernels/cpu/kernel_table.h"
#include "kernels/linear.h"

namespace spillway::kernels::cpu {

struct WeightRow {
  const std::byte* data = nullptr;  // null past the last row
  int64_t stride = 1;               // elements between neighbours along K
  const float* scales = nullptr;    // of this row's blocks along K
};

struct PanelRows {
  std::array<WeightRow, kPanel> row;
  tensor::DType dtype = tensor::DType::kF32;
  int block_k = 0;
  bool full = true;
};

struct StackedRows {
  std::vector<WeightSource> sources;
  int64_t n = 0;
  int64_t k = 0;

  WeightRow row(int64_t index) const;
  PanelRows panel(int64_t first) const;
};

// Checks types and shapes.
Result<StackedRows> stack_rows(std::span<const WeightSource> sources);

// Elements [begin, begin + count) of row c with scales applied. False when there is no such row.
bool read_row(const PanelRows& rows, int c, int64_t begin, int64_t count, float* out);

}  // namespace spillway::kernels::cpu
