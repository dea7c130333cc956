// Embedding: rows of the token table; on the CPU used where the checkpoint lies (mapped pages become resident as tokens
// are seen).
// One a model; engine's thread.
#pragma once

#include <optional>

#include "nn/linear.h"

namespace spillway::nn {

class Embedding {
 public:
  static Result<Embedding> load(const weights::WeightScope& scope, int64_t vocabulary, int64_t hidden,
                                LoadContext& context);

  // ids i32 [T], each in [0, vocabulary); y f32 [T, hidden].
  void apply(tensor::TensorView ids, tensor::TensorView y, tensor::Stream& stream) const;

 private:
  Embedding() = default;
  tensor::TensorView table_;
  std::optional<weights::StoredTensor> stored_;  // the CPU's
  tensor::Tensor placed_;                        // another device's copy
};

}  // namespace spillway::nn
