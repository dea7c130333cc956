// Multi-head latent attention over a paged cache of latents: DeepSeek's absorbed form. The same promises and tolerance
// as kernels/attention.h.
#pragma once

#include "kernels/attention.h"

namespace spillway::kernels {

// One layer's latents. Page p is at base + p * page_stride_bytes: [page_tokens][lora_dim + rope_dim], the normalised
// latent and then the rotated shared key. page_tokens is a multiple of 16.
struct LatentPagesView {
  std::byte* base = nullptr;
  int64_t page_stride_bytes = 0;
  tensor::DType dtype = tensor::DType::kF32;  // f32 or bf16
  int page_tokens = 64;
  int lora_dim = 512;
  int rope_dim = 64;

  int64_t page_bytes() const {
    return int64_t{page_tokens} * (lora_dim + rope_dim) * static_cast<int64_t>(tensor::size_of(dtype));
  }
};

// Writes every row's latent (lora_dim) and key (rope_dim); heads of the HeadRows are not used.
void write_latent(const HeadRows& latents, const HeadRows& rope_keys, std::span<const SequenceRows> batch,
                  const LatentPagesView& pages, tensor::Stream& stream);

// Reads positions [0, tokens) of a sequence back: latents f32 [tokens, lora_dim], rope_keys f32 [tokens, rope_dim].
void read_latent(std::span<const int32_t> page_ids, const LatentPagesView& pages, tensor::TensorView latents,
                 tensor::TensorView rope_keys, tensor::Stream& stream);

struct LatentAttentionArgs {
  HeadRows latent_queries;  // heads x lora_dim: q_nope through W_UK
  HeadRows rope_queries;    // heads x rope_dim
  int heads = 0;
  float scale = 1.0f;
  LatentPagesView pages;
  tensor::TensorView out;  // f32 [T, heads, lora_dim]: still to go through W_UV
};
void latent_attention(const LatentAttentionArgs& args, std::span<const SequenceRows> batch, tensor::Stream& stream);

}  // namespace spillway::kernels
