// Tensor maps of the attention kernels: boxes of 64 columns (128 bytes, swizzled) out of rows in an outer dimension.
// Made on the host at each launch (about a microsecond) and passed by value, so a captured graph keeps them.
#pragma once

#include <cuda.h>
#include <cuda_runtime_api.h>

#include <cstdint>

#include "tensor/dtype.h"

namespace spillway::kernels::cuda {

// data[outer][rows][columns] of bf16 or f16, strides in bytes (multiples of 16); a load takes box_outer x box_rows x 64
// columns, zeros outside.
struct RowsMap {
  const void* data = nullptr;
  tensor::DType dtype = tensor::DType::kBF16;
  int64_t outer = 1, rows = 1, columns = 64;
  int64_t outer_stride = 0, row_stride = 0;
  int box_outer = 1, box_rows = 64;
};
bool make_rows_map(CUtensorMap* map, const RowsMap& rows);

}  // namespace spillway::kernels::cuda
