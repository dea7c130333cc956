// Multi-head latent attention over a paged cache of latents: DeepSeek's absorbed form. The same promises and tolerance
// as kernels/attention.h.
#pragma once

#include "kernels/attention.h"
#include "kernels/linear.h"
#include "kernels/rope.h"

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

// What a layer of latent attention is made of. Two forms of one function: absorbed (queries go into latent space by
// W_UK, the sums come back by W_UV; the cache is read as it is) and naive (the latents of the context are expanded to
// keys and values of all heads, once for many queries). kAuto: absorbed, unless a slice is long enough for the naive
// form to take less than half the work.
enum class LatentForm { kAuto, kNaive, kAbsorbed };

struct LatentShape {
  int heads = 0;
  int q_lora = 0;  // 0: queries come from the layer's input
  int kv_lora = 0;
  int nope_dim = 0, rope_dim = 0, value_dim = 0;
  RopePairs pairs = RopePairs::kInterleaved;
  float scale = 1.0f;  // of the scores before softmax

  int query_dim() const { return nope_dim + rope_dim; }
};

// From the joint down projection on: low = norm of a row's first q_lora elements, the norm of the next kv_lora to the
// row's page, and after it the last rope_dim, rotated.
struct LatentStoreArgs {
  LatentShape shape;
  tensor::TensorView down;                 // activations [T, q_lora + kv_lora + rope_dim]; overwritten
  tensor::TensorView query_norm, kv_norm;  // f32 [q_lora] (empty with q_lora 0), f32 [kv_lora]
  float norm_epsilon = 0;
  tensor::TensorView cos_sin;  // f32 [positions_max, 2, rope_dim / 2]
  LatentPagesView pages;
  tensor::TensorView low;  // activations [T, q_lora]; empty with q_lora 0
  // The weight of the product that comes next: a device may let it start early. Null: unknown.
  const PackedLinear* next = nullptr;
};
void latent_store(const LatentStoreArgs& args, const BatchRows& batch, tensor::Arena& arena, tensor::Stream& stream);

// From the queries as projected to the heads' sums of values. The pages hold the batch's own rows.
struct LatentLayerArgs {
  LatentShape shape;
  LatentForm form = LatentForm::kAuto;
  tensor::TensorView queries;            // activations [T, heads * query_dim]; overwritten
  const HeadLinear* key_up = nullptr;    // by head [kv_lora, nope]: W_UK transposed
  const HeadLinear* value_up = nullptr;  // by head [value, kv_lora]: W_UV
  const PackedLinear* kv_b = nullptr;    // [heads * (nope + value), kv_lora]: both, as stored
  tensor::TensorView cos_sin;
  LatentPagesView pages;
  tensor::TensorView out;  // activations [T, heads * value]
};
void latent_layer(const LatentLayerArgs& args, const BatchRows& batch, tensor::Arena& arena, tensor::Stream& stream);

// Arena bytes of latent_store and latent_layer together for so many rows.
size_t latent_workspace_bytes(const LatentShape& shape, int64_t rows);

}  // namespace spillway::kernels
