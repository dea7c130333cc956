// Copying rows of weights, as stored, into the layout of a panel (packing.h). Of formats whose elements are those of
// the checkpoint: kF32, kF16, kBf16 and kF8.
#pragma once

#include "kernels/linear.h"

namespace spillway::kernels::cpu {

// Rows that will be copied next, to be fetched meanwhile; rows may be null.
struct NextRows {
  const std::byte* const* rows = nullptr;
  int64_t begin = 0;  // element of K
};

// Elements [begin, begin + count) of kPanel rows, null where there is none, to [padded_k(count)][kPanel] at out, which
// gets zeros where there is nothing to copy.
void copy_panel(const std::byte* const* rows, PackedFormat format, int64_t begin, int64_t count, std::byte* out,
                const NextRows& next = {});

// Four 32-bit units of four rows, transposed in registers: out[i][c], rows of out kPanel units apart.
void transpose_4x4(const std::byte* const* rows, int64_t at, std::byte* out);

}  // namespace spillway::kernels::cpu
