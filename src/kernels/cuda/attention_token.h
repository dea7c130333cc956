// Attention of one new token a sequence from a layer's fused projection on: bias, norm of heads, rope, the writing of
// pages and attention in one launch. Few sequences have a cluster of blocks for each kv head (attention_token.cuh,
// sm_90); more share out the blocks by context (attention_decode.cuh, sm_80). The same numbers as store_keys_values and
// attention_decode, which serve every other batch. Any thread; nothing is allocated or synchronised.
#pragma once

#include "kernels/cuda/attention_paged.h"

namespace spillway::kernels::cuda {

struct TokenAttention {
  const void* qkv = nullptr;                               // pages.dtype [S, (heads + 2 kv_heads) * dim]; read only
  int64_t qkv_stride = 0;                                  // elements
  const float* bias = nullptr;                             // [(heads + 2 kv_heads) * dim] or null
  const float *query_norm = nullptr, *key_norm = nullptr;  // [dim] or null
  float norm_eps = 0;
  const float* cos_sin = nullptr;  // [positions, 2, dim / 2]
  void* out = nullptr;             // pages.dtype, rows of [heads][dim]
  int64_t out_stride = 0;          // elements
  int heads = 0;
  float scale = 1.0f;
  KvPages pages;
  Batch batch;  // one row a sequence
  // The next kernel on the stream may start once every block of this one has: where that one's blocks share no
  // multiprocessor with one another.
  bool starts_next = false;
  // token_attention_workspace_bytes() bytes, used as PagedAttention's is.
  void* workspace = nullptr;
};

// Whether there is a kernel for it.
bool token_attention_takes(const TokenAttention& args);
size_t token_attention_workspace_bytes(const TokenAttention& args);

// Launched as dependent on the stream's previous kernel: before that one has ended it reads the batch's arrays, bias,
// norms, cos_sin and pages of earlier tokens, nothing else. Of few sequences it lets the next kernel start at once: one
// whose blocks must not meet in a multiprocessor sees to that itself (gemv_small_batch.h).
cudaError_t launch_token_attention(const TokenAttention& args, cudaStream_t stream);

}  // namespace spillway::kernels::cuda
