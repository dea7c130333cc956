// Causal attention over paged keys and values, and the writing of pages.
//
// A row of output is computed over blocks of 64 context positions in rising order, whatever the batch, the chunking of
// a prompt or the threads; its bits depend on its own query and context only. Softmax in float32. Tolerance against
// float64: 1e-5 of the largest |v| with float32 pages; with bf16 pages the stored values are taken as exact.
#pragma once

#include <cstdint>
#include <span>

#include "kernels/cuda/paging.h"
#include "tensor/arena.h"
#include "tensor/stream.h"
#include "tensor/tensor.h"

namespace spillway::kernels {

struct PackedLinear;  // kernels/linear.h

// One layer's keys and values for all pages. Page p is at base + p * page_stride_bytes and holds
//   keys   [kv_heads][k_dim][page_tokens]   (transposed: a SIMD register holds neighbouring positions)
//   values [kv_heads][page_tokens][v_dim]
// page_tokens is a multiple of 16. Bytes of positions not yet written are never used.
struct KvPagesView {
  std::byte* base = nullptr;
  int64_t page_stride_bytes = 0;
  tensor::DType dtype = tensor::DType::kF32;  // f32 or bf16
  int page_tokens = 64;
  int kv_heads = 1;
  int k_dim = 128;
  int v_dim = 128;

  int64_t page_bytes() const {
    return int64_t{page_tokens} * kv_heads * (k_dim + v_dim) * static_cast<int64_t>(tensor::size_of(dtype));
  }
};

// The rows of one sequence in a ragged batch: rows [row_begin, row_begin + rows) of the batch's tensors are its tokens
// at positions [position, position + rows). pages covers at least position + rows tokens.
struct SequenceRows {
  int32_t row_begin = 0;
  int32_t rows = 0;
  int32_t position = 0;
  std::span<const int32_t> pages;
};

// All rows of a step. The host's view of the sequences; where kernels run elsewhere, the same in that device's memory.
struct BatchRows {
  std::span<const SequenceRows> sequences;
  tensor::TensorView positions;  // i32 [T], in the memory of the stream's device
  cuda::Batch device = {};       // CUDA only
};

// Rows of a fused projection: element 0 of head h of row t is at data[t * row_stride + offset + h * head_stride].
struct HeadRows {
  const float* data = nullptr;
  int64_t row_stride = 0;
  int64_t offset = 0;
  int64_t head_stride = 0;
};
// A f32 tensor [T, heads, dim] as rows.
HeadRows head_rows(tensor::TensorView tensor);

// Writes keys (k_dim a head) and values (v_dim a head) of every row to its position's page.
void write_kv(const HeadRows& keys, const HeadRows& values, std::span<const SequenceRows> batch,
              const KvPagesView& pages, tensor::Stream& stream);

struct AttentionArgs {
  HeadRows queries;    // heads x k_dim
  int heads = 0;       // a multiple of kv_heads; head h reads kv head h / (heads / kv_heads)
  float scale = 1.0f;  // of the scores before softmax
  KvPagesView pages;
  tensor::TensorView out;  // f32 [T, heads, v_dim]
};
// The pages hold the batch's own rows already (write_kv first). Row at position p attends to positions 0..p.
void paged_attention(const AttentionArgs& args, std::span<const SequenceRows> batch, tensor::Stream& stream);

// A layer's attention from its fused projection on: the norm of each head's query and key where there is one, rope
// (halves), the writing of pages, attention. Activations are of the stream's type (nn/step.h).
struct GroupedAttentionArgs {
  tensor::TensorView qkv;       // activations [T, (heads + 2 kv_heads) * dim]: queries, keys, values; overwritten
  tensor::TensorView qkv_bias;  // f32 [(heads + 2 kv_heads) * dim], added to qkv first; or empty
  int heads = 0;
  tensor::TensorView query_norm, key_norm;  // f32 [dim], or both empty
  float norm_epsilon = 0;
  tensor::TensorView cos_sin;  // f32 [positions_max, 2, dim / 2]
  float scale = 1.0f;
  KvPagesView pages;       // kv_heads, and k_dim = v_dim = dim
  tensor::TensorView out;  // activations [T, heads * dim]
  // The product that reads `out` next on the stream, if known: on a device it may start before attention has ended.
  const PackedLinear* next = nullptr;
};
void grouped_attention(const GroupedAttentionArgs& args, const BatchRows& batch, tensor::Arena& arena,
                       tensor::Stream& stream);

// Causal attention of one sequence over keys and values expanded by the caller (MLA's naive form): rows of queries are
// at positions [position, position + rows). keys f32 [context, heads, k_dim], values f32 [context, heads, v_dim] with
// context >= position + rows; out f32 [rows, heads, v_dim].
struct DenseAttentionArgs {
  HeadRows queries;
  HeadRows keys;
  HeadRows values;
  int heads = 0;
  int k_dim = 0;
  int v_dim = 0;
  int rows = 0;
  int position = 0;
  float scale = 1.0f;
  tensor::TensorView out;
};
void dense_attention(const DenseAttentionArgs& args, tensor::Stream& stream);

}  // namespace spillway::kernels
