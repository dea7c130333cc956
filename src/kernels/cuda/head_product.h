// Products by head for latent attention's absorbed form, y[t, h, :n] = W_h x[t, h, :k], where bits may not depend on
// the batch: the library's batched products are faster at every size (NOTES-products.md), but their bits depend on it.
//
// bf16 operands, float32 sums over k in one fixed order: a row's bits depend on its own x and the weight only. k a
// multiple of 32, n of 16; pointers and strides of 16 bytes. sm_80 and later.
#pragma once

#include "kernels/cuda/gemm_types.h"

namespace spillway::kernels::cuda {

struct HeadRowsProduct {
  int rows = 0;
  int heads = 0;
  int n = 0;
  int k = 0;
  const void* x = nullptr;  // bf16; head h of row t at (t * heads + h) * x_head elements
  int64_t x_head = 0;
  const void* w = nullptr;  // bf16 [heads, n, k]
  void* y = nullptr;        // bf16; head h of row t at (t * heads + h) * y_head elements
  int64_t y_head = 0;
};

bool head_product_takes(const HeadRowsProduct& product);
cudaError_t launch_head_product(const HeadRowsProduct& product, cudaStream_t stream);

}  // namespace spillway::kernels::cuda
