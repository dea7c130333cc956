#include "nn/attention.h"

#include <cmath>

#include "kernels/elementwise.h"
#include "kernels/rope.h"

namespace spillway::nn {

Result<Attention> Attention::load(const weights::WeightScope& scope, const AttentionShape& shape, int kv_layer,
                                  LoadContext& context) {
  Attention attention;
  attention.shape_ = shape;
  attention.kv_layer_ = kv_layer;
  const int64_t query = int64_t(shape.heads) * shape.head_dim, key = int64_t(shape.kv_heads) * shape.head_dim;
  SW_ASSIGN(attention.qkv_, Linear::load(scope, {{"q_proj", query}, {"k_proj", key}, {"v_proj", key}}, shape.hidden,
                                         shape.qkv_bias, context));
  SW_ASSIGN(attention.output_, Linear::load(scope, {{"o_proj", shape.hidden}}, query, shape.output_bias, context));
  if (shape.qk_norm) {
    SW_ASSIGN(attention.query_norm_, RmsNorm::load(scope, "q_norm", shape.head_dim, shape.norm_epsilon, context));
    SW_ASSIGN(attention.key_norm_, RmsNorm::load(scope, "k_norm", shape.head_dim, shape.norm_epsilon, context));
  }
  return attention;
}

kernels::KvPagesView Attention::pages(const KvStorage& kv) const {
  return {.base = kv.layer_base(kv_layer_),
          .page_stride_bytes = kv.page_stride_bytes(),
          .dtype = kv.layout().dtype,
          .page_tokens = kv.page_tokens(),
          .kv_heads = shape_.kv_heads,
          .k_dim = shape_.head_dim,
          .v_dim = shape_.head_dim};
}

size_t Attention::workspace_bytes(int64_t tokens) const {
  const int64_t query = int64_t(shape_.heads) * shape_.head_dim, key = int64_t(shape_.kv_heads) * shape_.head_dim;
  size_t bytes = tensor::Arena::footprint(tensor::DType::kF32, {tokens, qkv_.outputs()}) +
                 tensor::Arena::footprint(tensor::DType::kF32, {tokens, query});
  if (shape_.qk_norm) {
    bytes += tensor::Arena::footprint(tensor::DType::kF32, {tokens, query}) +
             tensor::Arena::footprint(tensor::DType::kF32, {tokens, key});
  }
  return bytes;
}

void Attention::add_to(tensor::TensorView x, tensor::TensorView residual, const Step& step) const {
  const ArenaScope scope(step.arena);
  const int64_t tokens = x.shape[0], dim = shape_.head_dim, row = qkv_.outputs();
  const int64_t query = shape_.heads * dim, key = shape_.kv_heads * dim;
  const tensor::TensorView qkv = step.arena.f32({tokens, row});
  qkv_.apply(x, qkv, step.stream);
  kernels::HeadRows queries{qkv.as<float>(), row, 0, dim}, keys{qkv.as<float>(), row, query, dim};
  const kernels::HeadRows values{qkv.as<float>(), row, query + key, dim};
  if (shape_.qk_norm) {
    // The norms want a head a row, which the fused product does not have.
    const tensor::TensorView q = step.arena.f32({tokens, shape_.heads, dim}),
                             k = step.arena.f32({tokens, shape_.kv_heads, dim});
    kernels::copy_slice(qkv, 0, q.reshaped({tokens, query}), step.stream);
    kernels::copy_slice(qkv, query, k.reshaped({tokens, key}), step.stream);
    query_norm_->apply(q, q, step.stream);
    key_norm_->apply(k, k, step.stream);
    for (const auto& [heads, count] : {std::pair(q, shape_.heads), std::pair(k, shape_.kv_heads)}) {
      kernels::rope(
          {.x = heads, .cos_sin = step.rope, .positions = step.positions, .heads = count, .head_dim = int(dim)},
          step.stream);
    }
    queries = kernels::head_rows(q);
    keys = kernels::head_rows(k);
  } else {
    kernels::rope({.x = qkv,
                   .cos_sin = step.rope,
                   .positions = step.positions,
                   .heads = shape_.heads + shape_.kv_heads,
                   .head_dim = int(dim)},
                  step.stream);
  }
  const kernels::KvPagesView kv = pages(step.kv);
  kernels::write_kv(keys, values, step.sequences, kv, step.stream);
  const tensor::TensorView out = step.arena.f32({tokens, shape_.heads, dim});
  kernels::paged_attention(
      {.queries = queries, .heads = shape_.heads, .scale = 1.0f / std::sqrt(float(dim)), .pages = kv, .out = out},
      step.sequences, step.stream);
  output_.add_to(out.reshaped({tokens, query}), residual, step.stream);
}

}  // namespace spillway::nn
