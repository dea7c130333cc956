// Embedding: rows of the token table, used where the checkpoint lies (mapped pages become resident as tokens are seen).
// One a model; engine's thread.
#pragma once

#include "nn/linear.h"

namespace spillway::nn {

class Embedding {
 public:
  static Result<Embedding> load(const weights::WeightScope& scope, int64_t vocabulary, int64_t hidden,
                                LoadContext& context);

  // ids i32 [T], each in [0, vocabulary); y f32 [T, hidden].
  void apply(tensor::TensorView ids, tensor::TensorView y, tensor::Stream& stream) const;

  const tensor::TensorView& table() const { return stored_.view(); }

 private:
  explicit Embedding(weights::StoredTensor stored) : stored_(std::move(stored)) {}
  weights::StoredTensor stored_;
};

}  // namespace spillway::nn
