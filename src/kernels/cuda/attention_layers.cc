// Attention of a layer on CUDA: rope and pages in one launch, then attention over pages; latent attention in its
// absorbed form, whose queries and latents pass through one [latent | rope] row a head.
#include <algorithm>

#include "kernels/cuda/attention_paged.h"
#include "kernels/cuda/attention_token.h"
#include "kernels/cuda/layers.h"
#include "kernels/cuda/mla_decode.h"
#include "kernels/cuda/products.h"
#include "tensor/cuda/error.h"

namespace spillway::kernels::cuda {
namespace {

using tensor::TensorView;

constexpr int kDecodeRowsMax = 8;      // rows of a sequence that the decode kernel is made for
constexpr int kInvariantTokens = 512;  // of a part of the context, where its split may not depend on the batch

const float* floats_of(TensorView view) { return view.empty() ? nullptr : view.as<float>(); }

KvPages key_value_pages(const KvPagesView& pages) {
  return {pages.base, pages.page_stride_bytes, pages.dtype, pages.page_tokens, pages.kv_heads, pages.k_dim};
}

// One launch instead of two where there is one new token of each of few sequences.
bool attend_token(const GroupedAttentionArgs& args, const Batch& batch, tensor::Stream& stream) {
  TokenAttention token;
  token.qkv = args.qkv.data;
  token.qkv_stride = args.qkv.shape[1];
  token.bias = floats_of(args.qkv_bias);
  token.query_norm = floats_of(args.query_norm);
  token.key_norm = floats_of(args.key_norm);
  token.norm_eps = args.norm_epsilon;
  token.cos_sin = args.cos_sin.as<float>();
  token.out = args.out.data;
  token.out_stride = args.out.shape[1];
  token.heads = args.heads;
  token.scale = args.scale;
  token.pages = key_value_pages(args.pages);
  token.batch = batch;
  token.starts_next = args.next != nullptr && takes_split_bf16(args.out, *args.next, stream);
  if (stream.batch_invariant() || !token_attention_takes(token)) return false;
  token.workspace = Context::of(stream).attention_workspace(token_attention_workspace_bytes(token), native(stream));
  tensor::cuda::check(launch_token_attention(token, native(stream)), "token attention");
  return true;
}

LatentPages latent_pages(const LatentPagesView& pages) {
  return {pages.base, pages.page_stride_bytes, pages.dtype, pages.page_tokens, pages.lora_dim, pages.rope_dim};
}

}  // namespace

void grouped_attention(const GroupedAttentionArgs& args, const BatchRows& batch, tensor::Arena&,
                       tensor::Stream& stream) {
  if (attend_token(args, batch.device, stream)) return;
  store_keys_values(args, batch.device, stream);
  PagedAttention attention;
  attention.queries = args.qkv.data;
  attention.query_stride = args.qkv.shape[1];
  attention.out = args.out.data;
  attention.out_stride = args.out.shape[1];
  attention.heads = args.heads;
  attention.scale = args.scale;
  attention.pages = key_value_pages(args.pages);
  attention.batch = batch.device;
  attention.overlap = true;
  // A row of the batch-invariant kind sees one kernel, whatever it is batched with.
  const bool prefill = batch.device.rows_max > kDecodeRowsMax || stream.batch_invariant();
  if (!prefill) {
    const size_t bytes =
        attention_workspace_bytes(args.heads, args.pages.kv_heads, args.pages.k_dim, batch.device.sequences,
                                  batch.device.rows_max, batch.device.context_max, attention.split_tokens);
    attention.workspace = Context::of(stream).attention_workspace(bytes, native(stream));
  }
  tensor::cuda::check(
      prefill ? attention_prefill(attention, native(stream)) : attention_decode(attention, native(stream)),
      "paged attention");
}

void latent_store(const LatentStoreArgs& args, const BatchRows& batch, tensor::Arena&, tensor::Stream& stream) {
  store_latents(args, latent_pages(args.pages), batch.device, stream);
}

void latent_layer(const LatentLayerArgs& args, const BatchRows& batch, tensor::Arena& arena, tensor::Stream& stream) {
  const LatentShape& shape = args.shape;
  const int64_t rows = args.queries.shape[0], heads = shape.heads, lora = shape.kv_lora, query = shape.query_dim();
  const tensor::DType dtype = args.queries.dtype;
  const size_t mark = arena.mark();
  const int64_t joint = lora + shape.rope_dim;
  const TensorView joined = arena.allocate(dtype, {rows, heads, joint}),
                   sums = arena.allocate(dtype, {rows, heads, lora});
  const JoinRope join{.queries = args.queries.data,
                      .query_dim = query,
                      .nope = shape.nope_dim,
                      .joined = joined.data,
                      .lora = lora,
                      .rope = shape.rope_dim,
                      .heads = shape.heads,
                      .pairs = shape.pairs,
                      .cos_sin = args.cos_sin.as<float>(),
                      .positions = batch.device.positions,
                      .rows = rows,
                      .dtype = dtype};
  if (!latent_queries(join, *args.key_up, stream)) {
    product_by_head({args.key_up, dtype, args.queries.data, query, joined.data, joint, rows}, stream);
    join_rope(join, stream);
  }
  LatentAttention attention;
  attention.queries = joined.data;
  attention.query_stride = heads * joint;
  attention.out = sums.data;
  attention.out_stride = heads * lora;
  attention.heads = shape.heads;
  attention.scale = shape.scale;
  attention.pages = latent_pages(args.pages);
  attention.batch = batch.device;
  attention.overlap = true;
  if (stream.batch_invariant()) attention.split_tokens = kInvariantTokens;
  const size_t bytes = mla_workspace_bytes(shape.heads, batch.device.sequences, batch.device.rows_max,
                                           batch.device.context_max, attention.split_tokens);
  attention.workspace = Context::of(stream).attention_workspace(bytes, native(stream));
  const bool with_values = mla_takes_values(attention, int(shape.value_dim));
  if (with_values) {
    attention.value_up = args.value_up->weights[0].data.view().data;
    attention.values = args.out.data;
    attention.values_stride = heads * shape.value_dim;
  }
  tensor::cuda::check(mla_decode(attention, native(stream)), "latent attention");
  if (!with_values) {
    product_by_head({args.value_up, dtype, sums.data, lora, args.out.data, shape.value_dim, rows}, stream);
  }
  arena.rewind(mark);
}

}  // namespace spillway::kernels::cuda
