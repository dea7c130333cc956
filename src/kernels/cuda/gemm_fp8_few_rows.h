// Experts' FP8 products where each expert gets few rows (decode): as the contiguous kind of gemm_fp8.h, in blocks of 16
// or 32 rows, and gate and up may give silu(gate) * up at once. The weight is the tensor cores' first operand, so that
// a tile is as tall as the weight is read and as narrow as there are rows: what moves besides the weight is little.
//
// The caller owns all memory; any thread. Not its job: sorting rows by expert, quantising (grouped_experts.h).
// Tolerance against float64 on the quantised operands: relative norm 4e-3, with SwiGLU 8e-3. A row's bits do not depend
// on other rows; they differ from those of gemm_fp8.h's SwiGLU, which rounds gate and up to bf16 first.
#pragma once

#include "kernels/cuda/gemm_types.h"
#include "kernels/cuda/quantize_activations.h"

namespace spillway::kernels::cuda {

struct Fp8FewRowsProduct {
  int experts = 0;
  int m = 0;           // rows of x: blocks of block_rows
  int block_rows = 0;  // 16 or 32
  // Of each block: the expert, negative for a block to skip; and how many of its rows are to be written. Complete
  // before the kernel in front of this one has begun its work: weights are read while that one ends.
  const int32_t* block_experts = nullptr;
  const int32_t* block_counts = nullptr;
  QuantizedActivations x;  // [m, k]
  Weight weight;           // of one expert, all one after another: kF8Block, scale_rows 128; n a multiple of 128
  const void* shared_data = nullptr;  // of one expert more, number `experts`, that lies elsewhere; null: none
  const void* shared_scales = nullptr;
  bool swiglu = false;  // the first n / 2 outputs are gates, the others ups: y [m, n / 2]
  void* y = nullptr;    // bf16 [m, n]
  int64_t y_stride = 0;
};

cudaError_t launch_fp8_few_rows(const Fp8FewRowsProduct& product, cudaStream_t stream);

}  // namespace spillway::kernels::cuda
