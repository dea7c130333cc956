// Batch: the slices of one step on their way through the model: assembled, forwarded, drawn, drafted, committed. Lives
// for one step. Engine's thread; draw() may run on the stream's threads, one sequence each.
#pragma once

#include <optional>
#include <span>
#include <vector>

#include "engine/schedule.h"
#include "engine/state.h"

namespace spillway::engine {

// One sequence's part of a step.
struct Work {
  Sequence* sequence = nullptr;
  int64_t arrival = 0;  // of the sequence: known when it is gone
  RequestId id = 0;
  int start = 0;  // position of the first row
  int rows = 0;   // the draft's row included
  int draft = 0;  // rows at the end that verify drafts
  int32_t draft_token = -1;
  int32_t place = 0;    // in the launched step: of its token, or of its sequence where drafts are verified there
  int32_t carried = 0;  // its place in the step launched before that one
  int logits_rows = 0;
  int64_t logits_begin = 0;  // in the rows of forward()
  bool last_chunk = false;   // the next token is drawn after it
  bool was_decoding = false;

  std::vector<int32_t> drawn;       // by the device: the token of each row that one is drawn from; or none
  std::optional<int32_t> proposal;  // by the device, whose step included the draft layer: the next draft or -1

  // What draw() found.
  std::vector<TokenEvent> tokens;
  FinishReason finish = FinishReason::kNone;
  int proposed = 0;
  int accepted = 0;
};

Work make_work(Sequence& sequence, const Slice& slice);

// Runs the works as one batch. When the model throws, each runs alone, and those that throw alone end with kFailed.
void run_batch(State& state, std::span<Work> works);

// The same without waiting, where the device can draw the tokens of all works: they are state.flight then. False when
// it cannot; nothing was done.
bool launch_batch(State& state, std::span<Work> works);

// The same for a step that also verifies and proposes drafts on the device: of decoding sequences, most of which draft
// (drafted.cc).
bool launch_drafted(State& state, std::span<Work> works);
// What it is launched with; false where it cannot be such a step.
bool drafted_inputs(State& state, std::span<const Work> works, std::vector<models::DraftedInput>& inputs);

// Where the device knows what came of a sequence's drafts and the host does not: one that follows on the step in
// flight, at its place there, with so many tokens if that step's draft is refused.
kernels::DraftedSequence carried_draft(const State& state, const Sequence& sequence, int32_t place, int64_t tokens);
// Whether the step after the one in flight should verify drafts as well.
bool drafts_go_on(State& state);

// Counts the rows of a step that is about to be waited for.
void record_rows(State& state, std::span<const Work> works);

// Takes the tokens of state.flight and hands them out, the next step started before where all is as it was.
void land_flight(State& state, bool look_ahead);

// Draws and hands out: what follows the model.
void hand_out(State& state, std::span<Work> works, const LogitsRows& logits);

// The flight's sequence of this work, unless it has ended or lost its place since the launch.
Sequence* find_live(const State& state, const Work& work);

// Whether the draft layer's cache gets this work's rows.
bool wants_draft_rows(const State& state, const Work& work);

// How the device draws this sequence's token at a position; null where it takes the host's sampler.
std::optional<kernels::RowDraw> device_draw(const State& state, const Sequence& sequence, int64_t position);

// Draws the tokens of one sequence from its rows: verifies the draft, keeps penalties and constraint up to date,
// notices the end. Touches this sequence only.
void draw(const State& state, Work& work, const LogitsRows& logits, SampleScratch& scratch);

// Proposes the next token from the draft layer's row; -1 when it gives none.
int32_t draw_draft(const State& state, Sequence& sequence, std::span<const float> row, SampleScratch& scratch);

// Logprobs of the prompt's own tokens from the rows of one chunk.
void keep_prompt_logprobs(const State& state, Work& work, const LogitsRows& logits, SampleScratch& scratch);

// Writes the draft layer's rows of this step and proposes next tokens (draft.cc).
void run_drafts(State& state, std::span<Work> works);

// Whether this step goes without drafts, to know what that costs.
bool probes_plain_steps(const State& state);

// Whether this sequence's draft, if it has one, is worth a row in a step with so many decoding sequences. Turns
// drafting off for good where it keeps losing.
bool draft_pays(State& state, Sequence& sequence, int decoding);

// Counts what became of a step's drafts.
void learn_acceptance(State& state, Sequence& sequence, int proposed, int accepted);

}  // namespace spillway::engine
