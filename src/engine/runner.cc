#include "engine/runner.h"

#include "base/trace.h"

namespace spillway::engine {
namespace {

LogitsRows rows_of(const tensor::TensorView& logits) {
  if (logits.empty() || logits.elements() == 0) return {};
  return {logits.as<float>(), logits.shape[0], logits.shape[-1]};
}

}  // namespace

LogitsRows Runner::forward(std::span<const models::SequenceInput> batch) {
  const auto logits = model_->forward(batch, pages_, stream_);
  stream_.synchronize();
  return rows_of(logits);
}

Status Runner::replace_pages(int pages, int sequences_max) {
  stream_.synchronize();
  const nn::KvLayout layout = pages_.layout();
  SW_ASSIGN(pages_, nn::KvStorage::create(layout, pages_.page_tokens(), pages, stream_.device()));
  model_->record_steps(sequences_max, pages_, stream_);
  stream_.synchronize();
  return {};
}

Runner::Landed Runner::land() {
  trace::Span span("engine", "land");
  const models::LandedStep step = model_->land(stream_);
  return {step.tokens, rows_of(step.logits), step.drafts, step.idle_s};
}

LogitsRows Runner::draft(std::span<const models::DraftInput> inputs) {
  const auto logits = model_->draft(inputs, pages_, stream_);
  stream_.synchronize();
  return rows_of(logits);
}

}  // namespace spillway::engine
