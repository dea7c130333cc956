// Small operations on rows: norms, activation, addition, embedding. All in float32; tolerance 2e-6 relative to the
// largest value of a row. Rows are independent: bits do not depend on the batch or the threads. Inputs may be the
// outputs. On CUDA outputs of norms and activations may be bf16 or f16 (the types of activations): rounded once.
#pragma once

#include "tensor/stream.h"
#include "tensor/tensor.h"

namespace spillway::kernels {

// y[t] = x[t] / sqrt(mean(x[t]^2) + eps) * weight. x, y f32 [..., D]; weight f32 [D]. For the norm of each head
// (Qwen3), view x as [T, heads, head_dim].
void rms_norm(tensor::TensorView x, tensor::TensorView weight, float eps, tensor::TensorView y, tensor::Stream& stream);

// The same over D elements of each row of x [T, x_stride] from x_offset, to y [T, D]: parts of a fused projection.
void rms_norm_slice(tensor::TensorView x, int64_t x_offset, tensor::TensorView weight, float eps, tensor::TensorView y,
                    tensor::Stream& stream);

// residual += x, then y = rms_norm(residual). All f32 [T, D].
void add_rms_norm(tensor::TensorView residual, tensor::TensorView x, tensor::TensorView weight, float eps,
                  tensor::TensorView y, tensor::Stream& stream);

// y[t] = silu(x[t, :D]) * x[t, D:]. x f32 [T, 2 * D], y f32 [T, D].
void silu_mul(tensor::TensorView gate_up, tensor::TensorView y, tensor::Stream& stream);

// y += x; f32, equal shapes.
void add(tensor::TensorView y, tensor::TensorView x, tensor::Stream& stream);

// y[t] = table[ids[t]]. table f32|bf16|f16 [V, D]; ids i32 [T], each in [0, V); y f32 [T, D].
void embedding(tensor::TensorView table, tensor::TensorView ids, tensor::TensorView y, tensor::Stream& stream);

// y[t] = x[ids[t]]. x, y f32 [., D]; ids i32 [T].
void gather_rows(tensor::TensorView x, tensor::TensorView ids, tensor::TensorView y, tensor::Stream& stream);

// y[t, :D] = x[t, x_offset : x_offset + D]. x f32 [T, x_stride], y f32 [T, D]: splits a fused projection.
void copy_slice(tensor::TensorView x, int64_t x_offset, tensor::TensorView y, tensor::Stream& stream);

}  // namespace spillway::kernels
