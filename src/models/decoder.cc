#include "models/decoder.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/log.h"
#include "base/progress_lines.h"
#include "kernels/elementwise.h"
#include "weights/weight_source.h"

namespace spillway::models {

using tensor::TensorView;

namespace {

kernels::Precision head_precision(kernels::Precision precision) {
  if (precision == kernels::Precision::kFp8) return kernels::Precision::kBf16;
  return precision == kernels::Precision::kInt4 ? kernels::Precision::kInt8 : precision;
}

}  // namespace

Result<Decoder::Parts> Decoder::load_parts(const DecoderConfig& config, std::unique_ptr<weights::WeightSource> source,
                                           nn::LoadContext& context) {
  const bool first = config.slice.begin == 0, last = config.slice.end == config.layers;
  std::unique_ptr<weights::WeightSource> made_up = first && last ? nullptr : weights::random_weights({});
  const weights::WeightScope own(*source), other(made_up ? *made_up : *source);
  // A slice takes both from the same place, as their vocabulary is one.
  const weights::WeightScope& root = first && last ? own : other;
  SW_ASSIGN(nn::Embedding embedding,
            nn::Embedding::load(root.scope("model.embed_tokens"), config.vocab_size, config.hidden_size, context));
  SW_ASSIGN(nn::RmsNorm norm,
            nn::RmsNorm::load(root.scope("model"), "norm", config.hidden_size, config.norm_epsilon, context));
  const bool tied = config.tied_embeddings;
  // Rounding is felt first where tokens are drawn: the head keeps more bits than the layers.
  const kernels::Precision precision = context.precision;
  context.precision = head_precision(precision);
  const nn::MatrixRow row{tied ? "model.embed_tokens" : "lm_head", config.vocab_size};
  SW_ASSIGN(kernels::PackedLinear head, nn::load_matrices(root, std::span(&row, 1), config.hidden_size, context));
  context.precision = precision;
  if (tied) context.totals.parameters -= int64_t(config.vocab_size) * config.hidden_size;
  return Parts{std::move(source), std::move(made_up), std::move(embedding), std::move(norm), std::move(head)};
}

namespace {

constexpr int kSliceVocabulary = 1024;

// The head's rows of one step on a GPU: more than an engine asks for, and not a gigabyte of them.
constexpr int64_t kDeviceLogitsRows = 1024;

}  // namespace

Status Decoder::choose_layers(const LayerRange& wanted, DecoderConfig& config) {
  config.slice = wanted.all() ? LayerRange{0, config.layers} : wanted;
  if (config.slice.begin < 0 || config.slice.end > config.layers || config.slice.begin >= config.slice.end) {
    return invalid(
        fmt::format("layers: expected a part of 0:{}, found {}:{}", config.layers, wanted.begin, wanted.end));
  }
  if (!wanted.all() && config.slice.end - config.slice.begin < config.layers) config.vocab_size = kSliceVocabulary;
  return {};
}

Decoder::Decoder(Parts parts, const DecoderConfig& config, int rope_dim, int batch_tokens_max,
                 const nn::LoadContext& context)
    : parts_(std::move(parts)),
      rope_(rope_dim, config.rope_theta, config.rope_scaling, config.context_tokens_max),
      batch_tokens_max_(batch_tokens_max) {
  const int64_t tokens = batch_tokens_max;
  tensor::Stream& stream = context.stream;
  const bool cpu = stream.device().kind == tensor::DeviceKind::kCpu;
  const int64_t logits_rows = cpu ? tokens : std::min(tokens, kDeviceLogitsRows);
  inputs_ = nn::StepInputs({.tokens = tokens,
                            .sequences = cpu ? tokens : std::min(tokens, kDeviceLogitsRows),
                            .context_tokens = config.context_tokens_max},
                           stream);
  hidden_ = tensor::Tensor(tensor::DType::kF32, {tokens, config.hidden_size}, stream.device());
  logits_ = tensor::Tensor(tensor::DType::kF32, {logits_rows, config.vocab_size}, stream.device());
  if (!cpu) {
    host_logits_ = tensor::Tensor(tensor::DType::kF32, {logits_rows, config.vocab_size}, stream.host());
    drawn_ = tensor::Tensor(tensor::DType::kI32, {2 * logits_rows}, stream.device());
    landed_ = tensor::Tensor(tensor::DType::kI32, {kStepsInFlight + 1, 2 * logits_rows}, stream.host());
    if (!kernels::computes_in_f32(context.precision)) activations_ = kernels::half_type(stream.device());
  }
  rope_.place(stream);
  past_.reserve(size_t(tokens));
}

void Decoder::finish_loading(const DecoderConfig& config, const nn::LoadContext& context, std::vector<int> kv_widths,
                             size_t layer_bytes) {
  info_.architecture = config.architecture;
  info_.vocab_size = config.vocab_size;
  info_.hidden_size = config.hidden_size;
  info_.context_tokens_max = config.context_tokens_max;
  info_.kv.layer_widths = std::move(kv_widths);
  info_.kv.dtype =
      kernels::computes_in_f32(context.precision) ? tensor::DType::kF32 : kernels::half_type(context.stream.device());
  info_.weight_bytes = context.totals.bytes;
  info_.mapped_bytes = parts_.source->mapped_bytes();
  info_.parameters = context.totals.parameters;
  info_.decode_bytes = int64_t(context.totals.decode_bytes);
  info_.flops_per_token = int64_t(context.totals.flops_per_token);
  info_.precision = std::string(name_of(context.precision));
  // The residual, the rows of the head gathered and normed, and whatever the largest layer takes.
  const size_t row = tensor::Arena::footprint(tensor::DType::kF32, {batch_tokens_max_, config.hidden_size});
  arena_ = tensor::Arena(3 * row + layer_bytes, context.stream.device());
  if (keeps_hidden_ && !drawn_.empty()) make_room_for_drafts(context.stream);
}

void Decoder::flatten(std::span<const SequenceInput> batch, const nn::KvStorage& kv) {
  inputs_.clear();
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
    inputs_.ids.insert(inputs_.ids.end(), input.tokens.begin(), input.tokens.end());
    for (int32_t i = count - input.logits_rows; i < count; ++i) inputs_.wanted.push_back(at + i);
    inputs_.sequences.push_back({.row_begin = at, .rows = count, .position = input.position, .pages = input.pages});
    at += count;
  }
}

