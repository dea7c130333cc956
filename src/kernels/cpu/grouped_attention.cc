// Grouped-query attention of a layer by the small kernels.
#include "kernels/cpu/operations.h"

namespace spillway::kernels::cpu {

using tensor::TensorView;

void grouped_attention(const GroupedAttentionArgs& args, const BatchRows& batch, tensor::Arena& arena,
                       tensor::Stream& stream) {
  const int heads = args.heads, kv_heads = args.pages.kv_heads;
  const int64_t tokens = args.qkv.shape[0], row = args.qkv.shape[1], dim = args.pages.k_dim;
  const int64_t query = heads * dim, key = kv_heads * dim;
  if (!args.qkv_bias.empty()) cpu::add_bias(args.qkv, args.qkv_bias, stream);
  HeadRows queries{args.qkv.as<float>(), row, 0, dim}, keys{args.qkv.as<float>(), row, query, dim};
  const HeadRows values{args.qkv.as<float>(), row, query + key, dim};
  if (!args.query_norm.empty()) {
    // The norms want a head a row, which the fused product does not have.
    const TensorView q = arena.f32({tokens, heads, dim}), k = arena.f32({tokens, kv_heads, dim});
    cpu::copy_slice(args.qkv, 0, q.reshaped({tokens, query}), stream);
    cpu::copy_slice(args.qkv, query, k.reshaped({tokens, key}), stream);
    cpu::rms_norm(q, args.query_norm, args.norm_epsilon, q, stream);
    cpu::rms_norm(k, args.key_norm, args.norm_epsilon, k, stream);
    for (const auto& [x, count] : {std::pair(q, heads), std::pair(k, kv_heads)}) {
      cpu::rope({.x = x, .cos_sin = args.cos_sin, .positions = batch.positions, .heads = count, .head_dim = int(dim)},
                stream);
    }
    queries = head_rows(q);
    keys = head_rows(k);
  } else {
    cpu::rope({.x = args.qkv,
               .cos_sin = args.cos_sin,
               .positions = batch.positions,
               .heads = heads + kv_heads,
               .head_dim = int(dim)},
              stream);
  }
  cpu::write_kv(keys, values, batch.sequences, args.pages, stream);
  cpu::paged_attention({.queries = queries,
                        .heads = heads,
                        .scale = args.scale,
                        .pages = args.pages,
                        .out = args.out.reshaped({tokens, heads, dim})},
                       batch.sequences, stream);
}

}  // namespace spillway::kernels::cpu
