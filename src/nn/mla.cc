#include "nn/mla.h"

#include <algorithm>
#include <cstring>

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
  const k::Precision precision = context.precision == k::Precision::kFp32 ? k::Precision::kFp32 : k::Precision::kBf16;
  for (int h = 0; h < shape_.heads; ++h) {
    const TensorView rows = full.view().rows(h * (nope + value), (h + 1) * (nope + value));
    const k::WeightSource key_rows{.weight = rows.rows(0, nope), .scales = {}, .transposed = true};
    const k::WeightSource value_rows{.weight = rows.rows(nope, nope + value), .scales = {}};
    SW_ASSIGN(auto key, k::pack_linear(key_rows, precision, context.stream));
    SW_ASSIGN(auto out, k::pack_linear(value_rows, precision, context.stream));
    context.add((nope + value) * lora, int64_t(key.bytes() + out.bytes()));
    key_up_.push_back(std::move(key));
    value_up_.push_back(std::move(out));
  }
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

bool Mla::naive_pays(int64_t rows, int64_t context) const {
  if (context > kNaiveContextMax) return false;
  const int64_t lora = shape_.kv_lora, expand = lora * (shape_.nope_dim + shape_.value_dim);
  const int64_t absorbed = rows * context * (2 * lora + shape_.rope_dim) + rows * expand;
  const int64_t naive = rows * context * (shape_.query_dim() + shape_.value_dim) + context * expand;
  return absorbed > 2 * naive;
}

size_t Mla::workspace_bytes(int64_t tokens) const {
  const auto f32 = [](tensor::Shape shape) { return tensor::Arena::footprint(tensor::DType::kF32, shape); };
  const int64_t heads = shape_.heads, context = kNaiveContextMax;
  const size_t common = f32({tokens, down_.outputs()}) + f32({tokens, shape_.q_lora}) +
                        f32({tokens, heads, shape_.query_dim()}) + f32({tokens, heads, shape_.value_dim}) +
                        f32({tokens, shape_.kv_lora});
  const size_t absorbed = 2 * f32({tokens, heads, shape_.kv_lora});
  const size_t naive = f32({context, shape_.kv_lora}) + f32({context, shape_.rope_dim}) +
                       f32({context, heads, shape_.nope_dim + shape_.value_dim}) +
                       f32({context, heads, shape_.query_dim()});
  return common + std::max(absorbed, naive);
}

k::LatentPagesView Mla::pages(const KvStorage& kv) const {
  return {.base = kv.layer_base(kv_layer_),
          .page_stride_bytes = kv.page_stride_bytes(),
          .dtype = kv.layout().dtype,
          .page_tokens = kv.page_tokens(),
          .lora_dim = shape_.kv_lora,
          .rope_dim = shape_.rope_dim};
}

TensorView Mla::queries(TensorView x, TensorView down, const Step& step) const {
  const int64_t tokens = x.shape[0];
  const TensorView out = step.arena.f32({tokens, query_.outputs()});
  if (q_norm_) {
    const TensorView low = step.arena.f32({tokens, shape_.q_lora});
    q_norm_->apply_slice(down, 0, low, step.stream);
    query_.apply(low, out, step.stream);
  } else {
    query_.apply(x, out, step.stream);
  }
  k::rope({.x = out,
           .cos_sin = step.rope,
           .positions = step.positions,
           .pairs = shape_.pairs,
           .heads = shape_.heads,
           .head_dim = shape_.query_dim(),
           .offset = shape_.nope_dim},
          step.stream);
  return out.reshaped({tokens, shape_.heads, shape_.query_dim()});
}

void Mla::store_latents(TensorView down, const Step& step) const {
  const int64_t tokens = down.shape[0], row = down.shape[1];
  const int64_t rope_at = shape_.q_lora + shape_.kv_lora;
  const TensorView latents = step.arena.f32({tokens, shape_.kv_lora});
  kv_norm_.apply_slice(down, shape_.q_lora, latents, step.stream);
  k::rope({.x = down,
           .cos_sin = step.rope,
           .positions = step.positions,
           .pairs = shape_.pairs,
           .x_offset = rope_at,
           .heads = 1,
           .head_dim = shape_.rope_dim},
          step.stream);
  k::write_latent({latents.as<float>(), shape_.kv_lora, 0, 0}, {down.as<float>(), row, rope_at, 0}, step.sequences,
                  pages(step.kv), step.stream);
}