Decoder::Sent Decoder::send(nn::KvStorage& kv, tensor::Stream& stream, int64_t sequences, int32_t rows) {
  const nn::StepInputs::View inputs = inputs_.upload(kv, stream, sequences, rows);
  if (computed_ >= 0) gaps_.emplace_back(computed_, inputs.sent);
  return {inputs, nn::Step{.rows = inputs.rows,
                           .rope = rope_.rows(inputs.longest, stream),
                           .kv = kv,
                           .arena = arena_,
                           .stream = stream,
                           .activations = activations_}};
}

TensorView Decoder::embed(TensorView ids, tensor::Stream& stream) {
  const TensorView x = arena_.f32({ids.shape[0], info_.hidden_size});
  stream.stage("embedding", {.bytes = double(x.bytes())});
  parts_.embedding.apply(ids, x, stream);
  return x;
}

TensorView Decoder::head_logits(TensorView normed, tensor::Stream& stream) {
  SW_CHECK(normed.shape[0] <= logits_.shape()[0], "logits of more rows than the model was loaded for");
  const TensorView logits = logits_.view().rows(0, normed.shape[0]);
  stream.stage("head", nn::product_cost(parts_.head, normed.shape[0]));
  if (normed.shape[0] > 0) kernels::linear(normed, parts_.head, logits, stream);
  return logits;
}

TensorView Decoder::host_logits(TensorView logits, int64_t rows, tensor::Stream& stream) {
  if (host_logits_.empty()) return logits.rows(0, rows);
  const TensorView host = host_logits_.view().rows(0, rows);
  if (rows > 0) stream.download(host.data, logits.data, host.bytes());
  return host;
}

