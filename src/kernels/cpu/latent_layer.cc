// DeepSeek's latent attention of a layer by the small kernels, in both forms.
#include <algorithm>
#include <cstring>

#include "kernels/cpu/operations.h"

namespace spillway::kernels {
namespace {

constexpr int64_t kNaiveContextMax = 2048;  // the longest context that the naive form expands

}  // namespace

size_t latent_workspace_bytes(const LatentShape& shape, int64_t rows) {
  const auto f32 = [](tensor::Shape dims) { return tensor::Arena::footprint(tensor::DType::kF32, dims); };
  const int64_t heads = shape.heads, context = kNaiveContextMax;
  const size_t absorbed = 2 * f32({rows, heads, shape.kv_lora});
  const size_t naive = f32({context, shape.kv_lora}) + f32({context, shape.rope_dim}) +
                       f32({context, heads, shape.nope_dim + shape.value_dim}) +
                       f32({context, heads, shape.query_dim()});
  return f32({rows, shape.kv_lora}) + std::max(absorbed, naive);
}

namespace cpu {
namespace {

using tensor::TensorView;

bool naive_pays(const LatentShape& shape, int64_t rows, int64_t context) {
  if (context > kNaiveContextMax) return false;
  const int64_t lora = shape.kv_lora, expand = lora * (shape.nope_dim + shape.value_dim);
  const int64_t absorbed = rows * context * (2 * lora + shape.rope_dim) + rows * expand;
  const int64_t naive = rows * context * (shape.query_dim() + shape.value_dim) + context * expand;
  return absorbed > 2 * naive;
}

void attend_absorbed(const LatentLayerArgs& args, std::span<const SequenceRows> sequences, tensor::Arena& arena,
                     tensor::Stream& stream) {
  const LatentShape& shape = args.shape;
  const int64_t begin = sequences.front().row_begin, end = sequences.back().row_begin + sequences.back().rows;
  const int64_t tokens = args.queries.shape[0], heads = shape.heads, lora = shape.kv_lora, query = shape.query_dim();
  const TensorView queries = args.queries.reshaped({tokens, heads, query});
  const TensorView out = args.out.reshaped({tokens, heads, shape.value_dim});
  // Rows keep their place in the batch, so that the sequences' row_begin holds for these too.
  const size_t mark = arena.mark();
  const TensorView latent_queries = arena.f32({end, heads, lora}), latent_out = arena.f32({end, heads, lora});
  cpu::linear_by_head(queries.rows(begin, end), 0, args.key_up->weights, latent_queries.rows(begin, end), stream);
  cpu::latent_attention({.latent_queries = head_rows(latent_queries),
                         .rope_queries = {queries.as<float>(), heads * query, shape.nope_dim, query},
                         .heads = shape.heads,
                         .scale = shape.scale,
                         .pages = args.pages,
                         .out = latent_out},
                        sequences, stream);
  cpu::linear_by_head(latent_out.rows(begin, end), 0, args.value_up->weights, out.rows(begin, end), stream);
  arena.rewind(mark);
}

void attend_naive(const LatentLayerArgs& args, const SequenceRows& sequence, tensor::Arena& arena,
                  tensor::Stream& stream) {
  const LatentShape& shape = args.shape;
  const int64_t context = sequence.position + sequence.rows, heads = shape.heads, rope_dim = shape.rope_dim;
  const int64_t nope = shape.nope_dim, value = shape.value_dim, query = shape.query_dim();
  const size_t mark = arena.mark();
  const TensorView latents = arena.f32({context, shape.kv_lora}), rope_keys = arena.f32({context, rope_dim});
  const TensorView expanded = arena.f32({context, heads * (nope + value)}), keys = arena.f32({context, heads, query});
  cpu::read_latent(sequence.pages, args.pages, latents, rope_keys, stream);
  cpu::linear(latents, *args.kv_b, expanded, stream, {});
  stream.parallel_for(context, 16, [&](int64_t begin, int64_t end, int) {
    for (int64_t t = begin; t < end; ++t) {
      for (int64_t h = 0; h < heads; ++h) {
        float* key = keys.as<float>() + (t * heads + h) * query;
        std::memcpy(key, expanded.as<float>() + (t * heads + h) * (nope + value), size_t(nope) * sizeof(float));
        std::memcpy(key + nope, rope_keys.as<float>() + t * rope_dim, size_t(rope_dim) * sizeof(float));
      }
    }
  });
  const int64_t first = sequence.row_begin, last = first + sequence.rows;
  cpu::dense_attention({.queries = head_rows(args.queries.rows(first, last).reshaped({last - first, heads, query})),
                        .keys = head_rows(keys),
                        .values = {expanded.as<float>(), heads * (nope + value), nope, nope + value},
                        .heads = shape.heads,
                        .k_dim = int(query),
                        .v_dim = int(value),
                        .rows = sequence.rows,
                        .position = sequence.position,
                        .scale = shape.scale,
                        .out = args.out.rows(first, last).reshaped({last - first, heads, value})},
                       stream);
  arena.rewind(mark);
}

}  // namespace

void latent_store(const LatentStoreArgs& args, const BatchRows& batch, tensor::Arena& arena, tensor::Stream& stream) {
  const LatentShape& shape = args.shape;
  const int64_t tokens = args.down.shape[0], row = args.down.shape[1];
  const int64_t rope_at = shape.q_lora + shape.kv_lora;
  if (shape.q_lora > 0) cpu::rms_norm_slice(args.down, 0, args.query_norm, args.norm_epsilon, args.low, stream);
  const size_t mark = arena.mark();
  const TensorView latents = arena.f32({tokens, shape.kv_lora});
  cpu::rms_norm_slice(args.down, shape.q_lora, args.kv_norm, args.norm_epsilon, latents, stream);
  cpu::rope({.x = args.down,
             .cos_sin = args.cos_sin,
             .positions = batch.positions,
             .pairs = shape.pairs,
             .x_offset = rope_at,
             .heads = 1,
             .head_dim = shape.rope_dim},
            stream);
  cpu::write_latent({latents.as<float>(), shape.kv_lora, 0, 0}, {args.down.as<float>(), row, rope_at, 0},
                    batch.sequences, args.pages, stream);
  arena.rewind(mark);
}

void latent_layer(const LatentLayerArgs& args, const BatchRows& batch, tensor::Arena& arena, tensor::Stream& stream) {
  const LatentShape& shape = args.shape;
  cpu::rope({.x = args.queries,
             .cos_sin = args.cos_sin,
             .positions = batch.positions,
             .pairs = shape.pairs,
             .heads = shape.heads,
             .head_dim = shape.query_dim(),
             .offset = shape.nope_dim},
            stream);
  const auto naive = [&](const SequenceRows& s) {
    return args.form == LatentForm::kNaive ||
           (args.form == LatentForm::kAuto && naive_pays(shape, s.rows, s.position + s.rows));
  };
  const auto sequences = batch.sequences;
  for (size_t i = 0; i < sequences.size();) {
    if (naive(sequences[i])) {
      attend_naive(args, sequences[i++], arena, stream);
      continue;
    }
    const size_t first = i;
    while (i < sequences.size() && !naive(sequences[i])) ++i;
    attend_absorbed(args, sequences.subspan(first, i - first), arena, stream);
  }
}

}  // namespace cpu
}  // namespace spillway::kernels
