#include "kernels/operations.h"

#include <array>
#include <string>

#include "base/trace.h"
#include "kernels/cpu/operations.h"
#include "kernels/cuda/operations.h"
#include "tensor/cuda/cuda.h"

namespace spillway::kernels {
namespace {

const std::array<Operations, 2>& tables() {
  static const std::array<Operations, 2> by_kind = {cpu::operations(), cuda::operations()};
  return by_kind;
}

}  // namespace

const Operations& operations(tensor::Device device) {
  const Operations& table = tables()[static_cast<size_t>(device.kind)];
  SW_CHECK(table.linear != nullptr, "no kernels for device " + to_string(device));
  return table;
}

tensor::DType half_type(tensor::Device device) {
  const bool old =
      device.kind == tensor::DeviceKind::kCuda && tensor::cuda::device_info(device.index).capability() < 80;
  return old ? tensor::DType::kF16 : tensor::DType::kBF16;
}

Result<PackedLinear> pack_linear(std::span<const WeightSource> sources, Precision precision, tensor::Stream& stream) {
  return operations(stream.device()).pack_linear(sources, precision, stream);
}

Result<PackedLinear> pack_linear(const WeightSource& source, Precision precision, tensor::Stream& stream) {
  return pack_linear(std::span(&source, 1), precision, stream);
}

void tune(const Tuning& tuning, tensor::Stream& stream) {
  const auto function = operations(stream.device()).tune;
  if (function != nullptr) function(tuning, stream);
}

std::string learned(tensor::Stream& stream) {
  const auto function = operations(stream.device()).learned;
  return function != nullptr ? function(stream) : std::string();
}

void linear(tensor::TensorView x, const PackedLinear& weight, tensor::TensorView y, tensor::Stream& stream,
            const LinearOptions& options) {
  const trace::Span span("kernel", "linear", "rows", x.shape[0]);
  operations(stream.device()).linear(x, weight, y, stream, options);
}

void gated_linear(tensor::TensorView x, const PackedLinear& gate_up, tensor::TensorView work, tensor::TensorView y,
                  tensor::Stream& stream, const InputNorm& norm) {
  const trace::Span span("kernel", "gated_linear");
  operations(stream.device()).gated_linear(x, gate_up, work, y, stream, norm);
}

bool takes_gates(const PackedLinear& gate_up, const PackedLinear& down, int64_t rows, tensor::Stream& stream) {
  const auto function = operations(stream.device()).takes_gates;
  return function != nullptr && function(gate_up, down, rows, stream);
}

void linear_by_head(tensor::TensorView x, int x_offset, std::span<const PackedLinear> weights, tensor::TensorView y,
                    tensor::Stream& stream) {
  const trace::Span span("kernel", "linear_by_head");
  operations(stream.device()).linear_by_head(x, x_offset, weights, y, stream);
}

Result<tensor::Tensor> dequantize(const WeightSource& source, tensor::Stream& stream) {
  return operations(stream.device()).dequantize(source, stream);
}

void route_tokens(tensor::TensorView logits, tensor::TensorView bias, const RoutingOptions& options,
                  tensor::TensorView ids, tensor::TensorView weights, tensor::Stream& stream) {
  const trace::Span span("kernel", "route_tokens");
  operations(stream.device()).route_tokens(logits, bias, options, ids, weights, stream);
}

void route(tensor::TensorView x, const PackedLinear& router, tensor::TensorView logits, tensor::TensorView bias,
           const RoutingOptions& options, tensor::TensorView ids, tensor::TensorView weights, tensor::Stream& stream) {
  const auto function = operations(stream.device()).routes_at_once;
  if (function != nullptr && function(x, router, logits, bias, options, ids, weights, stream)) return;
  linear(x, router, logits, stream);
  route_tokens(logits, bias, options, ids, weights, stream);
}

Result<HeadLinear> pack_heads(tensor::TensorView full, int heads, int64_t first, int64_t rows, bool transposed,
                              Precision precision, tensor::Stream& stream) {
  return operations(stream.device()).pack_heads(full, heads, first, rows, transposed, precision, stream);
}

size_t HeadLinear::bytes() const {
  size_t sum = 0;
  for (const PackedLinear& weight : weights) sum += weight.bytes();
  return sum;
}

Result<int64_t> add_expert(PackedExperts& experts, int index, int count, std::span<const WeightSource> gate_up,
                           const WeightSource& down, Precision precision, tensor::Stream& stream) {
  return operations(stream.device()).add_expert(experts, index, count, gate_up, down, precision, stream);
}

size_t PackedExperts::bytes() const {
  size_t sum = 0;
  for (const ExpertWeights& expert : weights) sum += expert.gate_up.bytes() + expert.down.bytes();
  return sum;
}

bool takes_shared_expert(const PackedExperts& experts, const PackedLinear& gate_up, const PackedLinear& down,
                         int64_t tokens, int slots, tensor::Stream& stream) {
  const auto function = operations(stream.device()).takes_shared_expert;
  return function != nullptr && function(experts, gate_up, down, tokens, slots, stream);
}

void expert_mlp_shared(tensor::TensorView x, tensor::TensorView ids, tensor::TensorView weights,
                       const PackedExperts& experts, const PackedLinear& gate_up, const PackedLinear& down,
                       tensor::TensorView y, tensor::Stream& stream) {
  const trace::Span span("kernel", "expert_mlp_shared");
  operations(stream.device()).expert_mlp_shared(x, ids, weights, experts, gate_up, down, y, stream);
}

void expert_mlp(tensor::TensorView x, tensor::TensorView ids, tensor::TensorView weights, const PackedExperts& experts,
                tensor::TensorView y, tensor::Stream& stream) {
  const trace::Span span("kernel", "expert_mlp");
  operations(stream.device()).expert_mlp(x, ids, weights, experts, y, stream);
}

void rms_norm(tensor::TensorView x, tensor::TensorView weight, float eps, tensor::TensorView y,
              tensor::Stream& stream) {
  const trace::Span span("kernel", "rms_norm");
  operations(stream.device()).rms_norm(x, weight, eps, y, stream);
}

void rms_norm_slice(tensor::TensorView x, int64_t x_offset, tensor::TensorView weight, float eps, tensor::TensorView y,
                    tensor::Stream& stream) {
  const trace::Span span("kernel", "rms_norm_slice");
  operations(stream.device()).rms_norm_slice(x, x_offset, weight, eps, y, stream);
}

void add_rms_norm(tensor::TensorView residual, tensor::TensorView x, tensor::TensorView weight, float eps,
                  tensor::TensorView y, tensor::Stream& stream) {
  const trace::Span span("kernel", "add_rms_norm");
  operations(stream.device()).add_rms_norm(residual, x, weight, eps, y, stream);
}

void silu_mul(tensor::TensorView gate_up, tensor::TensorView y, tensor::Stream& stream) {
  const trace::Span span("kernel", "silu_mul");
  operations(stream.device()).silu_mul(gate_up, y, stream);
}

void add(tensor::TensorView y, tensor::TensorView x, tensor::Stream& stream) {
  const trace::Span span("kernel", "add");
  operations(stream.device()).add(y, x, stream);
}

void embedding(tensor::TensorView table, tensor::TensorView ids, tensor::TensorView y, tensor::Stream& stream) {
  const trace::Span span("kernel", "embedding");
  operations(stream.device()).embedding(table, ids, y, stream);
}

void gather_rows(tensor::TensorView x, tensor::TensorView ids, tensor::TensorView y, tensor::Stream& stream) {
  const trace::Span span("kernel", "gather_rows");
  operations(stream.device()).gather_rows(x, ids, y, stream);
}

void copy_slice(tensor::TensorView x, int64_t x_offset, tensor::TensorView y, tensor::Stream& stream) {
  const trace::Span span("kernel", "copy_slice");
  operations(stream.device()).copy_slice(x, x_offset, y, stream);
}

void rope(const RopeArgs& args, tensor::Stream& stream) {
  const trace::Span span("kernel", "rope");
  operations(stream.device()).rope(args, stream);
}

void fill_rope_table(tensor::TensorView inv_freq, float factor, tensor::TensorView cos_sin, tensor::Stream& stream) {
  const trace::Span span("kernel", "fill_rope_table");
  operations(stream.device()).fill_rope_table(inv_freq, factor, cos_sin, stream);
}

void write_kv(const HeadRows& keys, const HeadRows& values, std::span<const SequenceRows> batch,
              const KvPagesView& pages, tensor::Stream& stream) {
  const trace::Span span("kernel", "write_kv");
  operations(stream.device()).write_kv(keys, values, batch, pages, stream);
}

void paged_attention(const AttentionArgs& args, std::span<const SequenceRows> batch, tensor::Stream& stream) {
  const trace::Span span("kernel", "paged_attention");
  operations(stream.device()).paged_attention(args, batch, stream);
}

void dense_attention(const DenseAttentionArgs& args, tensor::Stream& stream) {
  const trace::Span span("kernel", "dense_attention");
  operations(stream.device()).dense_attention(args, stream);
}

void write_latent(const HeadRows& latents, const HeadRows& rope_keys, std::span<const SequenceRows> batch,
                  const LatentPagesView& pages, tensor::Stream& stream) {
  const trace::Span span("kernel", "write_latent");
  operations(stream.device()).write_latent(latents, rope_keys, batch, pages, stream);
}

void read_latent(std::span<const int32_t> page_ids, const LatentPagesView& pages, tensor::TensorView latents,
                 tensor::TensorView rope_keys, tensor::Stream& stream) {
  const trace::Span span("kernel", "read_latent");
  operations(stream.device()).read_latent(page_ids, pages, latents, rope_keys, stream);
}

void latent_attention(const LatentAttentionArgs& args, std::span<const SequenceRows> batch, tensor::Stream& stream) {
  const trace::Span span("kernel", "latent_attention");
  operations(stream.device()).latent_attention(args, batch, stream);
}

void grouped_attention(const GroupedAttentionArgs& args, const BatchRows& batch, tensor::Arena& arena,
                       tensor::Stream& stream) {
  const trace::Span span("kernel", "grouped_attention");
  operations(stream.device()).grouped_attention(args, batch, arena, stream);
}

void latent_store(const LatentStoreArgs& args, const BatchRows& batch, tensor::Arena& arena, tensor::Stream& stream) {
  const trace::Span span("kernel", "latent_store");
  operations(stream.device()).latent_store(args, batch, arena, stream);
}

void latent_layer(const LatentLayerArgs& args, const BatchRows& batch, tensor::Arena& arena, tensor::Stream& stream) {
  const trace::Span span("kernel", "latent_layer");
  operations(stream.device()).latent_layer(args, batch, arena, stream);
}

void draw_rows(tensor::TensorView logits, const RowDraw* draws, tensor::TensorView tokens, tensor::Stream& stream) {
  operations(stream.device()).draw_rows(logits, draws, tokens, stream);
}

void carry_tokens(tensor::TensorView carried, tensor::TensorView drawn, tensor::TensorView ids,
                  tensor::Stream& stream) {
  operations(stream.device()).carry_tokens(carried, drawn, ids, stream);
}

void begin_drafted_step(const DraftedStep& step, tensor::Stream& stream) {
  operations(stream.device()).begin_drafted_step(step, stream);
}

void keep_drafts(const DraftedStep& step, tensor::Stream& stream) {
  operations(stream.device()).keep_drafts(step, stream);
}

void layer_norm(tensor::TensorView x, tensor::TensorView weight, tensor::TensorView bias, float eps,
                tensor::TensorView y, tensor::Stream& stream) {
  operations(stream.device()).layer_norm(x, weight, bias, eps, y, stream);
}

void activate(tensor::TensorView x, Activation activation, tensor::Stream& stream) {
  operations(stream.device()).activate(x, activation, stream);
}

void add_bias(tensor::TensorView x, tensor::TensorView bias, tensor::Stream& stream) {
  operations(stream.device()).add_bias(x, bias, stream);
}

void gated_activation(tensor::TensorView x, Activation activation, tensor::TensorView y, tensor::Stream& stream) {
  operations(stream.device()).gated_activation(x, activation, y, stream);
}

void embedding_norm(const EmbeddingNormArgs& args, tensor::Stream& stream) {
  operations(stream.device()).embedding_norm(args, stream);
}

QuantizedTable quantize_table(tensor::TensorView table, tensor::Stream& stream) {
  return cpu::quantize_table(table, stream);
}

void sequence_attention(const SequenceAttentionArgs& args, tensor::Stream& stream) {
  operations(stream.device()).sequence_attention(args, stream);
}

void pool_rows(tensor::TensorView x, std::span<const int32_t> offsets, Pooling pooling, tensor::TensorView y,
               tensor::Stream& stream) {
  operations(stream.device()).pool_rows(x, offsets, pooling, y, stream);
}

void convolution(const ConvolutionArgs& args, tensor::Stream& stream) {
  operations(stream.device()).convolution(args, stream);
}

void max_pool(tensor::TensorView x, std::span<const ImageRows> images, Window window, tensor::TensorView y,
              std::span<const ImageRows> outputs, tensor::Stream& stream) {
  operations(stream.device()).max_pool(x, images, window, y, outputs, stream);
}

}  // namespace spillway::kernels
