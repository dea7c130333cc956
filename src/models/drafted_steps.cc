// The decoder's steps that verify drafts and propose the next ones on the device (kernels/drafting.h).
#include <algorithm>

#include "models/decoder.h"

namespace spillway::models {

using tensor::TensorView;

namespace {

constexpr int32_t kRows = 2;  // of a sequence
constexpr int64_t kDrawWords = sizeof(kernels::RowDraw) / sizeof(int32_t);

}  // namespace

int Decoder::drafted_sequences_max() const {
  return drafting_.empty() ? 0 : int(std::min<int64_t>(batch_tokens_max_, logits_.shape()[0]) / kRows);
}

// Of each sequence the draws of both rows and of its draft, the draft layer's two tokens and the row that proposes.
void Decoder::make_room_for_drafts(tensor::Stream& stream) {
  const int64_t sequences = logits_.shape()[0] / kRows;
  drafting_ = tensor::Tensor(tensor::DType::kI32, {sequences * (3 * kDrawWords + 3)}, stream.device());
}

kernels::DraftedStep Decoder::drafted_step(const Sent& sent) const {
  const nn::StepInputs::View& inputs = sent.inputs;
  const int64_t rows = inputs.ids.elements(), sequences = rows / kRows, tokens = logits_.shape()[0];
  auto part = [&, at = int64_t{0}](int64_t count) mutable {
    at += count;
    return drafting_.view().rows(at - count, at);
  };
  const TensorView draws = part(rows * kDrawWords), draft_draws = part(sequences * kDrawWords);
  return {.sequences = inputs.drafted,
          .tokens = drawn_.view().rows(0, rows),
          .drafts = drawn_.view().rows(tokens, tokens + sequences),
          .kept = drawn_.view().rows(tokens + tokens / kRows, tokens + tokens / kRows + sequences),
          .ids = inputs.ids,
          .positions = inputs.rows.positions,
          .contexts = inputs.contexts,
          .draws = reinterpret_cast<kernels::RowDraw*>(draws.data),
          .draft_ids = part(rows),
          .draft_rows = part(sequences),
          .draft_draws = reinterpret_cast<kernels::RowDraw*>(draft_draws.data)};
}

// A refused draft's row leaves its entries in the pages: the model's at its position, as ever, and the draft layer's,
// which a pass over the rows that hold would not write. Neither is read. The sequence's next step begins at that
// position, and its two rows write the position and the one after, in the model's layers and then in the draft layer's,
// before their attention reads them; rows attend to no later position. Pages are shared only as far as tokens hold.
void Decoder::run_drafted(const Sent& sent, size_t arena_mark, tensor::Stream& stream) {
  const kernels::DraftedStep step = drafted_step(sent);
  arena_.rewind(arena_mark);
  kernels::begin_drafted_step(step, stream);
  const TensorView logits = finish(embed(step.ids, stream), sent);
  stream.stage("draw", {.bytes = double(logits.bytes())});
  kernels::draw_rows(logits, step.draws, step.tokens, stream);
  kernels::keep_drafts(step, stream);
  arena_.rewind(arena_mark);
  const TensorView hidden = hidden_.view().rows(0, step.ids.elements());
  const TensorView proposing = run_draft_layer(sent.step, step.draft_ids, hidden, step.draft_rows);
  stream.stage("draw", {.bytes = double(proposing.bytes())});
  kernels::draw_rows(proposing, step.draft_draws, step.drafts, stream);
  stream.stage("end");
}

void Decoder::flatten_drafted(std::span<const DraftedInput> batch, const nn::KvStorage& kv) {
  inputs_.clear();
  for (const DraftedInput& input : batch) {
    const kernels::DraftedSequence& how = input.how;
    const auto row = int32_t(inputs_.ids.size());
    const int64_t context = int64_t{how.position} + kRows + (how.carried >= 0 ? 1 : 0);
    SW_CHECK(how.position >= 0 && context <= info_.context_tokens_max, "a position outside the context");
    SW_CHECK(int64_t(input.pages.size()) * kv.page_tokens() >= context, "pages that do not cover the tokens");
    SW_CHECK(how.token >= 0 && how.token < info_.vocab_size && how.draft < info_.vocab_size,
             "a token outside the vocabulary");
    inputs_.ids.insert(inputs_.ids.end(), {how.token, std::max(0, how.draft)});
    inputs_.wanted.insert(inputs_.wanted.end(), {row, row + 1});
    inputs_.sequences.push_back({.row_begin = row, .rows = kRows, .position = how.position, .pages = input.pages});
    inputs_.drafted.push_back(how);
  }
}

void Decoder::launch_drafted(std::span<const DraftedInput> batch, nn::KvStorage& kv, tensor::Stream& stream) {
  SW_CHECK(!batch.empty() && batch.size() <= size_t(drafted_sequences_max()), "drafted steps of another size");
  SW_CHECK(in_flight_.size() < size_t(kStepsInFlight), "too many steps in flight");
  arena_.reset();
  flatten_drafted(batch, kv);
  past_.clear();
  past_pages_.clear();
  const auto sequences = int64_t(batch.size());
  int64_t bucket = StepGraphs::bucket_for(sequences);
  if (bucket > drafted_sequences_max()) bucket = 0;
  const Sent sent = send(kv, stream, bucket, kRows);
  const auto step = [&, mark = arena_.mark()] { run_drafted(sent, mark, stream); };
  if (bucket > 0 && stream.watched()) {
    StepGraphs::run_watched(stream, step);
  } else if (bucket > 0) {
    drafted_graphs_.run(bucket, kv.layer_base(0), stream, step);
  } else {
    step();
  }
  note_end(stream);
  take_off({.draws = kRows * sequences, .drafts = sequences}, logits_.shape()[0] + sequences, stream);
}

void Decoder::try_drafted_step(int64_t sequences, std::span<const int32_t> pages, nn::KvStorage& kv,
                               tensor::Stream& stream) {
  DraftedInput one;
  one.pages = pages;
  one.how.draft_end = info_.context_tokens_max;
  for (kernels::RowDraw& draw : one.how.draws) draw.vocab = info_.vocab_size;
  launch_drafted(std::vector<DraftedInput>(size_t(sequences), one), kv, stream);
  land(stream);
}

}  // namespace spillway::models
