#include "kernels/drafting.h"

#include <gtest/gtest.h>

namespace spillway::kernels {
namespace {

DraftedSequence sequence_at(int32_t position, uint32_t first_key) {
  DraftedSequence sequence;
  sequence.position = position;
  sequence.draft_end = 14;
  for (uint32_t i = 0; i < 4; ++i) sequence.draws[i] = {.key_low = first_key + i, .vocab = 100};  // of the position
  return sequence;
}

// By hand: what a sequence is in two steps of which the second is launched before the first one's outcome is known.
TEST(Drafting, PositionsTokensAndDrawsMoveByWhatWasKept) {
  DraftedSequence sequence = sequence_at(10, 11);
  sequence.token = 5;
  sequence.draft = 7;
  begin_drafted(sequence, nullptr, nullptr, nullptr);
  EXPECT_EQ(sequence.token, 5);
  EXPECT_EQ(verifying_draw(sequence, 0).key_low, 11u);
  EXPECT_EQ(verifying_draw(sequence, 1).key_low, 12u);
  EXPECT_EQ(keeps_draft(sequence, 7), 1);
  EXPECT_EQ(keeps_draft(sequence, 8), 0);
  EXPECT_EQ(proposing_draw(sequence, 0).key_low, 12u);
  EXPECT_EQ(proposing_draw(sequence, 1).key_low, 13u);
  EXPECT_EQ(proposing_draw(sequence, 1).vocab, 100);

  const int32_t tokens[] = {1, 2, 7, 9}, drafts[] = {-1, 30};
  for (const int32_t kept : {0, 1}) {
    DraftedSequence next = sequence_at(11, 12);
    next.carried = 1;
    const int32_t counts[] = {0, kept};
    begin_drafted(next, tokens, drafts, counts);
    EXPECT_EQ(next.token, kept == 1 ? 9 : 7);
    EXPECT_EQ(next.draft, 30);
    EXPECT_EQ(next.position, 11 + kept);
    EXPECT_EQ(verifying_draw(next, 0).key_low, uint32_t(12 + kept));
    EXPECT_EQ(proposing_draw(next, 1).key_low, uint32_t(14 + kept)) << "its position is next.position + 3";
    EXPECT_EQ(proposing_draw(next, 1).vocab, 0) << "beyond the end of drafts";
    EXPECT_EQ(proposing_draw(next, 0).vocab, kept == 0 ? 100 : 0);
  }
}

TEST(Drafting, WithoutADraftNothingIsKept) {
  DraftedSequence sequence;
  sequence.token = 1;
  EXPECT_EQ(keeps_draft(sequence, -1), 0);
  EXPECT_EQ(keeps_draft(sequence, 0), 0);
}

}  // namespace
}  // namespace spillway::kernels
