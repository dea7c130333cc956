#include "kernels/cpu/operations.h"

namespace spillway::kernels::cpu {

Operations operations() {
  Operations table;
  table.pack_linear = pack_linear;
  table.linear = linear;
  table.gated_linear = gated_linear;
  table.linear_by_head = linear_by_head;
  table.dequantize = dequantize;
  table.pack_heads = pack_heads;
  table.add_expert = add_expert;
  table.route_tokens = route_tokens;
  table.expert_mlp = expert_mlp;
  table.rms_norm = rms_norm;
  table.rms_norm_slice = rms_norm_slice;
  table.add_rms_norm = add_rms_norm;
  table.silu_mul = silu_mul;
  table.add = add;
  table.embedding = embedding;
  table.gather_rows = gather_rows;
  table.copy_slice = copy_slice;
  table.rope = rope;
  table.fill_rope_table = fill_rope_table;
  table.write_kv = write_kv;
  table.paged_attention = paged_attention;
  table.dense_attention = dense_attention;
  table.write_latent = write_latent;
  table.read_latent = read_latent;
  table.latent_attention = latent_attention;
  table.grouped_attention = grouped_attention;
  table.latent_store = latent_store;
  table.latent_layer = latent_layer;
  table.layer_norm = layer_norm;
  table.activate = activate;
  table.add_bias = add_bias;
  table.gated_activation = gated_activation;
  table.embedding_norm = embedding_norm;
  table.sequence_attention = sequence_attention;
  table.pool_rows = pool_rows;
  table.convolution = convolution;
  table.max_pool = max_pool;
  return table;
}

}  // namespace spillway::kernels::cpu