void Mla::attend_absorbed(const Projected& projected, std::span<const k::SequenceRows> sequences,
                          const Step& step) const {
  const ArenaScope scope(step.arena);
  const int64_t begin = sequences.front().row_begin, end = sequences.back().row_begin + sequences.back().rows;
  const int64_t heads = shape_.heads, lora = shape_.kv_lora, query = shape_.query_dim();
  // Rows keep their place in the batch, so that the sequences' row_begin holds for these too.
  const TensorView latent_queries = step.arena.f32({end, heads, lora}), latent_out = step.arena.f32({end, heads, lora});
  k::linear_by_head(projected.queries.rows(begin, end), 0, key_up_, latent_queries.rows(begin, end), step.stream);
  k::latent_attention({.latent_queries = k::head_rows(latent_queries),
                       .rope_queries = {projected.queries.as<float>(), heads * query, shape_.nope_dim, query},
                       .heads = shape_.heads,
                       .scale = float(shape_.softmax_scale),
                       .pages = pages(step.kv),
                       .out = latent_out},
                      sequences, step.stream);
  k::linear_by_head(latent_out.rows(begin, end), 0, value_up_, projected.out.rows(begin, end), step.stream);
}

void Mla::attend_naive(const Projected& projected, const k::SequenceRows& sequence, const Step& step) const {
  const ArenaScope scope(step.arena);
  const int64_t context = sequence.position + sequence.rows, heads = shape_.heads;
  const int64_t nope = shape_.nope_dim, rope = shape_.rope_dim, value = shape_.value_dim, query = shape_.query_dim();
  const TensorView latents = step.arena.f32({context, shape_.kv_lora}), rope_keys = step.arena.f32({context, rope});
  const TensorView expanded = step.arena.f32({context, heads * (nope + value)}),
                   keys = step.arena.f32({context, heads, query});
  k::read_latent(sequence.pages, pages(step.kv), latents, rope_keys, step.stream);
  k::linear(latents, kv_b_, expanded, step.stream);
  step.stream.parallel_for(context, 16, [&](int64_t begin, int64_t end, int) {
    for (int64_t t = begin; t < end; ++t) {
      for (int64_t h = 0; h < heads; ++h) {
        float* key = keys.as<float>() + (t * heads + h) * query;
        std::memcpy(key, expanded.as<float>() + (t * heads + h) * (nope + value), size_t(nope) * sizeof(float));
        std::memcpy(key + nope, rope_keys.as<float>() + t * rope, size_t(rope) * sizeof(float));
      }
    }
  });
  const int64_t first = sequence.row_begin, last = first + sequence.rows;
  k::dense_attention({.queries = k::head_rows(projected.queries.rows(first, last)),
                      .keys = k::head_rows(keys),
                      .values = {expanded.as<float>(), heads * (nope + value), nope, nope + value},
                      .heads = shape_.heads,
                      .k_dim = int(query),
                      .v_dim = int(value),
                      .rows = sequence.rows,
                      .position = sequence.position,
                      .scale = float(shape_.softmax_scale),
                      .out = projected.out.rows(first, last)},
                     step.stream);
}

void Mla::add_to(TensorView x, TensorView residual, const Step& step, MlaForm form) const {
  const ArenaScope scope(step.arena);
  const int64_t tokens = x.shape[0];
  const TensorView down = step.arena.f32({tokens, down_.outputs()});
  down_.apply(x, down, step.stream);
  Projected projected;
  projected.queries = queries(x, down, step);
  store_latents(down, step);
  projected.out = step.arena.f32({tokens, shape_.heads, shape_.value_dim});
  const auto naive = [&](const k::SequenceRows& s) {
    return form == MlaForm::kNaive || (form == MlaForm::kAuto && naive_pays(s.rows, s.position + s.rows));
  };
  for (size_t i = 0; i < step.sequences.size();) {
    if (naive(step.sequences[i])) {
      attend_naive(projected, step.sequences[i++], step);
      continue;
    }
    const size_t first = i;
    while (i < step.sequences.size() && !naive(step.sequences[i])) ++i;
    attend_absorbed(projected, step.sequences.subspan(first, i - first), step);
  }
  output_.add_to(projected.out.reshaped({tokens, int64_t(shape_.heads) * shape_.value_dim}), residual, step.stream);
}

}  // namespace spillway::nn
