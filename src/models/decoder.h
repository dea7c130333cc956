// Decoder: what all decoder families share: token embedding, the final norm and the head, the workspace, and the
// flattening of a batch of slices into rows. A family adds its layers. Owned by the engine; engine's thread.
#pragma once

#include <deque>
#include <memory>
#include <vector>

#include "models/config.h"
#include "models/language_model.h"
#include "models/loader.h"
#include "models/step_graphs.h"
#include "nn/embedding.h"
#include "nn/rope.h"
#include "nn/step.h"
#include "nn/step_inputs.h"

namespace spillway::models {

class Decoder : public LanguageModel {
 public:
  const ModelInfo& info() const final { return info_; }
  bool settled() const final { return parts_.source->settled(); }
  int batch_tokens_max() const final { return batch_tokens_max_; }
  tensor::TensorView forward(std::span<const SequenceInput> batch, nn::KvStorage& kv, tensor::Stream& stream) final;
  tensor::TensorView draft(std::span<const DraftInput> inputs, nn::KvStorage& kv, tensor::Stream& stream) override;
  void draft_tokens(std::span<const DraftInput> inputs, std::span<const kernels::RowDraw> draws,
                    std::span<int32_t> tokens, nn::KvStorage& kv, tensor::Stream& stream) override;
  bool draws_tokens() const final { return !drawn_.empty(); }
  void launch(std::span<const SequenceInput> batch, std::span<const TokenDraw> draws, std::span<const int32_t> carried,
              nn::KvStorage& kv, tensor::Stream& stream) final;
  int drafted_sequences_max() const final;
  void launch_drafted(std::span<const DraftedInput> batch, nn::KvStorage& kv, tensor::Stream& stream) final;
  LandedStep land(tensor::Stream& stream) final;
  void warm_up(int sequences_max, nn::KvStorage& kv, tensor::Stream& stream) final;
  void record_steps(int sequences_max, nn::KvStorage& kv, tensor::Stream& stream) final;

 protected:
  // What a family's loader builds the decoder from.
  struct Parts {
    std::unique_ptr<weights::WeightSource> source, made_up;  // the latter of a slice
    nn::Embedding embedding;
    nn::RmsNorm norm;
    kernels::PackedLinear head;
  };
  static Result<Parts> load_parts(const DecoderConfig& config, std::unique_ptr<weights::WeightSource> source,
                                  nn::LoadContext& context);
  // Checks the slice asked for and writes it into the config: its layers, and the vocabulary of made-up hidden states.
  static Status choose_layers(const LayerRange& wanted, DecoderConfig& config);

  // rope_dim: rotated elements of a head.
  Decoder(Parts parts, const DecoderConfig& config, int rope_dim, int batch_tokens_max, const nn::LoadContext& context);

  // Called once by the family when its layers are loaded: sizes the arena and completes info().
  void finish_loading(const DecoderConfig& config, const nn::LoadContext& context, std::vector<int> kv_widths,
                      size_t layer_bytes);

  // x f32 [T, hidden]: embedded tokens in, the last layer's residual out.
  virtual void run_layers(tensor::TensorView x, const nn::Step& step) = 0;
  // The same where only the rows `wanted` (i32 [W], at least one) are needed: out f32 [W, hidden]; x is left undefined.
  virtual void run_wanted(tensor::TensorView x, const nn::Step& step, tensor::TensorView wanted,
                          tensor::TensorView out) = 0;
  // The draft layer where there is one (keeps_hidden_), over rows whose next tokens are ids [T] and whose hidden states
  // are hidden [T, hidden]: logits of the rows `wanted` [W], on the device.
  virtual tensor::TensorView run_draft_layer(const nn::Step& step, tensor::TensorView ids, tensor::TensorView hidden,
                                             tensor::TensorView wanted);

  // Rows of one sequence as the last forward() saw them; pages are copies.
  struct PastSlice {
    kernels::SequenceRows rows;
    size_t pages_begin = 0;
  };

