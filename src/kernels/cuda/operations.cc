#include "kernels/cuda/operations.h"

#include "kernels/cpu/operations.h"
#include "kernels/cuda/layers.h"
#include "kernels/cuda/operations_encoder.h"

namespace spillway::kernels::cuda {

Operations operations() {
  Operations table;
  table.pack_linear = pack_linear;
  table.pack_heads = pack_heads;
  table.add_expert = add_expert;
  table.dequantize = cpu::dequantize;            // host memory on every device
  table.fill_rope_table = cpu::fill_rope_table;  // likewise
  table.linear = linear;
  table.gated_linear = gated_linear;
  table.takes_gates = takes_gates;
  table.route_tokens = route_tokens;
  table.routes_at_once = routes_at_once;
  table.expert_mlp = expert_mlp;
  table.takes_shared_expert = takes_shared_expert;
  table.expert_mlp_shared = expert_mlp_shared;
  table.rms_norm = rms_norm;
  table.silu_mul = silu_mul;
  table.embedding = embedding;
  table.gather_rows = gather_rows;
  table.grouped_attention = grouped_attention;
  table.latent_store = latent_store;
  table.latent_layer = latent_layer;
  table.draw_rows = draw_rows;
  table.carry_tokens = carry_tokens;
  table.begin_drafted_step = begin_drafted_step;
  table.keep_drafts = keep_drafts;
  table.tune = tune;
  table.learned = learned;
  table.device_encoder = {pack_device_linear, device_product,    device_norm,  device_activate,  device_add_bias,
                          device_add,         device_gate,       device_rope,  device_attention, device_pool,
                          device_normalize,   device_row_maxima, device_log1p, device_convert};
  table.device_image = {pack_device_convolution, device_convolution, device_affine, device_max_pool, device_pixels};
  return table;
}

}  // namespace spillway::kernels::cuda
