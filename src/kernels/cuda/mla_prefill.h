// Multi-head latent attention in its expanded form, for prompts on an NVIDIA GPU, and the small kernels around it. Any
// thread; nothing is allocated or synchronised, all lengths are read on the device.
//
// Keys and values are expanded by the caller from the latents of whole contexts: sequence s has the rows
// [context_begin[s], context_begin[s + 1]) of keys [C][heads][k_dim] and values [C][heads][v_dim]. A row of queries at
// position p attends to the rows 0..p of its sequence. Tolerance as in attention_paged.h.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>

#include "kernels/cuda/paging.h"

namespace spillway::kernels::cuda {

struct RaggedAttention {
  const void* queries = nullptr;  // head h of row t at t * query_stride + h * k_dim
  int64_t query_stride = 0;       // elements, as all strides here
  const void* keys = nullptr;     // head h of row c at c * key_stride + h * key_head_stride
  int64_t key_stride = 0;
  int64_t key_head_stride = 0;
  const void* values = nullptr;
  int64_t value_stride = 0;
  int64_t value_head_stride = 0;
  void* out = nullptr;  // head h of row t at t * out_stride + h * v_dim
  int64_t out_stride = 0;
  int heads = 0;
  int k_dim = 192;
  int v_dim = 128;
  float scale = 1.0f;
  tensor::DType dtype = tensor::DType::kBF16;  // of all four
  int64_t context_rows = 0;                    // C: rows of keys and values that may be read
  const int32_t* context_begin = nullptr;      // [S + 1], on the device
  Batch batch;                                 // page_table and pages_max are not used
  bool overlap = false;                        // as in attention_paged.h
};

// wgmma for bf16 and f16 with 192 and 128 on capability 9.0, elsewhere mla_prefill_simple.
cudaError_t mla_prefill(const RaggedAttention& args, cudaStream_t stream);

// Plain float32 arithmetic for every type, v_dim up to 512, and architecture: the specification on the device.
cudaError_t mla_prefill_simple(const RaggedAttention& args, cudaStream_t stream);

// Writes row t's latent (lora_dim, already normalised) and rope key (rope_dim, rotated here) to its position's page.
// Rotation: pairs (2i, 2i + 1) of the rope part by angles whose cosines and sines are given.
struct LatentWrite {
  const void* latents = nullptr;  // pages.dtype; row t at t * latent_stride
  int64_t latent_stride = 0;
  const void* rope_keys = nullptr;  // pages.dtype; row t at t * rope_stride
  int64_t rope_stride = 0;
  const float* cos_sin = nullptr;  // [positions][rope_dim]: rope_dim / 2 cosines, then as many sines; null: no rotation
  LatentPages pages;
  Batch batch;
};
cudaError_t mla_write(const LatentWrite& args, cudaStream_t stream);

// Rotates the rope parts of queries in place: row t, head h: rope_dim elements at t * stride + h * head_stride.
struct RopeQueries {
  void* data = nullptr;  // bf16 or f16
  int64_t stride = 0;
  int64_t head_stride = 0;
  int heads = 0;
  int rope_dim = 64;
  tensor::DType dtype = tensor::DType::kBF16;
  const float* cos_sin = nullptr;  // as in LatentWrite
  Batch batch;
};
cudaError_t mla_rope(const RopeQueries& args, cudaStream_t stream);

// Gathers the latents of whole contexts: position i of sequence s to row context_begin[s] + i of latents [C][lora_dim]
// and rope_keys [C][rope_dim].
struct LatentRead {
  LatentPages pages;
  void* latents = nullptr;  // pages.dtype
  int64_t latent_stride = 0;
  void* rope_keys = nullptr;
  int64_t rope_stride = 0;
  int64_t context_rows = 0;                // C at most
  const int32_t* context_begin = nullptr;  // [S + 1], on the device
  Batch batch;
};
cudaError_t mla_read(const LatentRead& args, cudaStream_t stream);

}  // namespace spillway::kernels::cuda
