// StepInputs: what a step's kernels read of the batch: token ids, positions, which rows are wanted, and on CUDA the
// pages and lengths of all sequences. One block of memory on the device, filled by one copy a step; a batch of the same
// size finds its arrays at the same places, so that a captured step can be replayed. Owned by the model; engine's
// thread.
#pragma once

#include <span>
#include <vector>

#include "kernels/attention.h"
#include "kernels/drafting.h"
#include "nn/kv_storage.h"
#include "tensor/stream.h"

namespace spillway::nn {

class StepInputs {
 public:
  struct Limits {
    int64_t tokens = 0;
    int64_t sequences = 0;
    int64_t context_tokens = 0;  // of one sequence
  };
  StepInputs() = default;
  StepInputs(const Limits& limits, tensor::Stream& stream);

  // Filled by the model before upload(): ids of all rows; rows of the last step that a draft starts from; rows whose
  // logits are wanted.
  std::vector<int32_t> ids, sources, wanted;
  // On CUDA, where tokens are drawn on the device: how each wanted row is, and for each row the place of its id among
  // what the step before drew, or -1. Both empty otherwise.
  std::vector<kernels::RowDraw> draws;
  std::vector<int32_t> carried;
  std::vector<kernels::DraftedSequence> drafted;  // of a drafted step: for each sequence, instead of the two
  std::vector<kernels::SequenceRows> sequences;
  void clear();

  struct View {
    tensor::TensorView ids, sources, wanted, carried;  // i32, on the device
    tensor::TensorView contexts;                       // the same, of each sequence
    const kernels::RowDraw* draws = nullptr;
    kernels::DraftedSequence* drafted = nullptr;
    kernels::BatchRows rows;
    int64_t longest = 0;  // context of a sequence
    int64_t sent = -1;    // the stream's mark behind the copy
  };
  // Valid until the next upload(). On CUDA the batch is filled up to `sequences` with sequences of `rows` rows each,
  // whose logits are wanted too and which write the pages' padding page.
  View upload(const KvStorage& kv, tensor::Stream& stream, int64_t sequences = 0, int32_t rows = 1);

 private:
  int32_t* put(std::span<const int32_t> values);
  int32_t* put(int64_t count);
  tensor::TensorView on_device(const int32_t* host, int64_t count) const;
  void pad(int64_t sequences, int32_t rows, const int32_t* page);
  void put_batch(const KvStorage& kv, View& view);

  Limits limits_;
  int32_t* block() const { return hosts_[turn_].as<int32_t>(); }

  static constexpr int kBlocks = 4;

  std::vector<tensor::Tensor> hosts_;         // i32, used in turn; on the CPU one
  int64_t sent_[kBlocks] = {-1, -1, -1, -1};  // marks behind the copies out of them
  tensor::Tensor device_;                     // i32; empty on the CPU
  size_t turn_ = 0;
  int64_t used_ = 0;
};

}  // namespace spillway::nn
