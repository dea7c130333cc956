// LanguageModel: one decoder on one device, as the engine sees it. It computes over ragged batches of token slices
// whose keys and values live in pages; it knows no request, no text and no policy. Owned by the engine; called from the
// engine's thread only.
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "kernels/drafting.h"
#include "kernels/tuning.h"
#include "nn/kv_storage.h"
#include "tensor/tensor.h"

namespace spillway::models {

struct ModelInfo {
  std::string architecture;  // as in config.json: "DeepseekV3ForCausalLM"
  int vocab_size = 0;        // rows of the output head (padding rows included)
  int hidden_size = 0;
  int context_tokens_max = 0;  // max_position_embeddings
  int draft_tokens_max = 0;    // tokens that one draft() pass proposes: 1 with an MTP layer, else 0
  nn::KvLayout kv;             // the MTP layer's cache included, as the last layer
  int64_t weight_bytes = 0;    // bytes resident after loading
  int64_t mapped_bytes = 0;    // of these, in mapped files: in use, though the system counts them as available
  int64_t parameters = 0;
  int64_t decode_bytes = 0;     // weight bytes that one decode step at batch 1 must read (the bandwidth floor)
  int64_t flops_per_token = 0;  // matrix FLOPs for one token without attention
  std::string precision;        // "fp32", "bf16", "int8"
};

// New tokens of one sequence at positions [position, position + tokens.size()).
struct SequenceInput {
  std::span<const int32_t> tokens;
  int32_t position = 0;
  std::span<const int32_t> pages;  // page ids in order; cover at least position + tokens.size() tokens
  int32_t logits_rows = 0;         // logits are wanted for the last this many tokens of the slice
};

// One sequence of the last forward(), for the draft layer. next_tokens[j] is the token that follows tokens[j], so the
// last entry is the token just sampled. Only the first next_tokens.size() rows of the slice are used (fewer than the
// slice when drafts were rejected).
struct DraftInput {
  int32_t sequence = 0;  // index in the last forward()'s batch
  std::span<const int32_t> next_tokens;
  bool logits = false;  // logits are wanted for the last used row
};

// How the next token of a launched slice is drawn. With host_logits its row of logits comes to the host as well.
struct TokenDraw {
  kernels::RowDraw how;
  bool host_logits = false;
};

// One sequence of a drafted step; tokens and drafts are those of kernels/drafting.h.
struct DraftedInput {
  kernels::DraftedSequence how;
  std::span<const int32_t> pages;  // cover position + 2 tokens, one more where it is carried
};

// What a launched step gave: a token for each draw, -1 where no logit was finite; and logits [draws, vocab_size] of
// which the rows with host_logits are filled.
struct LandedStep {
  std::span<const int32_t> tokens;  // of a drafted step: two of each sequence
  tensor::TensorView logits;
  std::span<const int32_t> drafts;  // of a drafted step: what each sequence proposes; -1: nothing
  // How long the device had nothing to compute since the step before this one; -1: not known.
  double idle_s = -1;
};

class LanguageModel {
 public:
  virtual ~LanguageModel() = default;
  virtual const ModelInfo& info() const = 0;
  // Whether all weights are where they will stay, or some still become faster to read (the same bits); any thread.
  virtual bool settled() const { return true; }

  // Most tokens in one call, summed over the batch: the workspace was sized for it at load.
  virtual int batch_tokens_max() const = 0;

  // Runs the slices, writes their keys and values to kv. Returns float32 logits [sum of logits_rows, vocab_size] in
  // batch order, host-readable once stream is synchronised, valid until the next call. A row's bits do not depend on
  // what else is in the batch.
  virtual tensor::TensorView forward(std::span<const SequenceInput> batch, nn::KvStorage& kv,
                                     tensor::Stream& stream) = 0;

  // Multi-token prediction over rows of the last forward(): writes the draft layer's cache and returns float32 logits
  // [inputs with logits, vocab_size] for the token after next. Only where draft_tokens_max > 0.
  virtual tensor::TensorView draft(std::span<const DraftInput> inputs, nn::KvStorage& kv, tensor::Stream& stream) = 0;

  // The same where the device draws tokens: one for each input with logits, by its draw; waits for them.
  virtual void draft_tokens(std::span<const DraftInput>, std::span<const kernels::RowDraw> /*draws*/,
                            std::span<int32_t> /*tokens*/, nn::KvStorage&, tensor::Stream&) {
    SW_CHECK(false, "draft_tokens() of a model whose device draws no tokens");
  }

  // Whether the device draws tokens itself: launch(), land() and warm_up() are there.
  virtual bool draws_tokens() const { return false; }

  // Starts forward(), draws a token for every wanted row and returns without waiting. draws: one for each of those
  // rows, in the batch's order. carried[i]: the draw of the step launched before whose token is the last of slice i,
  // which the caller does not know yet; -1 where it does. draft() may follow once the step has landed. At most
  // kStepsInFlight are launched and not landed.
  static constexpr int kStepsInFlight = 2;
  virtual void launch(std::span<const SequenceInput>, std::span<const TokenDraw>, std::span<const int32_t> /*carried*/,
                      nn::KvStorage&, tensor::Stream&) {
    SW_CHECK(false, "launch() of a model whose device draws no tokens");
  }
  // Starts a decode step of two rows a sequence that verifies drafts, runs the draft layer over both rows and proposes
  // the next drafts, all on the device: the step after it may be launched from what this one leaves there. Every row
  // is drawn; draft() may not follow. At most drafted_sequences_max() sequences, 0: there are no such steps.
  virtual int drafted_sequences_max() const { return 0; }
  virtual void launch_drafted(std::span<const DraftedInput>, nn::KvStorage&, tensor::Stream&) {
    SW_CHECK(false, "launch_drafted() of a model whose device proposes no drafts");
  }
  // Waits for the step launched first of those in flight. Valid until as many more were launched as may be in flight.
  virtual LandedStep land(tensor::Stream&) { SW_CHECK(false, "land() of a model whose device draws no tokens"); }
  // Runs every kind of step once, so that later ones allocate, compile and record nothing. One page is enough.
  virtual void warm_up(int /*sequences_max*/, nn::KvStorage&, tensor::Stream&) {}
  // After warm_up(), where the pages now lie elsewhere: records the steps on them; the former may be gone.
  virtual void record_steps(int /*sequences_max*/, nn::KvStorage&, tensor::Stream&) {}
};

}  // namespace spillway::models
