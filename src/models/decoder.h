// Decoder: what all decoder families share: token embedding, the final norm and the head, the workspace, and the
// flattening of a batch of slices into rows. A family adds its layers. Owned by the engine; engine's thread.
#pragma once

#include <memory>
#include <vector>

#include "models/config.h"
#include "models/language_model.h"
#include "models/loader.h"
#include "nn/embedding.h"
#include "nn/rope.h"
#include "nn/step.h"

namespace spillway::models {

class Decoder : public LanguageModel {
 public:
  const ModelInfo& info() const final { return info_; }
  int batch_tokens_max() const final { return batch_tokens_max_; }
  tensor::TensorView forward(std::span<const SequenceInput> batch, nn::KvStorage& kv, tensor::Stream& stream) final;
  tensor::TensorView draft(std::span<const DraftInput> inputs, nn::KvStorage& kv, tensor::Stream& stream) override;

 protected:
  // What a family's loader builds the decoder from.
  struct Parts {
    std::unique_ptr<weights::WeightSource> source;
    nn::Embedding embedding;
    nn::RmsNorm norm;
    kernels::PackedLinear head;
  };
  static Result<Parts> load_parts(const DecoderConfig& config, std::unique_ptr<weights::WeightSource> source,
                                  nn::LoadContext& context);

  // rope_dim: rotated elements of a head.
  Decoder(Parts parts, const DecoderConfig& config, int rope_dim, int batch_tokens_max);

  // Called once by the family when its layers are loaded: sizes the arena and completes info().
  void finish_loading(const DecoderConfig& config, const nn::LoadContext& context, std::vector<int> kv_widths,
                      size_t layer_bytes);

  // x f32 [T, hidden]: embedded tokens in, the last layer's residual out.
  virtual void run_layers(tensor::TensorView x, const nn::Step& step) = 0;

  // Rows of one sequence as the last forward() saw them; pages are copies.
  struct PastSlice {
    kernels::SequenceRows rows;
    size_t pages_begin = 0;
  };

  // A step over the given rows: positions are filled from them.
  nn::Step make_step(std::span<const kernels::SequenceRows> rows, nn::KvStorage& kv, tensor::Stream& stream);
  tensor::TensorView embed(tensor::Stream& stream, int64_t tokens);
  // logits [rows.size(), vocab] of the given rows of normed [T, hidden].
  tensor::TensorView head_logits(tensor::TensorView normed, tensor::Stream& stream);

  ModelInfo info_;
  Parts parts_;
  bool keeps_hidden_ = false;  // draft() wants the normed hidden states of the last forward()
  tensor::Arena arena_{0};
  std::vector<kernels::SequenceRows> rows_;
  std::vector<PastSlice> past_;
  std::vector<int32_t> past_pages_;
  std::vector<int32_t> wanted_;  // rows whose logits are wanted
  tensor::Tensor ids_, positions_, wanted_ids_;
  tensor::Tensor hidden_;  // f32 [batch_tokens_max, hidden]: after the final norm
  tensor::Tensor logits_;  // f32 [batch_tokens_max, vocab]

 private:
  void flatten(std::span<const SequenceInput> batch, const nn::KvStorage& kv);

  nn::RopeTable rope_;
  int batch_tokens_max_ = 0;
};

}  // namespace spillway::models
