// Multi-head latent attention over paged latents in the absorbed form, for decode and verification steps on an NVIDIA
// GPU: the device's counterpart of latent_attention in kernels/mla.h. The pages hold the step's own rows already. Any
// thread; nothing is allocated or synchronised, and all lengths are read on the device (graph capture).
// Not its job: the product with W_UK (latent_queries of layers.h), writing pages. That with W_UV only of few rows,
// whose pieces are combined in the same launch: it spares one, and the weight arrives while attention ends.
//
// Floor: 2 * heads * context * (2 * lora + rope) FLOPs and context * (lora + rope) * 2 bytes a row of a sequence: with
// 128 heads 242 FLOPs a byte, bound by arithmetic on an H200 (790 TFLOP/s over 4.3 TB/s is 184); with 16 by bandwidth.
// Tolerance against float64 with the stored values taken as exact, by relative norm: 4e-3 bf16, 6e-4 f16, 1e-5 f32.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>

#include "kernels/cuda/paging.h"

namespace spillway::kernels::cuda {

struct LatentAttention {
  const void* queries = nullptr;  // pages.dtype; row t, head h: [lora_dim | rope_dim] at t * query_stride + h * 576
  int64_t query_stride = 0;       // elements; rows and the pointer are 16-byte aligned
  void* out = nullptr;            // pages.dtype; row t, head h: [lora_dim] at t * out_stride + h * lora_dim
  int64_t out_stride = 0;
  int heads = 0;
  float scale = 1.0f;
  LatentPages pages;  // lora_dim 512, rope_dim 64 for the fast path; others take the plain path
  Batch batch;
  int split_tokens = 0;       // as in attention_paged.h
  void* workspace = nullptr;  // mla_workspace_bytes(), zeroed once; one a stream
  bool overlap = false;       // as in attention_paged.h
  // W_UV [heads, kLatentValueDim, lora_dim]: values [T, heads, kLatentValueDim] = W_UV times what `out` would hold,
  // which is then work; null: none. Where mla_takes_values() says so.
  const void* value_up = nullptr;
  void* values = nullptr;
  int64_t values_stride = 0;
};

size_t mla_workspace_bytes(int heads, int sequences, int rows_max, int context_max, int split_tokens);

constexpr int kLatentValueDim = 128;
bool mla_takes_values(const LatentAttention& args, int value_dim);

// sm_90a with bf16 pages of 64 tokens: wgmma; elsewhere mla_simple. Any number of rows is correct; made for 1 to 4.
cudaError_t mla_decode(const LatentAttention& args, cudaStream_t stream);

// Plain float32 arithmetic for every type and architecture: the specification on the device.
cudaError_t mla_simple(const LatentAttention& args, cudaStream_t stream);

}  // namespace spillway::kernels::cuda
