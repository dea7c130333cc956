// Runner: the model, the memory of its pages and its stream, behind plain arrays of floats. Owned by the engine, on its
// thread. Which rows to compute is not its job.
#pragma once

#include <cstdint>
#include <memory>
#include <span>

#include "models/language_model.h"
#include "nn/kv_storage.h"
#include "tensor/stream.h"

namespace spillway::engine {

// Logits on the host: [rows, width]; valid until the runner's next call.
struct LogitsRows {
  const float* data = nullptr;
  int64_t rows = 0;
  int64_t width = 0;

  std::span<const float> row(int64_t i) const { return {data + i * width, static_cast<size_t>(width)}; }
};

class Runner {
 public:
  Runner(std::unique_ptr<models::LanguageModel> model, nn::KvStorage pages, tensor::Stream stream)
      : model_(std::move(model)), pages_(std::move(pages)), stream_(std::move(stream)) {}

  const models::LanguageModel& model() const { return *model_; }
  const models::ModelInfo& info() const { return model_->info(); }
  int pages() const { return pages_.pages(); }
  int threads() const { return stream_.threads(); }

  LogitsRows forward(std::span<const models::SequenceInput> batch);
  LogitsRows draft(std::span<const models::DraftInput> inputs);
  void draft_tokens(std::span<const models::DraftInput> inputs, std::span<const kernels::RowDraw> draws,
                    std::span<int32_t> tokens) {
    model_->draft_tokens(inputs, draws, tokens, pages_, stream_);
  }

  // Steps whose tokens the device draws, one ahead of the host: LanguageModel::launch() and land().
  struct Landed {
    std::span<const int32_t> tokens;
    LogitsRows logits;
    std::span<const int32_t> drafts;
    double idle_s = -1;
  };
  bool draws_tokens() const { return model_->draws_tokens(); }
  void launch(std::span<const models::SequenceInput> batch, std::span<const models::TokenDraw> draws,
              std::span<const int32_t> carried) {
    model_->launch(batch, draws, carried, pages_, stream_);
  }
  size_t drafted_sequences_max() const { return static_cast<size_t>(model_->drafted_sequences_max()); }
  void launch_drafted(std::span<const models::DraftedInput> batch) { model_->launch_drafted(batch, pages_, stream_); }
  Landed land();
  void warm_up(int sequences_max) { model_->warm_up(sequences_max, pages_, stream_); }
  // Gives up the pages, which hold nothing yet, for others.
  Status replace_pages(int pages, int sequences_max);

  std::string learned() { return kernels::learned(stream_); }  // about its kernels, by now

  // body(index, thread) for each of [0, count), on the stream's threads; it must not throw.
  template <class Body>
  void parallel_tasks(int64_t count, Body&& body) {
    stream_.parallel_tasks(count, body);
  }

 private:
  std::unique_ptr<models::LanguageModel> model_;
  nn::KvStorage pages_;
  tensor::Stream stream_;
};

}  // namespace spillway::engine
