// Operations: the chooser. One table of all operations for each kind of device; the functions of kernels/*.h look the
// stream's device up here. CUDA's is empty in a build without it; small operations that only the CPU's wider ones are
// made of are empty there always.
#pragma once

#include "kernels/attention.h"
#include "kernels/convolution.h"
#include "kernels/device_encoder.h"
#include "kernels/device_image.h"
#include "kernels/drafting.h"
#include "kernels/elementwise.h"
#include "kernels/encoder.h"
#include "kernels/linear.h"
#include "kernels/mla.h"
#include "kernels/moe.h"
#include "kernels/rope.h"
#include "kernels/sampling.h"
#include "kernels/tuning.h"

namespace spillway::kernels {

// Of kernels/device_encoder.h.
struct DeviceEncoderOperations {
  decltype(&kernels::pack_device_linear) pack_device_linear = nullptr;
  decltype(&kernels::device_product) device_product = nullptr;
  decltype(&kernels::device_norm) device_norm = nullptr;
  decltype(&kernels::device_activate) device_activate = nullptr;
  decltype(&kernels::device_add_bias) device_add_bias = nullptr;
  decltype(&kernels::device_add) device_add = nullptr;
  decltype(&kernels::device_gate) device_gate = nullptr;
  decltype(&kernels::device_rope) device_rope = nullptr;
  decltype(&kernels::device_attention) device_attention = nullptr;
  decltype(&kernels::device_pool) device_pool = nullptr;
  decltype(&kernels::device_normalize) device_normalize = nullptr;
  decltype(&kernels::device_row_maxima) device_row_maxima = nullptr;
  decltype(&kernels::device_log1p) device_log1p = nullptr;
  decltype(&kernels::device_convert) device_convert = nullptr;
};

// Of kernels/device_image.h.
struct DeviceImageOperations {
  decltype(&kernels::pack_device_convolution) pack_device_convolution = nullptr;
  decltype(&kernels::device_convolution) device_convolution = nullptr;
  decltype(&kernels::device_affine) device_affine = nullptr;
  decltype(&kernels::device_max_pool) device_max_pool = nullptr;
  decltype(&kernels::device_pixels) device_pixels = nullptr;
};

struct Operations {
  Result<PackedLinear> (*pack_linear)(std::span<const WeightSource>, Precision, tensor::Stream&) = nullptr;
  decltype(&kernels::linear) linear = nullptr;
  decltype(&kernels::gated_linear) gated_linear = nullptr;
  decltype(&kernels::takes_gates) takes_gates = nullptr;  // null: never
  decltype(&kernels::linear_by_head) linear_by_head = nullptr;
  decltype(&kernels::dequantize) dequantize = nullptr;
  Result<HeadLinear> (*pack_heads)(tensor::TensorView, int, int64_t, int64_t, bool, Precision,
                                   tensor::Stream&) = nullptr;
  Result<int64_t> (*add_expert)(PackedExperts&, int, int, std::span<const WeightSource>, const WeightSource&, Precision,
                                tensor::Stream&) = nullptr;
  decltype(&kernels::route_tokens) route_tokens = nullptr;
  // kernels::route at once, or false; null: never.
  bool (*routes_at_once)(tensor::TensorView, const PackedLinear&, tensor::TensorView, tensor::TensorView,
                         const RoutingOptions&, tensor::TensorView, tensor::TensorView, tensor::Stream&) = nullptr;
  decltype(&kernels::expert_mlp) expert_mlp = nullptr;
  decltype(&kernels::takes_shared_expert) takes_shared_expert = nullptr;  // null: never
  decltype(&kernels::expert_mlp_shared) expert_mlp_shared = nullptr;
  decltype(&kernels::rms_norm) rms_norm = nullptr;
  decltype(&kernels::rms_norm_slice) rms_norm_slice = nullptr;
  decltype(&kernels::add_rms_norm) add_rms_norm = nullptr;
  decltype(&kernels::silu_mul) silu_mul = nullptr;
  decltype(&kernels::add) add = nullptr;
  decltype(&kernels::embedding) embedding = nullptr;
  decltype(&kernels::gather_rows) gather_rows = nullptr;
  decltype(&kernels::copy_slice) copy_slice = nullptr;
  decltype(&kernels::rope) rope = nullptr;
  decltype(&kernels::fill_rope_table) fill_rope_table = nullptr;
  decltype(&kernels::write_kv) write_kv = nullptr;
  decltype(&kernels::paged_attention) paged_attention = nullptr;
  decltype(&kernels::dense_attention) dense_attention = nullptr;
  decltype(&kernels::write_latent) write_latent = nullptr;
  decltype(&kernels::read_latent) read_latent = nullptr;
  decltype(&kernels::latent_attention) latent_attention = nullptr;
  decltype(&kernels::grouped_attention) grouped_attention = nullptr;
  decltype(&kernels::latent_store) latent_store = nullptr;
  decltype(&kernels::latent_layer) latent_layer = nullptr;
  decltype(&kernels::draw_rows) draw_rows = nullptr;
  decltype(&kernels::carry_tokens) carry_tokens = nullptr;
  decltype(&kernels::begin_drafted_step) begin_drafted_step = nullptr;
  decltype(&kernels::keep_drafts) keep_drafts = nullptr;
  decltype(&kernels::tune) tune = nullptr;        // of GPUs
  decltype(&kernels::learned) learned = nullptr;  // likewise
  decltype(&kernels::layer_norm) layer_norm = nullptr;
  decltype(&kernels::activate) activate = nullptr;
  decltype(&kernels::add_bias) add_bias = nullptr;
  decltype(&kernels::gated_activation) gated_activation = nullptr;
  decltype(&kernels::embedding_norm) embedding_norm = nullptr;
  decltype(&kernels::sequence_attention) sequence_attention = nullptr;
  decltype(&kernels::pool_rows) pool_rows = nullptr;
  decltype(&kernels::convolution) convolution = nullptr;
  decltype(&kernels::max_pool) max_pool = nullptr;
  DeviceEncoderOperations device_encoder;
  DeviceImageOperations device_image;
};

// A CHECK when the device's kernels are not in this program (a stream on it cannot be opened then).
const Operations& operations(tensor::Device device);

}  // namespace spillway::kernels
