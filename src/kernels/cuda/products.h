// What products have for attention: those by head of latent attention, over rows that may lie apart (kernels/mla.h);
// which product may start while attention ends.
#pragma once

#include "kernels/cuda/context.h"
#include "kernels/linear.h"

namespace spillway::kernels::cuda {

// y[t, h, :n] = W_h x[t, h, :k]; head h of row t at (t * heads + h) * x_head elements, and likewise in y.
struct HeadProduct {
  const HeadLinear* weights = nullptr;
  tensor::DType dtype = tensor::DType::kBF16;
  const void* x = nullptr;
  int64_t x_head = 0;
  void* y = nullptr;
  int64_t y_head = 0;
  int64_t rows = 0;
};
void product_by_head(const HeadProduct& args, tensor::Stream& stream);

// Whether the product of x goes to gemm_bf16_split, whose blocks have a multiprocessor each: what stands before it on
// the stream may let it start early.
bool takes_split_bf16(tensor::TensorView x, const PackedLinear& w, tensor::Stream& stream);

}  // namespace spillway::kernels::cuda
