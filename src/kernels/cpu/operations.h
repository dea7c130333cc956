// The CPU's implementations of the contracts in kernels/*.h, under the same names.
#pragma once

#include "kernels/operations.h"

namespace spillway::kernels::cpu {

Result<PackedLinear> pack_linear(std::span<const WeightSource> sources, Precision precision, tensor::Stream& stream);
decltype(kernels::linear) linear;
decltype(kernels::gated_linear) gated_linear;
decltype(kernels::linear_by_head) linear_by_head;
decltype(kernels::dequantize) dequantize;
Result<HeadLinear> pack_heads(tensor::TensorView full, int heads, int64_t first, int64_t rows, bool transposed,
                              Precision precision, tensor::Stream& stream);
Result<int64_t> add_expert(PackedExperts& experts, int index, int count, std::span<const WeightSource> gate_up,
                           const WeightSource& down, Precision precision, tensor::Stream& stream);
decltype(kernels::route_tokens) route_tokens;
decltype(kernels::expert_mlp) expert_mlp;
decltype(kernels::rms_norm) rms_norm;
decltype(kernels::rms_norm_slice) rms_norm_slice;
decltype(kernels::add_rms_norm) add_rms_norm;
decltype(kernels::silu_mul) silu_mul;
decltype(kernels::add) add;
decltype(kernels::embedding) embedding;
decltype(kernels::gather_rows) gather_rows;
decltype(kernels::copy_slice) copy_slice;
decltype(kernels::rope) rope;
decltype(kernels::fill_rope_table) fill_rope_table;
decltype(kernels::write_kv) write_kv;
decltype(kernels::paged_attention) paged_attention;
decltype(kernels::dense_attention) dense_attention;
decltype(kernels::write_latent) write_latent;
decltype(kernels::read_latent) read_latent;
decltype(kernels::latent_attention) latent_attention;
decltype(kernels::grouped_attention) grouped_attention;
decltype(kernels::latent_store) latent_store;
decltype(kernels::latent_layer) latent_layer;
decltype(kernels::layer_norm) layer_norm;
decltype(kernels::activate) activate;
decltype(kernels::add_bias) add_bias;
decltype(kernels::gated_activation) gated_activation;
decltype(kernels::embedding_norm) embedding_norm;
decltype(kernels::quantize_table) quantize_table;
decltype(kernels::sequence_attention) sequence_attention;
decltype(kernels::pool_rows) pool_rows;
decltype(kernels::convolution) convolution;
decltype(kernels::max_pool) max_pool;

Operations operations();

}  // namespace spillway::kernels::cpu
