// Causal attention over paged keys and values on an NVIDIA GPU: decode and verification steps (a few rows of a
// sequence) and prompts (many rows, with prefix pages before them). The device's counterpart of paged_attention in
// kernels/attention.h: the pages hold the step's own rows already. Any thread; nothing is allocated or synchronised,
// all values that change from step to step are read on the device, so a launch can be captured into a graph. Not its
// job: writing pages, rotary embedding, projections.
//
// Softmax and sums are float32, probabilities are rounded to the pages' type before the product with the values.
// Tolerance against float64 (the stored values taken as exact), by relative norm: 4e-3 bf16, 6e-4 f16, 1e-5 f32.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>

#include "kernels/cuda/paging.h"

namespace spillway::kernels::cuda {

struct PagedAttention {
  const void* queries = nullptr;  // pages.dtype; head h of row t at queries + t * query_stride + h * pages.dim
  int64_t query_stride = 0;       // elements; rows and the pointer are 16-byte aligned
  void* out = nullptr;            // pages.dtype; [T] rows of [heads][dim]
  int64_t out_stride = 0;         // elements; 8-byte aligned rows
  int heads = 0;                  // a multiple of pages.kv_heads; head h reads kv head h / (heads / kv_heads)
  float scale = 1.0f;             // of the scores before softmax
  KvPages pages;
  Batch batch;
  // How decode splits a long context over the device. 0: evenly, whatever the batch is (fastest; the bits of a row
  // depend on the batch). Otherwise a multiple of 64: every so many tokens, so that a row's bits depend on its own
  // query and context only.
  int split_tokens = 0;
  // attention_workspace_bytes() bytes, zeroed once when allocated and then left alone between launches (a launch
  // leaves its counters at zero). One workspace serves the launches of one stream.
  void* workspace = nullptr;
  // Programmatic dependent launch on sm_90: the kernel may start while the stream's previous kernel still runs. Before
  // that one has ended it reads the batch's arrays and pages of tokens before this step's rows, nothing else; so they
  // must have been written before the previous kernel started (by a copy at the start of the step, by earlier steps).
  bool overlap = false;
  // Decode on sm_90: the stream's next kernel, launched with overlap, may start once this one's wait is over.
  bool starts_next = false;
};

// Workspace for launches of up to `sequences` sequences of up to rows_max rows each with contexts to context_max.
// Only attention_decode uses it.
size_t attention_workspace_bytes(int heads, int kv_heads, int dim, int sequences, int rows_max, int context_max,
                                 int split_tokens);

// Made for few rows a sequence (up to about 8): bound by the reading of pages. Any number of rows is correct.
// Tensor cores for bf16 (sm_80) and f16 with dim 64, 96, 128, 256; otherwise attention_simple.
cudaError_t attention_decode(const PagedAttention& args, cudaStream_t stream);

// Made for many rows a sequence: bound by arithmetic. Any number of rows is correct. A row's bits depend on its own
// query and context only when split_tokens > 0 and every launch of that row is one of prefill.
cudaError_t attention_prefill(const PagedAttention& args, cudaStream_t stream);

// Plain arithmetic in float32 for every type, dim a multiple of 8 up to 512, and architecture: the specification on the
// device, and the path of float32 pages and of chips without these tensor core instructions.
cudaError_t attention_simple(const PagedAttention& args, cudaStream_t stream);

}  // namespace spillway::kernels::cuda