TensorView Decoder::finish(TensorView x, const Sent& sent) {
  tensor::Stream& stream = sent.step.stream;
  const TensorView wanted = sent.inputs.wanted;
  const int64_t rows = wanted.shape[0];
  const TensorView normed = arena_.allocate(activations_, {rows, info_.hidden_size});
  if (keeps_hidden_) {
    run_layers(x, sent.step);
    const TensorView hidden = hidden_.view().rows(0, x.shape[0]);
    parts_.norm.apply(x, hidden, stream);
    if (rows > 0) kernels::gather_rows(hidden, wanted, normed, stream);
  } else if (rows > 0 && rows < x.shape[0]) {
    const TensorView gathered = arena_.f32({rows, info_.hidden_size});
    run_wanted(x, sent.step, wanted, gathered);
    parts_.norm.apply(gathered, normed, stream);
  } else {
    run_layers(x, sent.step);
    if (rows > 0) parts_.norm.apply(x, normed, stream);
  }
  return head_logits(normed, stream);
}

Decoder::Bucket Decoder::decode_bucket(std::span<const SequenceInput> batch, const tensor::Stream& stream) const {
  const auto rows = int32_t(batch[0].tokens.size());
  if (stream.device().kind == tensor::DeviceKind::kCpu || rows > kBucketRows) return {};
  for (const SequenceInput& input : batch) {
    if (int32_t(input.tokens.size()) != rows || input.logits_rows != rows) return {};
  }
  const int64_t bucket = StepGraphs::bucket_for(int64_t(batch.size()));
  return bucket * rows <= std::min<int64_t>(batch_tokens_max_, logits_.shape()[0]) ? Bucket{bucket, rows} : Bucket{};
}

void Decoder::keep_past() {
  past_.clear();
  past_pages_.clear();
  for (const kernels::SequenceRows& sequence : inputs_.sequences) {
    past_.push_back({sequence, past_pages_.size()});
    past_pages_.insert(past_pages_.end(), sequence.pages.begin(), sequence.pages.end());
  }
}

TensorView Decoder::run_step(std::span<const SequenceInput> batch, bool drawing, nn::KvStorage& kv,
                             tensor::Stream& stream) {
  const Bucket bucket = decode_bucket(batch, stream);
  const Sent sent = send(kv, stream, bucket.sequences, bucket.rows);
  TensorView logits = logits_.view();
  const size_t mark = arena_.mark();
  const auto step = [&] {
    arena_.rewind(mark);
    if (drawing) kernels::carry_tokens(sent.inputs.carried, drawn_, sent.inputs.ids, stream);
    logits = finish(embed(sent.inputs.ids, stream), sent);
    if (!drawing) return stream.stage("end");
    stream.stage("draw", {.bytes = double(logits.rows(0, sent.inputs.wanted.elements()).bytes())});
    const TensorView tokens = drawn_.view().rows(0, sent.inputs.wanted.elements());
    kernels::draw_rows(logits, sent.inputs.draws, tokens, stream);
    stream.stage("end");
  };
  if (bucket.sequences > 0 && stream.watched()) {
    StepGraphs::run_watched(stream, step);
  } else if (bucket.sequences > 0) {
    (drawing ? drawing_graphs_ : graphs_)[bucket.rows - 1].run(bucket.sequences, kv.layer_base(0), stream, step);
  } else {
    step();
  }
  return logits;
}

TensorView Decoder::forward(std::span<const SequenceInput> batch, nn::KvStorage& kv, tensor::Stream& stream) {
  SW_CHECK(!batch.empty(), "an empty batch");
  arena_.reset();
  flatten(batch, kv);
  if (keeps_hidden_) keep_past();
  forget_gaps();
  const int64_t wanted = int64_t(inputs_.wanted.size());
  return host_logits(run_step(batch, false, kv, stream), wanted, stream);
}

