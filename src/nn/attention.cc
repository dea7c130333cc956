#include "nn/attention.h"

#include <cmath>

#include "kernels/elementwise.h"

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
          .page_stride_bytes = kv.page_stride_bytes(kv_layer_),
          .dtype = kv.layout().dtype,
          .page_tokens = kv.page_tokens(),
          .kv_heads = shape_.kv_heads,
          .k_dim = shape_.head_dim,
          .v_dim = shape_.head_dim};
}

size_t Attention::workspace_bytes(int64_t tokens) const {
  const int64_t query = int64_t(shape_.heads) * shape_.head_dim, key = int64_t(shape_.kv_heads) * shape_.head_dim;
  size_t bytes = tensor::Arena::footprint(tensor::DType::kF32, {tokens, qkv_.outputs()}) +
                 2 * tensor::Arena::footprint(tensor::DType::kF32, {tokens, query});
  if (shape_.qk_norm) {
    bytes += tensor::Arena::footprint(tensor::DType::kF32, {tokens, query}) +
             tensor::Arena::footprint(tensor::DType::kF32, {tokens, key});
  }
  return bytes;
}

tensor::StageCost Attention::attention_cost(const Step& step) const {
  const Step::Contexts contexts = step.contexts();
  const double row_bytes = double(shape_.kv_width()) * double(tensor::size_of(step.kv.layout().dtype));
  return {.bytes = contexts.tokens * row_bytes, .flops = 4.0 * shape_.heads * shape_.head_dim * contexts.pairs};
}

void Attention::add_to(tensor::TensorView x, const kernels::InputNorm& norm, tensor::TensorView residual,
                       const Step& step, tensor::TensorView wanted) const {
  const ArenaScope scope(step.arena);
  const int64_t tokens = x.shape[0], query = int64_t(shape_.heads) * shape_.head_dim;
  const tensor::TensorView qkv = step.activation({tokens, qkv_.outputs()});
  const tensor::TensorView out = step.activation({tokens, query});
  step.stream.stage("norm, qkv product", qkv_.cost(tokens));
  kernels::GroupedAttentionArgs args;
  args.qkv = qkv;
  if (step.stream.device().kind == tensor::DeviceKind::kCpu) {
    qkv_.apply(x, qkv, step.stream, norm);
  } else {  // the kernel that rotates adds the bias for nothing
    qkv_.apply_unbiased(x, qkv, step.stream, norm);
    args.qkv_bias = qkv_.bias().view();
  }
  args.heads = shape_.heads;
  if (shape_.qk_norm) {
    args.query_norm = query_norm_->weight();
    args.key_norm = key_norm_->weight();
    args.norm_epsilon = float(shape_.norm_epsilon);
  }
  args.cos_sin = step.rope;
  args.scale = 1.0f / std::sqrt(float(shape_.head_dim));
  args.pages = pages(step.kv);
  args.out = out;
  if (wanted.empty()) args.next = &output_.weight();
  if (step.stream.watched()) step.stream.stage("attention", attention_cost(step));
  kernels::grouped_attention(args, step.rows, step.arena, step.stream);
  step.stream.stage("output product", output_.cost(wanted.empty() ? tokens : wanted.elements()));
  if (wanted.empty()) return output_.add_to(out, residual, step.stream);
  const tensor::TensorView gathered = step.activation({wanted.elements(), query});
  kernels::gather_rows(out, wanted, gathered, step.stream);
  output_.add_to(gathered, residual, step.stream);
}

}  // namespace spillway::nn