  // A step over what inputs_ holds, sent to the device.
  struct Sent {
    nn::StepInputs::View inputs;
    nn::Step step;
  };
  Sent send(nn::KvStorage& kv, tensor::Stream& stream, int64_t sequences = 0, int32_t rows = 1);
  tensor::TensorView embed(tensor::TensorView ids, tensor::Stream& stream);
  // logits [rows, vocab] of the rows normed [rows, hidden], on the device.
  tensor::TensorView head_logits(tensor::TensorView normed, tensor::Stream& stream);
  // Draws a token for each, as `draws` on the device say, and waits for them.
  void draw_to_host(tensor::TensorView logits, const kernels::RowDraw* draws, std::span<int32_t> tokens,
                    tensor::Stream& stream);
  // The first `rows` of them where the host can read them.
  tensor::TensorView host_logits(tensor::TensorView logits, int64_t rows, tensor::Stream& stream);
  // Between the end of what was launched and the beginning of what comes next the device is idle. Forgotten where what
  // is launched has no mark behind it.
  void note_end(tensor::Stream& stream) { computed_ = stream.cuda().mark(); }
  void forget_gaps() {
    computed_ = -1;
    gaps_.clear();
  }

  ModelInfo info_;
  Parts parts_;
  bool keeps_hidden_ = false;  // draft() wants the normed hidden states of the last forward()
  tensor::Arena arena_{0};
  nn::StepInputs inputs_;
  std::vector<PastSlice> past_;
  std::vector<int32_t> past_pages_;
  tensor::Tensor hidden_;       // f32 [batch_tokens_max, hidden]: after the final norm
  tensor::Tensor logits_;       // f32 [logits_rows_max, vocab]
  tensor::Tensor host_logits_;  // the same on the host, where the device is another

 private:
  void flatten(std::span<const SequenceInput> batch, const nn::KvStorage& kv);

  // Norm and head over the wanted rows of a forward().
  tensor::TensorView finish(tensor::TensorView x, const Sent& sent);

  // What a decode step is filled up to; no sequences when the batch is no such step or runs on the CPU.
  struct Bucket {
    int64_t sequences = 0;
    int32_t rows = 1;  // of each: the token, and the draft that is verified
  };
  Bucket decode_bucket(std::span<const SequenceInput> batch, const tensor::Stream& stream) const;

  // Embedding, layers and head of what was flattened, as a graph where the batch is a decode step; gives the logits.
  // drawing: tokens are carried in and drawn as well.
  tensor::TensorView run_step(std::span<const SequenceInput> batch, bool drawing, nn::KvStorage& kv,
                              tensor::Stream& stream);
  void keep_past();
  // A launched batch of slices of zeros on the padding page, landed; with the drafts behind it.
  void try_step(std::span<const SequenceInput> batch, nn::KvStorage& kv, tensor::Stream& stream);
  void try_drafted_step(int64_t sequences, std::span<const int32_t> pages, nn::KvStorage& kv, tensor::Stream& stream);

  void flatten_drafted(std::span<const DraftedInput> batch, const nn::KvStorage& kv);
  kernels::DraftedStep drafted_step(const Sent& sent) const;
  // Verification, the draft layer and both draws.
  void run_drafted(const Sent& sent, size_t arena_mark, tensor::Stream& stream);
  void make_room_for_drafts(tensor::Stream& stream);

  // A launched step on its way.
  struct InFlight {
    int64_t mark = 0;
    int64_t draws = 0;
    int64_t drafts = 0;
    size_t slot = 0;
    std::vector<std::pair<int64_t, int64_t>> gaps;  // marks between which the device was idle before it
  };
  void take_off(InFlight step, int64_t words, tensor::Stream& stream);

  static constexpr int32_t kBucketRows = 2;
  StepGraphs graphs_[kBucketRows];          // of forward(), by rows of a sequence less one
  StepGraphs drawing_graphs_[kBucketRows];  // of launch()
  StepGraphs drafted_graphs_;               // of launch_drafted()
  // i32 [2 logits_rows]: of the last launched step the tokens, and of a drafted one from there on the drafts proposed
  // and how many were kept [logits_rows / 2 each]. Empty on the CPU.
  tensor::Tensor drawn_;
  tensor::Tensor drafting_;  // i32: what the device works out in a drafted step (drafted_step())
  tensor::Tensor landed_;    // i32 [slots, 2 logits_rows], pinned
  std::deque<InFlight> in_flight_;
  std::vector<std::pair<int64_t, int64_t>> gaps_;  // since the last step
  int64_t computed_ = -1;                          // mark behind what was launched last; -1: not known
  size_t slot_ = 0;
  nn::RopeTable rope_;
  tensor::DType activations_ = tensor::DType::kF32;
  int batch_tokens_max_ = 0;
};

}  // namespace spillway::models
