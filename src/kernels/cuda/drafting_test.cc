// What the device makes of a drafted step's sequences, against the same functions on the host.
#include "kernels/drafting.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "kernels/cuda/device_test.h"

namespace spillway::kernels::cuda {
namespace {

using tensor::DType;
using tensor::Tensor;

class DraftedSteps : public DeviceTest {
 protected:
  int32_t number(int below) { return std::uniform_int_distribution<int32_t>(0, below - 1)(random_); }
  std::vector<int32_t> numbers(int64_t count, int below, int less = 0) {
    std::vector<int32_t> values(static_cast<size_t>(count));
    for (int32_t& value : values) value = number(below) - less;
    return values;
  }
  template <class T>
  Tensor placed(const std::vector<T>& values) {
    Tensor out(DType::kI32, {int64_t(values.size() * sizeof(T) / 4)}, kDevice);
    stream_->upload(out.view().data, values.data(), out.bytes());
    return out;
  }
  Tensor poisoned(int64_t count) {
    Tensor out(DType::kI32, {count}, kDevice);
    stream_->cuda().fill(out.view().data, 0x7e, out.bytes());
    return out;
  }
  template <class T = int32_t>
  std::vector<T> read(const Tensor& from) {
    std::vector<T> values(from.bytes() / sizeof(T));
    stream_->download(values.data(), from.view().data, from.bytes());
    return values;
  }
};

TEST_F(DraftedSteps, AreAsOnTheHost) {
  constexpr int kVocab = 5;  // few, so that drafts are often right
  for (const int count : {1, 3, 128, 129, 512}) {
    std::vector<DraftedSequence> sequences(static_cast<size_t>(count));
    for (DraftedSequence& sequence : sequences) {
      if (number(2) > 0) sequence.carried = number(count);
      sequence.token = number(kVocab);
      sequence.draft = number(kVocab + 1) - 1;
      sequence.position = number(1000);
      sequence.draft_end = number(1000);
      const bool real = number(8) > 0;
      for (RowDraw& draw : sequence.draws) draw = {.key_low = uint32_t(random_()), .vocab = real ? kVocab : 0};
    }
    const auto old_tokens = numbers(2 * count, kVocab + 1, 1), old_drafts = numbers(count, kVocab + 1, 1),
               old_kept = numbers(count, 2), new_tokens = numbers(2 * count, kVocab + 1, 1);
    const Tensor placed_sequences = placed(sequences), tokens = placed(old_tokens), drafts = placed(old_drafts),
                 kept = placed(old_kept), ids = poisoned(2 * count), positions = poisoned(2 * count),
                 contexts = poisoned(count), draws = poisoned(2 * count * 8), draft_ids = poisoned(2 * count),
                 draft_rows = poisoned(count), draft_draws = poisoned(count * 8);
    const DraftedStep step{.sequences = reinterpret_cast<DraftedSequence*>(placed_sequences.view().data),
                           .tokens = tokens.view(),
                           .drafts = drafts.view(),
                           .kept = kept.view(),
                           .ids = ids.view(),
                           .positions = positions.view(),
                           .contexts = contexts.view(),
                           .draws = reinterpret_cast<RowDraw*>(draws.view().data),
                           .draft_ids = draft_ids.view(),
                           .draft_rows = draft_rows.view(),
                           .draft_draws = reinterpret_cast<RowDraw*>(draft_draws.view().data)};
    kernels::begin_drafted_step(step, *stream_);
    stream_->upload(tokens.view().data, new_tokens.data(), tokens.bytes());
    kernels::keep_drafts(step, *stream_);
    const auto found_ids = read(ids), found_positions = read(positions), found_contexts = read(contexts),
               found_kept = read(kept), found_drafts = read(drafts), found_next = read(draft_ids),
               found_rows = read(draft_rows);
    const auto found_draws = read<RowDraw>(draws), found_proposing = read<RowDraw>(draft_draws);
    for (size_t s = 0; s < sequences.size(); ++s) {
      DraftedSequence& sequence = sequences[s];
      begin_drafted(sequence, old_tokens.data(), old_drafts.data(), old_kept.data());
      EXPECT_EQ(found_ids[2 * s], sequence.token);
      EXPECT_EQ(found_ids[2 * s + 1], std::max(0, sequence.draft));
      EXPECT_EQ(found_contexts[s], sequence.position + 2);
      const bool real = sequence.draws[0].vocab > 0;
      const int32_t kept_here = real ? keeps_draft(sequence, new_tokens[2 * s]) : 0;
      EXPECT_EQ(found_kept[s], kept_here);
      EXPECT_EQ(found_rows[s], int32_t(2 * s) + kept_here);
      EXPECT_EQ(found_drafts[s], -1);
      const RowDraw proposing = proposing_draw(sequence, kept_here);
      EXPECT_EQ(found_proposing[s].key_low, proposing.key_low);
      EXPECT_EQ(found_proposing[s].vocab, proposing.vocab);
      for (size_t row = 0; row < 2; ++row) {
        EXPECT_EQ(found_positions[2 * s + row], sequence.position + int32_t(row));
        EXPECT_EQ(found_draws[2 * s + row].key_low, verifying_draw(sequence, int32_t(row)).key_low);
        EXPECT_EQ(found_draws[2 * s + row].vocab, real ? kVocab : 0);
        EXPECT_EQ(found_next[2 * s + row], real ? std::max(0, new_tokens[2 * s + row]) : 0);
      }
    }
  }
}

}  // namespace
}  // namespace spillway::kernels::cuda
