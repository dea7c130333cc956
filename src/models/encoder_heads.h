// What stands behind an encoder's layers: the pooled vector of a text, class scores, or a weight for every vocabulary
// entry. Owned by the encoder; engine's thread.
#pragma once

#include <optional>
#include <vector>

#include "models/encoder_config.h"
#include "models/sentence_config.h"

namespace spillway::models {

// Pool, dense modules and normalising, as the model's own files say.
class SentenceHead {
 public:
  static Result<SentenceHead> load(const SentenceConfig& config, int hidden, nn::LoadContext& context);

  int dims() const { return dims_; }
  bool reads_firsts() const { return config_.pooling == kernels::Pooling::kFirst; }  // and no other row
  // x f32 [T, hidden] in the step's sequences; gives f32 [S, dims].
  tensor::TensorView apply(tensor::TensorView x, const nn::OneShotStep& step) const;

 private:
  SentenceConfig config_;
  int dims_ = 0;
  std::vector<nn::OneShotLinear> dense_;
};

// The pool through a product, an activation and a norm (each where the family has it) to the scores; or, without a last
// product, BERT's pooler.
class ClassifierHead {
 public:
  static Result<ClassifierHead> load(const weights::WeightScope& scope, const ClassifierNames& names, int hidden,
                                     int labels, double epsilon, nn::LoadContext& context);
  tensor::TensorView apply(tensor::TensorView x, const nn::OneShotStep& step) const;  // [S, labels], or [S, hidden]
  bool reads_firsts() const { return names_.pooling == kernels::Pooling::kFirst; }    // and no other row

 private:
  ClassifierNames names_;
  std::optional<nn::OneShotLinear> dense_;
  std::optional<nn::LayerNorm> norm_;
  std::optional<nn::OneShotLinear> output_;
};

// The largest log(1 + relu(logit)) over a text's tokens, for each vocabulary entry.
class SparseHead {
 public:
  // words: the scope of the word embeddings, to which the decoder may be tied.
  static Result<SparseHead> load(const weights::WeightScope& scope, const weights::WeightScope& words,
                                 const EncoderConfig& config, nn::LoadContext& context);
  tensor::TensorView apply(tensor::TensorView x, const nn::OneShotStep& step) const;  // [S, vocabulary]

  static size_t workspace_bytes(const EncoderConfig& config, int64_t inputs);

 private:
  static constexpr int64_t kRows = 48;  // tokens whose logits are there at a time

  int64_t vocabulary_ = 0;
  kernels::Activation activation_ = kernels::Activation::kGelu;
  nn::OneShotLinear dense_;
  nn::LayerNorm norm_;
  kernels::PackedLinear decoder_;
  tensor::Tensor bias_;
};

}  // namespace spillway::models
