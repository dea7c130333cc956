// What encoders and vision models need beside products: layer norm, pointwise activations, embeddings of BERT's form,
// attention over whole sequences, pooling. float32 in and out; tolerance 4e-6 relative to the largest value of a row,
// attention 1e-5 (2^-8 with half). Rows and sequences are independent: bits do not depend on the batch or the threads.
#pragma once

#include <span>

#include "kernels/activation.h"
#include "tensor/stream.h"
#include "tensor/tensor.h"

namespace spillway::kernels {

// y[t] = (x[t] - mean) / sqrt(variance + eps) * weight + bias. x, y f32 [T, D], may be the same; bias may be empty.
void layer_norm(tensor::TensorView x, tensor::TensorView weight, tensor::TensorView bias, float eps,
                tensor::TensorView y, tensor::Stream& stream);

// x = activation(x), f32, in place.
void activate(tensor::TensorView x, Activation activation, tensor::Stream& stream);

// x[t] += bias. x f32 [T, D].
void add_bias(tensor::TensorView x, tensor::TensorView bias, tensor::Stream& stream);

// y[t] = activation(x[t, :D]) * x[t, D:]. x f32 [T, 2 * D], y f32 [T, D].
void gated_activation(tensor::TensorView x, Activation activation, tensor::TensorView y, tensor::Stream& stream);

// y[t] = norm(tokens[ids[t]] + positions[first_position + position[t]] + types[type[t]]).
struct EmbeddingNormArgs {
  tensor::TensorView tokens;        // f32|bf16|f16 [V, D]; on the CPU also a QuantizedTable's values
  tensor::TensorView token_scales;  // of those
  tensor::TensorView positions;     // f32|bf16|f16 [P, D], or empty
  tensor::TensorView types;         // f32|bf16|f16 [., D], or empty
  tensor::TensorView ids;           // i32 [T], each in [0, V)
  tensor::TensorView position;      // i32 [T]
  tensor::TensorView type;          // i32 [T], or empty: all 0
  int first_position = 0;
  tensor::TensorView weight;  // f32 [D]; empty: no norm
  tensor::TensorView bias;    // f32 [D], or empty
  float eps = 0;
  tensor::TensorView y;  // f32 [T, D]
};
void embedding_norm(const EmbeddingNormArgs& args, tensor::Stream& stream);

// Attention of every row of a sequence to every row of it, or to those at most `window` away.
struct SequenceAttentionArgs {
  tensor::TensorView q, k, v;        // f32: rows of row_stride elements; head h starts at h * head_dim
  int64_t row_stride = 0;            // 3 * heads * head_dim where they are one product's columns
  std::span<const int32_t> offsets;  // sequence s is rows [offsets[s], offsets[s + 1])
  int heads = 0;
  int head_dim = 0;      // even
  float scale = 1;       // of q k
  int window = 0;        // 0: the whole sequence
  bool half = false;     // products in bf16 where the CPU has them
  bool firsts = false;   // nobody reads but each sequence's first row of y: the others may stay as they are
  tensor::TensorView y;  // f32 [T, heads * head_dim]
};
void sequence_attention(const SequenceAttentionArgs& args, tensor::Stream& stream);

// A table in 7 bits a value, groups of 128 along its rows with a scale each, that of a few with the least error. On the
// CPU.
struct QuantizedTable {
  tensor::Tensor values;  // u8 [V, 7 * ceil(D / 8)]
  tensor::Tensor scales;  // f32 [V, ceil(D / 128)]
};
QuantizedTable quantize_table(tensor::TensorView table, tensor::Stream& stream);  // f32|bf16|f16 [V, D]

enum class Pooling : uint8_t { kFirst, kMean, kMax, kLast, kMeanSqrtLength };

// y[s] = the pool of rows [offsets[s], offsets[s + 1]) of x f32 [T, D]; y f32 [S, D].
void pool_rows(tensor::TensorView x, std::span<const int32_t> offsets, Pooling pooling, tensor::TensorView y,
               tensor::Stream& stream);

}  // namespace spillway::kernels
