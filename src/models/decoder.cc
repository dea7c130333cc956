#include "models/decoder.h"

#include <algorithm>

#include "kernels/elementwise.h"

namespace spillway::models {

using tensor::TensorView;

Result<Decoder::Parts> Decoder::load_parts(const DecoderConfig& config, std::unique_ptr<weights::WeightSource> source,
                                           nn::LoadContext& context) {
  const weights::WeightScope root(*source);
  SW_ASSIGN(nn::Embedding embedding,
            nn::Embedding::load(root.scope("model.embed_tokens"), config.vocab_size, config.hidden_size, context));
  SW_ASSIGN(nn::RmsNorm norm,
            nn::RmsNorm::load(root.scope("model"), "norm", config.hidden_size, config.norm_epsilon, context));
  const bool tied = config.tied_embeddings;
  const nn::MatrixRow row{tied ? "model.embed_tokens" : "lm_head", config.vocab_size};
  SW_ASSIGN(kernels::PackedLinear head, nn::load_matrices(root, std::span(&row, 1), config.hidden_size, context));
  if (tied) context.totals.parameters -= int64_t(config.vocab_size) * config.hidden_size;
  return Parts{std::move(source), std::move(embedding), std::move(norm), std::move(head)};
}

Decoder::Decoder(Parts parts, const DecoderConfig& config, int rope_dim, int batch_tokens_max)
    : parts_(std::move(parts)),
      rope_(rope_dim, config.rope_theta, config.rope_scaling, config.context_tokens_max),
      batch_tokens_max_(batch_tokens_max) {
  const int64_t tokens = batch_tokens_max;
  ids_ = tensor::Tensor(tensor::DType::kI32, {tokens});
  positions_ = tensor::Tensor(tensor::DType::kI32, {tokens});
  wanted_ids_ = tensor::Tensor(tensor::DType::kI32, {tokens});
  hidden_ = tensor::Tensor(tensor::DType::kF32, {tokens, config.hidden_size});
  logits_ = tensor::Tensor(tensor::DType::kF32, {tokens, config.vocab_size});
  rows_.reserve(size_t(tokens));
  past_.reserve(size_t(tokens));
  wanted_.reserve(size_t(tokens));
}

void Decoder::finish_loading(const DecoderConfig& config, const nn::LoadContext& context, std::vector<int> kv_widths,
                             size_t layer_bytes) {
  info_.architecture = config.architecture;
  info_.vocab_size = config.vocab_size;
  info_.hidden_size = config.hidden_size;
  info_.context_tokens_max = config.context_tokens_max;
  info_.kv.layer_widths = std::move(kv_widths);
  info_.kv.dtype = context.precision == kernels::Precision::kFp32 ? tensor::DType::kF32 : tensor::DType::kBF16;
  info_.weight_bytes = context.totals.bytes;
  info_.mapped_bytes = parts_.source->mapped_bytes();
  info_.parameters = context.totals.parameters;
  info_.decode_bytes = int64_t(context.totals.decode_bytes);
  info_.flops_per_token = int64_t(context.totals.flops_per_token);
  info_.precision = std::string(name_of(context.precision));
  // The residual, the gathered rows of the head, and whatever the largest layer takes.
  const size_t row = tensor::Arena::footprint(tensor::DType::kF32, {batch_tokens_max_, config.hidden_size});
  arena_ = tensor::Arena(2 * row + layer_bytes);
}

void Decoder::flatten(std::span<const SequenceInput> batch, const nn::KvStorage& kv) {
  rows_.clear();
  wanted_.clear();
  int32_t at = 0;
  for (const SequenceInput& input : batch) {
    const int32_t count = int32_t(input.tokens.size());
    SW_CHECK(count > 0 && at + count <= batch_tokens_max_, "a batch outside [1, batch_tokens_max] tokens");
    SW_CHECK(input.position >= 0 && input.position + count <= info_.context_tokens_max,
             "a position outside the context");
    SW_CHECK(int64_t(input.pages.size()) * kv.page_tokens() >= input.position + count,
             "pages that do not cover the tokens");
    SW_CHECK(input.logits_rows >= 0 && input.logits_rows <= count, "more logits wanted than tokens given");
    for (int32_t i = 0; i < count; ++i) {
      SW_CHECK(input.tokens[size_t(i)] >= 0 && input.tokens[size_t(i)] < info_.vocab_size,
               "a token outside the vocabulary");
    }
    std::copy(input.tokens.begin(), input.tokens.end(), ids_.as<int32_t>() + at);
    for (int32_t i = count - input.logits_rows; i < count; ++i) wanted_.push_back(at + i);
    rows_.push_back({.row_begin = at, .rows = count, .position = input.position, .pages = input.pages});
    at += count;
  }
}

nn::Step Decoder::make_step(std::span<const kernels::SequenceRows> rows, nn::KvStorage& kv, tensor::Stream& stream) {
  int32_t* positions = positions_.as<int32_t>();
  int64_t tokens = 0, longest = 0;
  for (const kernels::SequenceRows& sequence : rows) {
    for (int32_t i = 0; i < sequence.rows; ++i) positions[tokens++] = sequence.position + i;
    longest = std::max<int64_t>(longest, sequence.position + sequence.rows);
  }
  return nn::Step{.positions = positions_.view().rows(0, tokens),
                  .rope = rope_.rows(longest, stream),
                  .sequences = rows,
                  .kv = kv,
                  .arena = arena_,
                  .stream = stream};
}

TensorView Decoder::embed(tensor::Stream& stream, int64_t tokens) {
  const TensorView x = arena_.f32({tokens, info_.hidden_size});
  parts_.embedding.apply(ids_.view().rows(0, tokens), x, stream);
  return x;
}

TensorView Decoder::head_logits(TensorView normed, tensor::Stream& stream) {
  const TensorView logits = logits_.view().rows(0, normed.shape[0]);
  if (normed.shape[0] > 0) kernels::linear(normed, parts_.head, logits, stream);
  return logits;
}

TensorView Decoder::forward(std::span<const SequenceInput> batch, nn::KvStorage& kv, tensor::Stream& stream) {
  SW_CHECK(!batch.empty(), "an empty batch");
  arena_.reset();
  flatten(batch, kv);
  const nn::Step step = make_step(rows_, kv, stream);
  const TensorView x = embed(stream, step.tokens());
  run_layers(x, step);
  const int64_t wanted = int64_t(wanted_.size());
  std::copy(wanted_.begin(), wanted_.end(), wanted_ids_.as<int32_t>());
  const TensorView wanted_ids = wanted_ids_.view().rows(0, wanted);
  const TensorView gathered = arena_.f32({wanted, info_.hidden_size});
  if (keeps_hidden_) {
    past_.clear();
    past_pages_.clear();
    for (const kernels::SequenceRows& sequence : rows_) {
      past_.push_back({sequence, past_pages_.size()});
      past_pages_.insert(past_pages_.end(), sequence.pages.begin(), sequence.pages.end());
    }
    const TensorView hidden = hidden_.view().rows(0, step.tokens());
    parts_.norm.apply(x, hidden, stream);
    if (wanted > 0) kernels::gather_rows(hidden, wanted_ids, gathered, stream);
  } else if (wanted > 0) {
    kernels::gather_rows(x, wanted_ids, gathered, stream);
    parts_.norm.apply(gathered, gathered, stream);
  }
  return head_logits(gathered, stream);
}

TensorView Decoder::draft(std::span<const DraftInput>, nn::KvStorage&, tensor::Stream&) {
  SW_CHECK(false, "draft() of a model without a draft layer");
}

}  // namespace spillway::models
