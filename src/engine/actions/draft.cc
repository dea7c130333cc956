#include <algorithm>
#include <exception>

#include "base/log.h"
#include "engine/actions/batch.h"
#include "engine/engine_metrics.h"

namespace spillway::engine {
namespace {

constexpr double kMemory = 0.95;     // of acceptance, a proposal
constexpr int kLosingSteps = 32;     // before drafting ends for a sequence
constexpr int64_t kProbeSteps = 64;  // every so often a step goes without drafts, to know what that costs

// Another token can follow the one that comes next without drafts.
bool wants_proposal(const State& state, const Work& work) {
  const Sequence& sequence = *work.sequence;
  return work.last_chunk && sequence.drafting && sequence.generated_tokens() + 1 < sequence.request->max_tokens &&
         static_cast<int>(sequence.tokens.size()) + 1 < state.limits.context_tokens;
}

// On the device where it can draw them all, with the noise of the tokens they stand for.
std::optional<std::vector<kernels::RowDraw>> draft_draws(const State& state, std::span<Work* const> proposing) {
  if (!state.runner.draws_tokens()) return {};
  std::vector<kernels::RowDraw> draws;
  for (const Work* work : proposing) {
    const auto how = device_draw(state, *work->sequence, static_cast<int64_t>(work->sequence->tokens.size()));
    if (!how) return {};
    draws.push_back(*how);
  }
  return draws;
}

void propose(State& state, std::span<const models::DraftInput> inputs, std::span<Work* const> proposing) {
  if (const auto draws = draft_draws(state, proposing)) {
    std::vector<int32_t> tokens(proposing.size());
    state.runner.draft_tokens(inputs, *draws, tokens);
    for (size_t i = 0; i < proposing.size(); ++i) proposing[i]->sequence->draft = tokens[i];
    return;
  }
  const LogitsRows logits = state.runner.draft(inputs);
  for (size_t i = 0; i < proposing.size(); ++i) {
    Sequence& sequence = *proposing[i]->sequence;
    try {
      sequence.draft = draw_draft(state, sequence, logits.row(i), state.scratch[0]);
    } catch (const std::exception& error) {  // its constraint: if that fails again, the next draw ends the request
      SW_WARN("request {}: drawing a draft failed: {}", sequence.id(), error.what());
    }
  }
}

}  // namespace

bool wants_draft_rows(const State& state, const Work& work) {
  if (state.runner.info().draft_tokens_max == 0 || !state.options.speculate) return false;
  // Others will share a prompt's pages, and may draft.
  return work.finish == FinishReason::kNone && (!work.was_decoding || work.sequence->drafting);
}

bool probes_plain_steps(const State& state) {
  return state.options.speculate_adaptively && state.step % kProbeSteps == 0;
}

bool draft_pays(State& state, Sequence& sequence, int decoding) {
  if (!state.options.speculate_adaptively) return true;
  const StepCost& cost = state.costs.cost();
  if (!cost.measured || state.step < 2 * kProbeSteps) return true;
  // With drafts: (1 + acceptance) tokens a sequence for a step of twice the rows and the draft layer's time, which
  // those rows cost already where the step includes it.
  const double plain = cost.step_s(decoding, 0);
  const double layer_s = state.drafts_in_step ? 0 : state.draft_row_s * (1 + sequence.acceptance) * decoding;
  const double drafted = cost.step_s(2.0 * decoding, 0) + layer_s;
  const bool loses = (1 + sequence.acceptance) * plain < 0.97 * drafted;
  sequence.losing_steps = loses ? sequence.losing_steps + 1 : 0;
  if (sequence.losing_steps >= kLosingSteps) {
    sequence.drafting = false;
    sequence.draft = -1;
  }
  return sequence.drafting && !probes_plain_steps(state);
}

void run_drafts(State& state, std::span<Work> works) {
  if (state.runner.info().draft_tokens_max == 0 || !state.options.speculate) return;
  std::vector<models::DraftInput> inputs;
  std::vector<Work*> proposing;
  int rows = 0;
  for (size_t i = 0; i < works.size(); ++i) {
    Work& work = works[i];
    Sequence& sequence = *work.sequence;
    sequence.draft = -1;
    if (work.proposal && wants_proposal(state, work)) sequence.draft = *work.proposal;
    if (work.proposal || !wants_draft_rows(state, work)) continue;
    // Row j of the slice goes with the token after it; rejected rows are left out, and of the last row of a chunk the
    // next token is known: from the prompt, or just drawn.
    const int used = work.was_decoding ? 1 + work.accepted : work.rows;
    const bool proposes = wants_proposal(state, work);
    inputs.push_back({.sequence = static_cast<int32_t>(i),
                      .next_tokens = std::span(sequence.tokens).subspan(work.start + 1, used),
                      .logits = proposes});
    if (proposes) proposing.push_back(&work);
    rows += used;
  }
  if (inputs.empty()) return;
  const TimePoint begin = state.clock.now();
  propose(state, inputs, proposing);
  state.record.draft_s += seconds(state.clock.now() - begin);
  state.record.draft_rows += rows;
  if (std::ranges::any_of(works, [](const Work& work) { return work.draft > 0; })) state.drafts_in_step = false;
}

void learn_acceptance(State& state, Sequence& sequence, int proposed, int accepted) {
  if (proposed == 0) return;
  sequence.usage.draft_tokens += proposed;
  sequence.usage.accepted_tokens += accepted;
  const double rate = static_cast<double>(accepted) / proposed;
  sequence.acceptance = sequence.acceptance * kMemory + rate * (1 - kMemory);
  state.acceptance = state.acceptance * 0.99 + rate * 0.01;
  record_drafts(proposed, accepted);
}

}  // namespace spillway::engine
