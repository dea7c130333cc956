// How packed weights lie in memory. Integers are cut into panels of kPanel outputs; K is padded with zeros to a
// multiple of 4 (k_padded). Within a panel: [k_padded / 4][kPanel][4], the value plus 128. Every other format lies in
// rows of K, as checkpoints have them (RowPanel).
#pragma once

#include "kernels/linear.h"

namespace spillway::kernels::cpu {

int64_t padded_k(int64_t k);
int64_t panels_of(int64_t n);

// Bytes of kPanel outputs' first k elements of K (k a multiple of 4).
int64_t panel_bytes(PackedFormat format, int64_t k);

// What x is multiplied with before it is quantised, [K]; null: nothing.
const float* multipliers_of(const PackedLinear& weight);

}  // namespace spillway::kernels::cpu
