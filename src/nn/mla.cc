#include "nn/mla.h"

#include "kernels/elementwise.h"

namespace spillway::nn {

namespace k = spillway::kernels;
using tensor::TensorView;

Status Mla::load_kv_b(const weights::WeightScope& scope, LoadContext& context) {
  const int64_t lora = shape_.kv_lora, nope = shape_.nope_dim, value = shape_.value_dim;
  const MatrixRow row{"kv_b_proj", shape_.heads * (nope + value)};
  SW_ASSIGN(kv_b_, load_matrices(scope, std::span(&row, 1), lora, context, 0));
  context.totals.parameters -= row.outputs * lora;  // counted below
  SW_ASSIGN(const tensor::Tensor full, load_matrix_f32(scope, row, lora, context.stream));
  // Int8 would round twice here for a hundredth of the weights.
  const k::Precision precision = k::computes_in_f32(context.precision) ? context.precision : k::Precision::kBf16;
  const int heads = shape_.heads;
  SW_ASSIGN(key_up_, k::pack_heads(full, heads, 0, nope, true, precision, context.stream));
  SW_ASSIGN(value_up_, k::pack_heads(full, heads, nope, value, false, precision, context.stream));
  context.add(row.outputs * lora, int64_t(key_up_.bytes() + value_up_.bytes()));
  return {};
}

Result<Mla> Mla::load(const weights::WeightScope& scope, const MlaShape& shape, int kv_layer, LoadContext& context) {
  Mla mla;
  mla.shape_ = shape;
  mla.kv_layer_ = kv_layer;
  std::vector<MatrixRow> down;
  if (shape.q_lora > 0) {
    down.push_back({"q_a_proj", shape.q_lora});
    SW_ASSIGN(mla.q_norm_, RmsNorm::load(scope, "q_a_layernorm", shape.q_lora, shape.norm_epsilon, context));
  }
  down.push_back({"kv_a_proj_with_mqa", shape.kv_width()});
  SW_ASSIGN(mla.down_, Linear::load(scope, std::move(down), shape.hidden, false, context));
  SW_ASSIGN(mla.kv_norm_, RmsNorm::load(scope, "kv_a_layernorm", shape.kv_lora, shape.norm_epsilon, context));
  const int64_t queries = int64_t(shape.heads) * shape.query_dim();
  const MatrixRow query{shape.q_lora > 0 ? "q_b_proj" : "q_proj", queries};
  SW_ASSIGN(mla.query_, Linear::load(scope, {query}, shape.q_lora > 0 ? shape.q_lora : shape.hidden, false, context));
  SW_TRY(mla.load_kv_b(scope, context));
  SW_ASSIGN(mla.output_,
            Linear::load(scope, {{"o_proj", shape.hidden}}, int64_t(shape.heads) * shape.value_dim, false, context));
  return mla;
}

size_t Mla::workspace_bytes(int64_t tokens) const {
  const auto f32 = [](tensor::Shape shape) { return tensor::Arena::footprint(tensor::DType::kF32, shape); };
  return f32({tokens, down_.outputs()}) + f32({tokens, shape_.q_lora}) + f32({tokens, query_.outputs()}) +
         f32({tokens, shape_.heads * shape_.value_dim}) + k::latent_workspace_bytes(latent_shape(), tokens);
}

k::LatentPagesView Mla::pages(const KvStorage& kv) const {
  return {.base = kv.layer_base(kv_layer_),
          .page_stride_bytes = kv.page_stride_bytes(kv_layer_),
          .dtype = kv.layout().dtype,
          .page_tokens = kv.page_tokens(),
          .lora_dim = shape_.kv_lora,
          .rope_dim = shape_.rope_dim};
}

k::LatentShape Mla::latent_shape() const {
  return {.heads = shape_.heads,
          .q_lora = shape_.q_lora,
          .kv_lora = shape_.kv_lora,
          .nope_dim = shape_.nope_dim,
          .rope_dim = shape_.rope_dim,
          .value_dim = shape_.value_dim,
          .pairs = shape_.pairs,
          .scale = float(shape_.softmax_scale)};
}

// In the absorbed form.
tensor::StageCost Mla::attention_cost(const Step& step) const {
  const Step::Contexts contexts = step.contexts();
  const double width = shape_.kv_width(), lora = shape_.kv_lora, heads = shape_.heads;
  const double by_head = 2.0 * double(step.tokens()) * heads * lora * (shape_.nope_dim + shape_.value_dim);
  return {.bytes = contexts.tokens * width * double(tensor::size_of(step.kv.layout().dtype)) +
                   double(key_up_.bytes() + value_up_.bytes()),
          .flops = 2.0 * heads * (width + lora) * contexts.pairs + by_head};
}

void Mla::add_to(TensorView x, const k::InputNorm& norm, TensorView residual, const Step& step, MlaForm form) const {
  const ArenaScope scope(step.arena);
  const int64_t tokens = x.shape[0];
  const TensorView down = step.activation({tokens, down_.outputs()});
  step.stream.stage("norm, latent down product", down_.cost(tokens));
  if (q_norm_ || norm.empty()) {
    down_.apply(x, down, step.stream, norm);
  } else {  // the query product reads the normed rows as well
    k::rms_norm(x, norm.weight, norm.epsilon, norm.normed, step.stream);
    x = norm.normed;
    down_.apply(x, down, step.stream);
  }
  step.stream.stage("latent norms, rope, pages", {.bytes = 2.0 * double(down.bytes())});
  k::LatentStoreArgs store;
  store.shape = latent_shape();
  store.down = down;
  store.kv_norm = kv_norm_.weight();
  store.norm_epsilon = float(shape_.norm_epsilon);
  store.cos_sin = step.rope;
  store.pages = pages(step.kv);
  store.next = &query_.weight();
  if (q_norm_) {
    store.query_norm = q_norm_->weight();
    store.low = step.activation({tokens, shape_.q_lora});
  }
  k::latent_store(store, step.rows, step.arena, step.stream);

  k::LatentLayerArgs layer;
  layer.shape = store.shape;
  layer.form = form;
  layer.queries = step.activation({tokens, query_.outputs()});
  step.stream.stage("query product", query_.cost(tokens));
  query_.apply(q_norm_ ? store.low : x, layer.queries, step.stream);
  layer.key_up = &key_up_;
  layer.value_up = &value_up_;
  layer.kv_b = &kv_b_;
  layer.cos_sin = step.rope;
  layer.pages = store.pages;
  layer.out = step.activation({tokens, shape_.heads * shape_.value_dim});
  if (step.stream.watched()) step.stream.stage("latent attention", attention_cost(step));
  k::latent_layer(layer, step.rows, step.arena, step.stream);
  step.stream.stage("output product", output_.cost(tokens));
  output_.add_to(layer.out, residual, step.stream);
}

}  // namespace spillway::nn
