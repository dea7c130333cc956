// Decode steps that verify a draft of each sequence and propose the next one without the host. A sequence has two rows
// of such a step: its last token, and the draft of the token after it. Once both rows have drawn, the draft layer runs
// over both, with the tokens drawn as those that follow, and proposes from the last row that holds. What becomes of a
// sequence is written here as plain functions, the same on the host and on the device. CUDA only, as
// kernels/sampling.h.
#pragma once

#include "kernels/sampling.h"

namespace spillway::kernels {

struct DraftedSequence {
  int32_t carried = -1;   // its place in the step before, where only the device knows what came of it; else -1
  int32_t token = 0;      // the last one; set by the step where carried
  int32_t draft = -1;     // of the token after; -1: none, the second row counts for nothing. Set where carried
  int32_t position = 0;   // of the token; where carried: as if the step before keeps no draft
  int32_t draft_end = 0;  // nothing is proposed for positions from here on
  int32_t first = 0;      // of the draws: set where carried
  int32_t unused[2] = {};
  RowDraw draws[4];  // of the tokens at position + 1 and on. vocab is 0 in a sequence that only fills up a batch
};
static_assert(sizeof(DraftedSequence) == 160, "the kernels read 40 words");

// Before the step. tokens [2 S], drafts [S], kept [S]: what the step before drew, proposed, and how many drafts it
// kept.
constexpr void begin_drafted(DraftedSequence& sequence, const int32_t* tokens, const int32_t* drafts,
                             const int32_t* kept) {
  if (sequence.carried < 0) return;
  const int32_t from = sequence.carried, last = tokens[2 * from + kept[from]];
  sequence.token = last < 0 ? 0 : last;  // without a finite logit: the host ends that request
  sequence.draft = drafts[from];
  sequence.first = kept[from];
  sequence.position += kept[from];
}

// 1 if the draft is the token that its first row drew.
constexpr int32_t keeps_draft(const DraftedSequence& sequence, int32_t drawn) {
  return sequence.draft >= 0 && sequence.draft == drawn ? 1 : 0;
}

// How row 0 or 1 draws: the second one with the noise of the position after, as if the draft were kept.
constexpr const RowDraw& verifying_draw(const DraftedSequence& sequence, int32_t row) {
  return sequence.draws[sequence.first + row];
}

// How the next draft is drawn: with the noise of the token it stands for.
constexpr RowDraw proposing_draw(const DraftedSequence& sequence, int32_t kept) {
  RowDraw draw = sequence.draws[sequence.first + 1 + kept];
  if (sequence.position + 2 + kept >= sequence.draft_end) draw.vocab = 0;
  return draw;
}

// A step's arrays on the device, S sequences; i32 but for the first and the draws.
struct DraftedStep {
  DraftedSequence* sequences = nullptr;         // [S]
  tensor::TensorView tokens, drafts, kept;      // [2 S], [S], [S] at least: of the step before, then of this one
  tensor::TensorView ids, positions, contexts;  // [2 S], [2 S], [S]
  RowDraw* draws = nullptr;                     // [2 S]
  tensor::TensorView draft_ids, draft_rows;     // [2 S], [S]: the draft layer's tokens, and the rows that propose
  RowDraw* draft_draws = nullptr;               // [S]
};

// Fills ids, positions, contexts and draws.
void begin_drafted_step(const DraftedStep& step, tensor::Stream& stream);
// With this step's tokens: fills kept, draft_ids, draft_rows and draft_draws; drafts are -1 until they are drawn.
void keep_drafts(const DraftedStep& step, tensor::Stream& stream);

}  // namespace spillway::kernels
