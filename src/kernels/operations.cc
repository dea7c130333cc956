#include "kernels/operations.h"

#include <array>
#include <string>

#include "kernels/cpu/operations.h"

namespace spillway::kernels {
namespace {

std::array<Operations, 2>& tables() {
  static std::array<Operations, 2> by_kind = {cpu::operations(), Operations()};
  return by_kind;
}

}  // namespace

void register_operations(tensor::DeviceKind kind, const Operations& operations) {
  tables()[static_cast<size_t>(kind)] = operations;
}

const Operations& operations(tensor::Device device) {
  const Operations& table = tables()[static_cast<size_t>(device.kind)];
  SW_CHECK(table.linear != nullptr, "no kernels for device " + to_string(device));
  return table;
}

Result<PackedLinear> pack_linear(std::span<const WeightSource> sources, Precision precision, tensor::Stream& stream) {
  return operations(stream.device()).pack_linear(sources, precision, stream);
}

Result<PackedLinear> pack_linear(const WeightSource& source, Precision precision, tensor::Stream& stream) {
  return pack_linear(std::span(&source, 1), precision, stream);
}

void linear(tensor::TensorView x, const PackedLinear& weight, tensor::TensorView y, tensor::Stream& stream,
            const LinearOptions& options) {
  operations(stream.device()).linear(x, weight, y, stream, options);
}

void gated_linear(tensor::TensorView x, const PackedLinear& gate_up, tensor::TensorView work, tensor::TensorView y,
                  tensor::Stream& stream) {
  operations(stream.device()).gated_linear(x, gate_up, work, y, stream);
}

void linear_by_head(tensor::TensorView x, int x_offset, std::span<const PackedLinear> weights, tensor::TensorView y,
                    tensor::Stream& stream) {
  operations(stream.device()).linear_by_head(x, x_offset, weights, y, stream);
}

Result<tensor::Tensor> dequantize(const WeightSource& source, tensor::Stream& stream) {
  return operations(stream.device()).dequantize(source, stream);
}

void route_tokens(tensor::TensorView logits, tensor::TensorView bias, const RoutingOptions& options,
                  tensor::TensorView ids, tensor::TensorView weights, tensor::Stream& stream) {
  operations(stream.device()).route_tokens(logits, bias, options, ids, weights, stream);
}

void expert_mlp(tensor::TensorView x, tensor::TensorView ids, tensor::TensorView weights,
                std::span<const ExpertWeights> experts, tensor::TensorView y, tensor::Stream& stream) {
  operations(stream.device()).expert_mlp(x, ids, weights, experts, y, stream);
}

void rms_norm(tensor::TensorView x, tensor::TensorView weight, float eps, tensor::TensorView y,
              tensor::Stream& stream) {
  operations(stream.device()).rms_norm(x, weight, eps, y, stream);
}

void rms_norm_slice(tensor::TensorView x, int64_t x_offset, tensor::TensorView weight, float eps, tensor::TensorView y,
                    tensor::Stream& stream) {
  operations(stream.device()).rms_norm_slice(x, x_offset, weight, eps, y, stream);
}

void add_rms_norm(tensor::TensorView residual, tensor::TensorView x, tensor::TensorView weight, float eps,
                  tensor::TensorView y, tensor::Stream& stream) {
  operations(stream.device()).add_rms_norm(residual, x, weight, eps, y, stream);
}

void silu_mul(tensor::TensorView gate_up, tensor::TensorView y, tensor::Stream& stream) {
  operations(stream.device()).silu_mul(gate_up, y, stream);
}

void add(tensor::TensorView y, tensor::TensorView x, tensor::Stream& stream) {
  operations(stream.device()).add(y, x, stream);
}

void embedding(tensor::TensorView table, tensor::TensorView ids, tensor::TensorView y, tensor::Stream& stream) {
  operations(stream.device()).embedding(table, ids, y, stream);
}

void gather_rows(tensor::TensorView x, tensor::TensorView ids, tensor::TensorView y, tensor::Stream& stream) {
  operations(stream.device()).gather_rows(x, ids, y, stream);
}

void copy_slice(tensor::TensorView x, int64_t x_offset, tensor::TensorView y, tensor::Stream& stream) {
  operations(stream.device()).copy_slice(x, x_offset, y, stream);
}

void rope(const RopeArgs& args, tensor::Stream& stream) { operations(stream.device()).rope(args, stream); }

void fill_rope_table(tensor::TensorView inv_freq, float factor, tensor::TensorView cos_sin, tensor::Stream& stream) {
  operations(stream.device()).fill_rope_table(inv_freq, factor, cos_sin, stream);
}

void write_kv(const HeadRows& keys, const HeadRows& values, std::span<const SequenceRows> batch,
              const KvPagesView& pages, tensor::Stream& stream) {
  operations(stream.device()).write_kv(keys, values, batch, pages, stream);
}

void paged_attention(const AttentionArgs& args, std::span<const SequenceRows> batch, tensor::Stream& stream) {
  operations(stream.device()).paged_attention(args, batch, stream);
}

void dense_attention(const DenseAttentionArgs& args, tensor::Stream& stream) {
  operations(stream.device()).dense_attention(args, stream);
}

void write_latent(const HeadRows& latents, const HeadRows& rope_keys, std::span<const SequenceRows> batch,
                  const LatentPagesView& pages, tensor::Stream& stream) {
  operations(stream.device()).write_latent(latents, rope_keys, batch, pages, stream);
}

void read_latent(std::span<const int32_t> page_ids, const LatentPagesView& pages, tensor::TensorView latents,
                 tensor::TensorView rope_keys, tensor::Stream& stream) {
  operations(stream.device()).read_latent(page_ids, pages, latents, rope_keys, stream);
}

void latent_attention(const LatentAttentionArgs& args, std::span<const SequenceRows> batch, tensor::Stream& stream) {
  operations(stream.device()).latent_attention(args, batch, stream);
}

}  // namespace spillway::kernels