void Decoder::launch(std::span<const SequenceInput> batch, std::span<const TokenDraw> draws,
                     std::span<const int32_t> carried, nn::KvStorage& kv, tensor::Stream& stream) {
  SW_CHECK(!batch.empty() && carried.size() == batch.size(), "an empty batch, or carried tokens of another");
  SW_CHECK(in_flight_.size() < size_t(kStepsInFlight), "too many steps in flight");
  arena_.reset();
  flatten(batch, kv);
  SW_CHECK(inputs_.wanted.size() == draws.size(), "a draw for each wanted row");
  if (keeps_hidden_) keep_past();
  for (const TokenDraw& draw : draws) inputs_.draws.push_back(draw.how);
  for (size_t i = 0; i < batch.size(); ++i) {
    inputs_.carried.insert(inputs_.carried.end(), batch[i].tokens.size() - 1, -1);
    inputs_.carried.push_back(carried[i]);
  }
  const TensorView logits = run_step(batch, true, kv, stream);
  note_end(stream);
  for (size_t i = 0; i < draws.size(); ++i) {
    if (!draws[i].host_logits) continue;
    const TensorView from = logits.rows(int64_t(i), int64_t(i) + 1),
                     to = host_logits_.view().rows(int64_t(i), int64_t(i) + 1);
    stream.cuda().download_pinned(to.data, from.data, from.bytes());
  }
  take_off({.draws = int64_t(draws.size())}, int64_t(draws.size()), stream);
}

void Decoder::take_off(InFlight step, int64_t words, tensor::Stream& stream) {
  step.slot = slot_;
  slot_ = (slot_ + 1) % size_t(landed_.shape()[0]);
  const TensorView landed = landed_.view().rows(int64_t(step.slot), int64_t(step.slot) + 1);
  if (words > 0) stream.cuda().download_pinned(landed.data, drawn_.view().data, size_t(words) * sizeof(int32_t));
  step.mark = stream.cuda().mark();
  step.gaps.swap(gaps_);
  in_flight_.push_back(std::move(step));
}

LandedStep Decoder::land(tensor::Stream& stream) {
  SW_CHECK(!in_flight_.empty(), "land() without a launched step");
  const InFlight step = std::move(in_flight_.front());
  in_flight_.pop_front();
  stream.cuda().wait(step.mark);
  const TensorView landed = landed_.view().rows(int64_t(step.slot), int64_t(step.slot) + 1);
  LandedStep result{.tokens = std::span(landed.as<int32_t>(), size_t(step.draws)),
                    .logits = host_logits_.view().rows(0, step.draws),
                    .drafts = std::span(landed.as<int32_t>() + logits_.shape()[0], size_t(step.drafts))};
  if (!step.gaps.empty()) result.idle_s = 0;
  for (const auto& [end, begin] : step.gaps) result.idle_s += stream.cuda().seconds_between_marks(end, begin);
  return result;
}

void Decoder::try_step(std::span<const SequenceInput> batch, nn::KvStorage& kv, tensor::Stream& stream) {
  const TokenDraw draw{.how = {.vocab = info_.vocab_size}};
  int32_t wanted = 0;
  for (const SequenceInput& input : batch) wanted += input.logits_rows;
  launch(batch, std::vector<TokenDraw>(size_t(wanted), draw), std::vector<int32_t>(batch.size(), -1), kv, stream);
  land(stream);
  if (!keeps_hidden_) return;
  std::vector<DraftInput> drafts;
  for (const SequenceInput& input : batch) drafts.push_back({int32_t(drafts.size()), input.tokens, true});
  std::vector<int32_t> tokens(drafts.size());
  draft_tokens(drafts, std::vector<kernels::RowDraw>(drafts.size(), draw.how), tokens, kv, stream);
}

