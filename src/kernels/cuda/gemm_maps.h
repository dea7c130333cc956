// Tensor maps for the copy engine: views of row-major matrices in boxes, made on the host at each launch (about a
// microsecond) and passed to the kernel by value, so a captured graph keeps them.
#pragma once

#include <cuda.h>
#include <cuda_runtime_api.h>

#include <cstdint>

namespace spillway::kernels::cuda {

enum class MapType : uint8_t { kBytes, kBf16, kF32 };

// [rows, columns] with row stride in bytes (a multiple of 16); reads outside give zeros. Swizzled: 128-byte swizzle,
// box_columns then 128 bytes wide.
bool make_map(CUtensorMap* map, MapType type, const void* data, int64_t rows, int64_t columns, int64_t stride_bytes,
              int box_rows, int box_columns, bool swizzled);

}  // namespace spillway::kernels::cuda
