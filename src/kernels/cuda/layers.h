// CUDA's operations under the names of kernels/*.h, and the small kernels that they share. Each launches on the stream
// and returns; errors of the driver are thrown (tensor/cuda/error.h).
#pragma once

#include "kernels/cuda/paging.h"
#include "kernels/operations.h"

namespace spillway::kernels::cuda {

Result<PackedLinear> pack_linear(std::span<const WeightSource> sources, Precision precision, tensor::Stream& stream);
Result<HeadLinear> pack_heads(tensor::TensorView full, int heads, int64_t first, int64_t rows, bool transposed,
                              Precision precision, tensor::Stream& stream);
Result<int64_t> add_expert(PackedExperts& experts, int index, int count, std::span<const WeightSource> gate_up,
                           const WeightSource& down, Precision precision, tensor::Stream& stream);
decltype(kernels::linear) linear;
decltype(kernels::gated_linear) gated_linear;
decltype(kernels::takes_gates) takes_gates;
decltype(kernels::route_tokens) route_tokens;
// kernels::route in one launch; false where it does not take the call.
bool routes_at_once(tensor::TensorView x, const PackedLinear& router, tensor::TensorView logits,
                    tensor::TensorView bias, const RoutingOptions& options, tensor::TensorView ids,
                    tensor::TensorView weights, tensor::Stream& stream);
decltype(kernels::expert_mlp) expert_mlp;
decltype(kernels::takes_shared_expert) takes_shared_expert;
decltype(kernels::expert_mlp_shared) expert_mlp_shared;
decltype(kernels::rms_norm) rms_norm;
decltype(kernels::silu_mul) silu_mul;
decltype(kernels::embedding) embedding;
decltype(kernels::gather_rows) gather_rows;
decltype(kernels::grouped_attention) grouped_attention;
decltype(kernels::latent_store) latent_store;
decltype(kernels::latent_layer) latent_layer;
decltype(kernels::draw_rows) draw_rows;
decltype(kernels::carry_tokens) carry_tokens;
decltype(kernels::begin_drafted_step) begin_drafted_step;
decltype(kernels::keep_drafts) keep_drafts;
decltype(kernels::tune) tune;
decltype(kernels::learned) learned;

// rms_norm of `width` elements of rows that lie apart.
struct NormSlices {
  const void* x = nullptr;
  tensor::DType x_type = tensor::DType::kF32;
  int64_t x_stride = 0;
  const float* weight = nullptr;  // [width]
  float eps = 0;
  void* y = nullptr;
  tensor::DType y_type = tensor::DType::kF32;
  int64_t y_stride = 0;
  int64_t rows = 0;
  int64_t width = 0;
  // Lets the next kernel start at once: a product that has every multiprocessor to itself, whose weight arrives
  // meanwhile.
  bool starts_next = false;
};
void norm_slices(const NormSlices& args, tensor::Stream& stream);

// y f32 = x of any float type.
void widen_to_f32(tensor::TensorView x, tensor::TensorView y, tensor::Stream& stream);

// Norm of heads, rope in place, and writing of keys and values: what comes before attention over pages.
void store_keys_values(const GroupedAttentionArgs& args, const Batch& batch, tensor::Stream& stream);

// Both norms of a joint down projection, rope of the shared key, and the pages: latent_store in one launch.
void store_latents(const LatentStoreArgs& args, const LatentPages& pages, const Batch& batch, tensor::Stream& stream);

// y[t, h, lora:] = the rope part of queries, rotated: the end of a row for latent attention.
struct JoinRope {
  const void* queries = nullptr;  // [T, heads, query_dim], the rope part from element nope on
  int64_t query_dim = 0;
  int64_t nope = 0;
  void* joined = nullptr;  // [T, heads, lora + rope]
  int64_t lora = 0;
  int rope = 0;
  int heads = 0;
  RopePairs pairs = RopePairs::kHalves;
  const float* cos_sin = nullptr;
  const int32_t* positions = nullptr;
  int64_t rows = 0;
  tensor::DType dtype = tensor::DType::kF32;
};
void join_rope(const JoinRope& args, tensor::Stream& stream);
// That and the product with W_UK before it in one launch, of few rows; false where it does not take the call.
bool latent_queries(const JoinRope& args, const HeadLinear& key_up, tensor::Stream& stream);

// expert_mlp in float32, y += ; h [tokens * slots, inter] is work.
struct ExpertsF32 {
  const float* x = nullptr;
  const int32_t* ids = nullptr;
  const float* weights = nullptr;
  const float* gate_up = nullptr;  // [experts, 2 * inter, hidden]
  const float* down = nullptr;     // [experts, hidden, inter]
  float* h = nullptr;
  float* y = nullptr;
  int tokens = 0, slots = 0, hidden = 0, inter = 0;
};
void experts_f32(const ExpertsF32& args, tensor::Stream& stream);

// y [M, N] += bias f32 [N].
void add_bias(tensor::TensorView y, tensor::TensorView bias, tensor::Stream& stream);

}  // namespace spillway::kernels::cuda
