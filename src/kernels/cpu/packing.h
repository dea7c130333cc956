// How packed weights lie in memory. A weight is cut into panels of kPanel outputs; K is padded with zeros to a multiple
// of 4 (k_padded). Within a panel:
//   kF32, kF16  [k_padded][kPanel]
//   kBf16       [k_padded / 2][kPanel][2]: the pairs of the bf16 dot instruction
//   kF8         [k_padded / 2][64]: the bytes of a pair of K so that interleaving two registers of widened low and high
//               halves yields the pairs in order; f8_byte() says where
//   kInt8       [k_padded / 4][kPanel][4], the value plus 128
#pragma once

#include "kernels/linear.h"

namespace spillway::kernels::cpu {

int64_t padded_k(int64_t k);
int64_t panels_of(int64_t n);

// Bytes of a panel's first k elements of K (k a multiple of 4).
int64_t panel_bytes(PackedFormat format, int64_t k);

// What x is multiplied with before it is quantised, [K]; null: nothing.
const float* multipliers_of(const PackedLinear& weight);

// Where in the 64 bytes of a pair element `second` (0 or 1) of output c of the panel lies.
int f8_byte(int c, int second);

}  // namespace spillway::kernels::cpu
