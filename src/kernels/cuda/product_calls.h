// The calls of the product kernels with tensors for arguments: which of them takes a product is products.cc's choice.
// Each launches on the stream; errors of the driver are thrown.
#pragma once

#include "kernels/cuda/context.h"
#include "kernels/linear.h"

namespace spillway::kernels::cuda {

Weight weight_of(const PackedLinear& w);

// gemv_small_batch, by up to 32 rows a launch, which reads the weight once each; x of a norm is float32.
void small_batch(tensor::TensorView x, const InputNorm& norm, const PackedLinear& w, tensor::TensorView y,
                 const float* bias, Epilogue epilogue, tensor::Stream& stream);

// gemm_bf16: sm_90, K a multiple of 64, N of 8.
void own_bf16(tensor::TensorView x, const PackedLinear& w, tensor::TensorView y, const float* bias, Epilogue epilogue,
              tensor::Stream& stream);

// gemm_bf16_split: as own_bf16, up to 128 rows of a weight of few outputs; neither bias nor kSwiGlu.
void split_bf16(tensor::TensorView x, const PackedLinear& w, tensor::TensorView y, Epilogue epilogue,
                tensor::Stream& stream);

// gemm_bf16_prefill: as own_bf16, many rows; N of 16 with kSwiGlu.
void prompt_bf16(tensor::TensorView x, const PackedLinear& w, tensor::TensorView y, Epilogue epilogue,
                 tensor::Stream& stream);

// Whether so many rows of FP8 weights go to gemm_fp8_few_rows, in fp8_product.
bool takes_few_rows_fp8(const PackedLinear& w, int64_t rows, tensor::Stream& stream);

// gemm_fp8, gemm_fp8_few_rows, or the library's block-scaled product where it is faster, over activations quantised to
// scratch: sm_90, K a multiple of 128, N of 8. gates: x is gates and ups, whose SwiGLU is quantised.
void fp8_product(tensor::TensorView x, const InputNorm& norm, bool gates, const PackedLinear& w, tensor::TensorView y,
                 bool accumulate, tensor::Stream& stream);

// cuBLASLt over plain rows [N, K] at `w`, of x's type. In fixed shapes where the stream asks for batch invariance.
void library_product(tensor::TensorView x, const void* w, const PackedLinear& packed, tensor::TensorView y,
                     bool accumulate, tensor::Stream& stream);

}  // namespace spillway::kernels::cuda
