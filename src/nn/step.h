// Step: what one pass of a model over a ragged batch carries from layer to layer. Lives on the engine's thread for one
// call; borrows everything.
#pragma once

#include <span>

#include "kernels/attention.h"
#include "nn/kv_storage.h"
#include "tensor/arena.h"
#include "tensor/stream.h"

namespace spillway::nn {

struct Step {
  kernels::BatchRows rows;
  tensor::TensorView rope;  // f32 [positions_max, 2, dim / 2]
  KvStorage& kv;
  tensor::Arena& arena;
  tensor::Stream& stream;
  // What passes between the operations of a layer; the residual stream is f32 always.
  tensor::DType activations = tensor::DType::kF32;

  // (row, earlier position) pairs of all sequences, and tokens in their pages: what attention computes and reads.
  struct Contexts {
    double pairs = 0, tokens = 0;
  };
  Contexts contexts() const {
    Contexts sum;
    for (const kernels::SequenceRows& sequence : rows.sequences) {
      const double count = sequence.rows, before = sequence.position;
      sum.pairs += count * before + count * (count + 1) / 2;
      sum.tokens += before + count;
    }
    return sum;
  }

  int64_t tokens() const { return rows.positions.shape[0]; }
  tensor::TensorView activation(tensor::Shape shape) const { return arena.allocate(activations, shape); }
};

// Gives back what a layer took from the arena when the layer is done.
class ArenaScope {
 public:
  explicit ArenaScope(tensor::Arena& arena) : arena_(arena), mark_(arena.mark()) {}
  ~ArenaScope() { arena_.rewind(mark_); }
  ArenaScope(const ArenaScope&) = delete;
  ArenaScope& operator=(const ArenaScope&) = delete;

 private:
  tensor::Arena& arena_;
  size_t mark_;
};

}  // namespace spillway::nn
