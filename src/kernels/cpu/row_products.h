// Products with weights in rows, where the checkpoint has them: the loop nest behind run_products() for every format
// but integers. Few rows of x read the weights where they are; for many, a group of panels is first brought into a
// buffer of the thread that stays in the second cache, and widened there if need be.
#pragma once

#include "kernels/cpu/products.h"

namespace spillway::kernels::cpu {

// Scratch bytes of one thread.
size_t row_product_bytes(const Product& product);

// How many panels a group has at most.
int64_t row_group_panels(const Product& product);

struct RowGroup {
  int64_t begin = 0;   // panel
  int64_t panels = 0;  // fewer at the end
  int threads = 1;     // that take groups by turns
};

void run_row_group(const Product& product, const RowGroup& group, std::byte* scratch);

}  // namespace spillway::kernels::cpu