void Decoder::warm_up(int sequences_max, nn::KvStorage& kv, tensor::Stream& stream) {
  if (!draws_tokens()) return;
  // All of it on the padding page. The longest prompt first, then the largest steps: workspaces grow once.
  const int32_t rows = std::min<int32_t>(batch_tokens_max_, info_.context_tokens_max);
  const std::vector<int32_t> pages(size_t(rows / kv.page_tokens() + 1), kv.padding_page()), ids(size_t(rows), 0);
  const auto slice = [&](int32_t count) {
    return SequenceInput{
        .tokens = std::span(ids).first(size_t(count)), .position = 0, .pages = pages, .logits_rows = 1};
  };
  std::vector<int32_t> prompts{rows};
  for (int32_t count = 4096; count >= 64; count /= 2) {
    if (count < rows) prompts.push_back(count);
  }
  const SteadyClock clock;
  ProgressLines lines("warming up, prompts", std::ssize(prompts), clock);
  for (const int32_t count : prompts) {
    const SequenceInput prompt = slice(count);
    try_step(std::span(&prompt, 1), kv, stream);
    if (const auto line = lines.step()) SW_INFO("{}", *line);
  }
  // Parts of prompts beside as many decoding sequences as there may be: attention's workspaces go by both.
  const int32_t others = std::min({sequences_max - 1, batch_tokens_max_ / 2, int32_t(logits_.shape()[0]) - 1});
  for (const int32_t count : {8, 64, batch_tokens_max_ - others}) {
    if (others < 1 || count > rows || others + count > batch_tokens_max_) continue;
    std::vector<SequenceInput> batch(size_t(others), slice(1));
    batch.push_back(slice(count));
    try_step(batch, kv, stream);
  }
  record_steps(sequences_max, kv, stream);
}

void Decoder::record_steps(int sequences_max, nn::KvStorage& kv, tensor::Stream& stream) {
  if (!draws_tokens()) return;
  for (StepGraphs& graphs : drawing_graphs_) graphs.forget();
  for (StepGraphs& graphs : graphs_) graphs.forget();
  drafted_graphs_.forget();
  const std::vector<int32_t> pages{kv.padding_page()}, ids(1, 0);
  std::vector<std::pair<int64_t, bool>> kinds;  // sequences, whether their drafts are verified
  for (int64_t bucket = StepGraphs::bucket_for(std::min<int64_t>(sequences_max, StepGraphs::kSequencesMax)); bucket > 0;
       bucket = StepGraphs::bucket_below(bucket)) {
    if (bucket <= std::min<int64_t>(batch_tokens_max_, logits_.shape()[0])) kinds.emplace_back(bucket, false);
    if (bucket <= drafted_sequences_max()) kinds.emplace_back(bucket, true);
  }
  const SteadyClock clock;
  ProgressLines lines("warming up, decode steps recorded", std::ssize(kinds), clock);
  for (const auto& [bucket, drafted] : kinds) {
    const SequenceInput one{.tokens = ids, .position = 0, .pages = pages, .logits_rows = 1};
    for (int turn = 0; turn < 2; ++turn) {
      if (drafted) try_drafted_step(bucket, pages, kv, stream);
      if (!drafted) try_step(std::vector<SequenceInput>(size_t(bucket), one), kv, stream);
    }
    if (const auto line = lines.step()) SW_INFO("{}", *line);
  }
}

void Decoder::draw_to_host(TensorView logits, const kernels::RowDraw* draws, std::span<int32_t> tokens,
                           tensor::Stream& stream) {
  if (tokens.empty()) return note_end(stream);
  const TensorView drawn = drawn_.view().rows(0, int64_t(tokens.size()));
  kernels::draw_rows(logits, draws, drawn, stream);
  note_end(stream);
  const TensorView landed = landed_.view().rows(int64_t(slot_), int64_t(slot_) + 1);
  slot_ = (slot_ + 1) % size_t(landed_.shape()[0]);
  stream.cuda().download_pinned(landed.data, drawn.data, drawn.bytes());
  stream.synchronize();
  std::copy_n(landed.as<int32_t>(), tokens.size(), tokens.begin());
}

void Decoder::draft_tokens(std::span<const DraftInput>, std::span<const kernels::RowDraw>, std::span<int32_t>,
                           nn::KvStorage&, tensor::Stream&) {
  SW_CHECK(false, "draft_tokens() of a model without a draft layer");
}

TensorView Decoder::draft(std::span<const DraftInput>, nn::KvStorage&, tensor::Stream&) {
  SW_CHECK(false, "draft() of a model without a draft layer");
}

TensorView Decoder::run_draft_layer(const nn::Step&, TensorView, TensorView, TensorView) {
  SW_CHECK(false, "a drafted step of a model without a draft layer");
}

}  // namespace spillway::models
