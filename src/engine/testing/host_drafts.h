// A model that passes everything on to another, but for steps that verify and propose drafts on the device: so its
// drafts pass through the host. What stands in a model's way derives from it.
#pragma once

#include <memory>
#include <utility>

#include "models/language_model.h"

namespace spillway::engine::testing {

class HostDrafts : public models::LanguageModel {
 public:
  explicit HostDrafts(std::unique_ptr<models::LanguageModel> model) : model_(std::move(model)) {}
  const models::ModelInfo& info() const override { return model_->info(); }
  int batch_tokens_max() const override { return model_->batch_tokens_max(); }
  tensor::TensorView forward(std::span<const models::SequenceInput> batch, nn::KvStorage& kv,
                             tensor::Stream& stream) override {
    return model_->forward(batch, kv, stream);
  }
  tensor::TensorView draft(std::span<const models::DraftInput> inputs, nn::KvStorage& kv,
                           tensor::Stream& stream) override {
    return model_->draft(inputs, kv, stream);
  }
  void draft_tokens(std::span<const models::DraftInput> inputs, std::span<const kernels::RowDraw> draws,
                    std::span<int32_t> tokens, nn::KvStorage& kv, tensor::Stream& stream) override {
    model_->draft_tokens(inputs, draws, tokens, kv, stream);
  }
  bool draws_tokens() const override { return model_->draws_tokens(); }
  void launch(std::span<const models::SequenceInput> batch, std::span<const models::TokenDraw> draws,
              std::span<const int32_t> carried, nn::KvStorage& kv, tensor::Stream& stream) override {
    model_->launch(batch, draws, carried, kv, stream);
  }
  models::LandedStep land(tensor::Stream& stream) override { return model_->land(stream); }
  void warm_up(int sequences_max, nn::KvStorage& kv, tensor::Stream& stream) override {
    model_->warm_up(sequences_max, kv, stream);
  }
  void record_steps(int sequences_max, nn::KvStorage& kv, tensor::Stream& stream) override {
    model_->record_steps(sequences_max, kv, stream);
  }

 private:
  std::unique_ptr<models::LanguageModel> model_;
};

}  // namespace spillway::engine::testing
