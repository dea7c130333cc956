// Attention of a layer on CUDA: rope and pages in one launch, then attention over pages; latent attention in its
// absorbed form, whose queries and latents pass through one [latent | rope] row a head.
#include <algorithm>

#include "kernels/cuda/attention_paged.h"
#include "kernels/cuda/layers.h"
#include "kernels/cuda/mla_decode.h"
#include "kernels/cuda/products.h"
#include "tensor/cuda/error.h"

namespace spillway::kernels::cuda {
namespace {

using tensor::TensorView;

constexpr int kDecodeRowsMax = 8;  // rows of a sequence that the decode kernel is made for

LatentPages latent_pages(const LatentPagesView& pages) {
  return {pages.base, pages.page_stride_bytes, pages.dtype, pages.page_tokens, pages.lora_dim, pages.rope_dim};
}

}  // namespace

void grouped_attention(const GroupedAttentionArgs& args, const BatchRows& batch, tensor::Arena&,
                       tensor::Stream& stream) {
  store_keys_values(args, batch.device, stream);
  PagedAttention attention;
  attention.queries = args.qkv.data;
  attention.query_stride = args.qkv.shape[1];
  attention.out = args.out.data;
  attention.out_stride = args.out.shape[1];
  attention.heads = args.heads;
  attention.scale = args.scale;
  attention.pages = {args.pages.base,        args.pages.page_stride_bytes, args.pages.dtype,
                     args.pages.page_tokens, args.pages.kv_heads,          args.pages.k_dim};
  attention.batch = batch.device;
  attention.overlap = true;
  const bool prefill = batch.device.rows_max > kDecodeRowsMax;
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
  const LatentShape& shape = args.shape;
  const int64_t rows = args.down.shape[0], width = args.down.shape[1];
  const size_t size = tensor::size_of(args.down.dtype);
  NormSlices norm;
  norm.x = args.down.data;
  norm.x_type = norm.y_type = args.down.dtype;
  norm.x_stride = width;
  norm.eps = args.norm_epsilon;
  norm.rows = rows;
  if (shape.q_lora > 0) {
    norm.weight = args.query_norm.as<float>();
    norm.y = args.low.data;
    norm.y_stride = norm.width = shape.q_lora;
    norm_slices(norm, stream);
  }
  std::byte* latents = args.down.data + size_t(shape.q_lora) * size;
  norm.weight = args.kv_norm.as<float>();
  norm.x = norm.y = latents;  // in place
  norm.y_stride = width;
  norm.width = shape.kv_lora;
  norm_slices(norm, stream);
  RotateRows rotate;
  rotate.x = latents + size_t(shape.kv_lora) * size;
  rotate.dtype = args.down.dtype;
  rotate.row_stride = width;
  rotate.dim = shape.rope_dim;
  rotate.pairs = shape.pairs;
  rotate.cos_sin = args.cos_sin.as<float>();
  rotate.positions = batch.device.positions;
  rotate.rows = rows;
  rotate_rows(rotate, stream);
  store_latents(latents, width, latent_pages(args.pages), batch.device, stream);
}

void latent_layer(const LatentLayerArgs& args, const BatchRows& batch, tensor::Arena& arena, tensor::Stream& stream) {
  const LatentShape& shape = args.shape;
  const int64_t rows = args.queries.shape[0], heads = shape.heads, lora = shape.kv_lora, query = shape.query_dim();
  const tensor::DType dtype = args.queries.dtype;
  const size_t size = tensor::size_of(dtype);
  RotateRows rotate;
  rotate.x = args.queries.data + size_t(shape.nope_dim) * size;
  rotate.dtype = dtype;
  rotate.row_stride = heads * query;
  rotate.head_stride = query;
  rotate.heads = shape.heads;
  rotate.dim = shape.rope_dim;
  rotate.pairs = shape.pairs;
  rotate.cos_sin = args.cos_sin.as<float>();
  rotate.positions = batch.device.positions;
  rotate.rows = rows;
  rotate_rows(rotate, stream);
  const size_t mark = arena.mark();
  const int64_t joint = lora + shape.rope_dim;
  const TensorView joined = arena.allocate(dtype, {rows, heads, joint}),
                   sums = arena.allocate(dtype, {rows, heads, lora});
  product_by_head({args.key_up, dtype, args.queries.data, query, joined.data, joint, rows}, stream);
  join_rope(args.queries.data, query, shape.nope_dim, joined.data, lora, shape.rope_dim, shape.heads, rows, dtype,
            stream);
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
  const size_t bytes = mla_workspace_bytes(shape.heads, batch.device.sequences, batch.device.rows_max,
                                           batch.device.context_max, attention.split_tokens);
  attention.workspace = Context::of(stream).attention_workspace(bytes, native(stream));
  tensor::cuda::check(mla_decode(attention, native(stream)), "latent attention");
  product_by_head({args.value_up, dtype, sums.data, lora, args.out.data, shape.value_dim, rows}, stream);
  arena.rewind(mark);
}

}  // namespace spillway::kernels::cuda
