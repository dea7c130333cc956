#include "engine/actions/batch.h"

#include <algorithm>
#include <exception>

#include "base/burst.h"
#include "base/log.h"
#include "base/trace.h"
#include "engine/engine_metrics.h"

namespace spillway::engine {
namespace {

// Below this many logits, handing rows to other threads costs more than it saves.
constexpr int64_t kParallelLogits = 1 << 16;

struct Inputs {
  std::vector<models::SequenceInput> slices;
  std::vector<int32_t> tokens;  // of all slices, drafts in place
};

void assemble(std::span<Work> works, Inputs& inputs) {
  size_t total = 0;
  for (const Work& work : works) total += work.rows;
  inputs.tokens.reserve(total);
  int64_t logits = 0;
  for (Work& work : works) {
    const Sequence& sequence = *work.sequence;
    const auto known = std::span(sequence.tokens).subspan(work.start, work.rows - work.draft);
    const size_t begin = inputs.tokens.size();
    inputs.tokens.insert(inputs.tokens.end(), known.begin(), known.end());
    if (work.draft > 0) inputs.tokens.push_back(work.draft_token);
    inputs.slices.push_back({.tokens = std::span(inputs.tokens).subspan(begin, work.rows),
                             .position = work.start,
                             .pages = sequence.table.pages,
                             .logits_rows = work.logits_rows});
    work.logits_begin = logits;
    logits += work.logits_rows;
  }
}

// Draws for every wanted row, where the device can draw all of them: of a draft's row with the noise of the position
// after, as if the draft were accepted. Null where the host has to see logits.
std::optional<std::vector<models::TokenDraw>> device_draws(const State& state, std::span<const Work> works) {
  if (!state.runner.draws_tokens()) return {};
  std::vector<models::TokenDraw> draws;
  for (const Work& work : works) {
    if (work.logits_rows == 0) continue;
    if (work.sequence->wants_prompt_rows()) return {};
    for (int i = 0; i < work.logits_rows; ++i) {
      const auto how = device_draw(state, *work.sequence, static_cast<int64_t>(work.sequence->tokens.size()) + i);
      if (!how) return {};
      draws.push_back({*how, false});
    }
  }
  return draws;
}

void draw_on_device(State& state, std::span<Work> works, std::span<const models::SequenceInput> slices,
                    std::span<const models::TokenDraw> draws) {
  state.runner.launch(slices, draws, std::vector<int32_t>(slices.size(), -1));
  const Runner::Landed landed = state.runner.land();
  for (Work& work : works) {
    const auto first = landed.tokens.begin() + work.logits_begin;
    work.drawn.assign(first, first + work.logits_rows);
  }
  record_idle(state, works, landed.idle_s);
}

// A constraint that throws fails its own sequence only.
void draw_guarded(const State& state, Work& work, const LogitsRows& logits, SampleScratch& scratch) {
  try {
    if (work.sequence->wants_prompt_rows()) keep_prompt_logprobs(state, work, logits, scratch);
    if (work.last_chunk) draw(state, work, logits, scratch);
  } catch (const std::exception& error) {
    SW_ERROR("request {}: drawing a token failed: {}", work.sequence->id(), error.what());
    work.finish = FinishReason::kFailed;
  }
}

void draw_all(State& state, std::span<Work> works, const LogitsRows& logits) {
  const auto drawn = [](const Work& work) { return !work.drawn.empty() || !work.last_chunk; };
  if (logits.rows * logits.width < kParallelLogits || works.size() < 2 || std::ranges::all_of(works, drawn)) {
    for (Work& work : works) draw_guarded(state, work, logits, state.scratch[0]);
    return;
  }
  state.runner.parallel_tasks(static_cast<int64_t>(works.size()), [&](int64_t i, int thread) {
    draw_guarded(state, works[i], logits, state.scratch[thread]);
  });
}

void commit(State& state, Work& work) {
  Sequence& sequence = *work.sequence;
  sequence.last_step = state.step;
  if (work.finish == FinishReason::kFailed) {
    finish(state, sequence, FinishReason::kFailed, std::move(work.tokens));
    return;
  }
  sequence.computed = work.last_chunk ? static_cast<int>(sequence.tokens.size()) - (work.tokens.empty() ? 0 : 1)
                                      : work.start + work.rows;
  if (!work.was_decoding) record_chunk(sequence, work.rows, state.now);
  if (!work.was_decoding || sequence.computed / state.options.page_tokens > sequence.table.shared) {
    share_pages(state, sequence);
  }
  const int emitted = static_cast<int>(work.tokens.size());
  sequence.usage.completion_tokens += emitted;
  state.record.emitted += emitted;
  if (emitted > 0) {
    record_tokens(sequence, emitted, state.now);
    sequence.last_event = state.now;
  }
  if (work.finish != FinishReason::kNone) {
    finish(state, sequence, work.finish, std::move(work.tokens));
  } else if (emitted > 0) {
    emit(sequence, std::move(work.tokens), FinishReason::kNone);
  }
}

}  // namespace

void hand_out(State& state, std::span<Work> works, const LogitsRows& logits) {
  {
    trace::Span span("engine", "sample", "sequences", static_cast<int64_t>(works.size()));
    draw_all(state, works, logits);
  }
  for (Work& work : works) learn_acceptance(state, *work.sequence, work.proposed, work.accepted);
  try {
    trace::Span span("engine", "draft");
    run_drafts(state, works);
  } catch (const std::exception& error) {  // the tokens of this step stand; these sequences go on without drafts
    SW_ERROR("the draft layer failed: {}", error.what());
    for (Work& work : works) {
      work.sequence->draft = -1;
      work.sequence->drafting = false;
    }
  }
  state.now = state.clock.now();
  const Burst burst;  // who listens is woken for all of them
  for (Work& work : works) commit(state, work);
}

Work make_work(Sequence& sequence, const Slice& slice) {
  Work work;
  work.sequence = &sequence;
  work.arrival = sequence.arrival;
  work.id = sequence.id();
  work.start = sequence.computed;
  work.rows = slice.tokens;
  work.draft = slice.draft;
  if (work.draft > 0) work.draft_token = sequence.draft;
  work.was_decoding =
      sequence.generated_tokens() > 0 && sequence.computed + 1 == static_cast<int>(sequence.tokens.size());
  work.last_chunk = work.start + work.rows - work.draft == static_cast<int>(sequence.tokens.size());
  work.logits_rows = sequence.wants_prompt_rows() ? work.rows : (work.last_chunk ? 1 + work.draft : 0);
  return work;
}

void run_batch(State& state, std::span<Work> works) {
  Inputs inputs;
  assemble(works, inputs);
  LogitsRows logits;
  try {
    trace::Span span("engine", "forward", "rows", static_cast<int64_t>(inputs.tokens.size()));
    if (const auto draws = device_draws(state, works)) {
      draw_on_device(state, works, inputs.slices, *draws);
    } else {
      logits = state.runner.forward(inputs.slices);
    }
  } catch (const std::exception& error) {
    if (works.size() == 1) {
      SW_ERROR("request {}: the step failed: {}", works[0].sequence->id(), error.what());
      finish(state, *works[0].sequence, FinishReason::kFailed);
      return;
    }
    SW_WARN("a step of {} sequences failed ({}); running each alone", works.size(), error.what());
    for (size_t i = 0; i < works.size(); ++i) run_batch(state, works.subspan(i, 1));
    return;
  }
  hand_out(state, works, logits);
}

}  // namespace spillway::engine
