// What decode steps are launched with that verify drafts and propose the next ones on the device. Sequences without a
// draft may take part: nothing is kept of their second row.
#include <algorithm>

#include "engine/actions/batch.h"

namespace spillway::engine {
namespace {

constexpr int kRows = 2;  // of a sequence

// A sequence of which so many tokens are known, or known to the device.
kernels::DraftedSequence sequence_of(const State& state, const Sequence& sequence, int64_t tokens) {
  kernels::DraftedSequence how;
  how.position = static_cast<int32_t>(tokens - 1);
  if (sequence.drafting) {  // until no token can follow the one that a draft stands for
    const int64_t end = int64_t{sequence.prompt_tokens()} + sequence.request->max_tokens;
    how.draft_end = static_cast<int32_t>(std::min<int64_t>(end, state.limits.context_tokens) - 1);
  }
  for (int i = 0; i < 4; ++i) how.draws[i] = device_draw(state, sequence, tokens + i).value_or(kernels::RowDraw{});
  return how;
}

// Rows that nobody wants cost as much as others: not where most sequences go without drafts.
bool most(int64_t drafting, size_t sequences) { return 2 * drafting >= static_cast<int64_t>(sequences); }

}  // namespace

bool drafted_inputs(State& state, std::span<const Work> works, std::vector<models::DraftedInput>& inputs) {
  if (works.size() > state.runner.drafted_sequences_max() || !state.options.speculate) return false;
  if (kRows * works.size() > static_cast<size_t>(state.limits.batch_tokens)) return false;
  int pages = 0;
  int64_t drafting = 0;
  for (const Work& work : works) {
    const Sequence& sequence = *work.sequence;
    const auto tokens = static_cast<int64_t>(sequence.tokens.size());
    if (!work.was_decoding || !work.last_chunk || !device_draw(state, sequence, tokens)) return false;
    drafting += work.draft;
    pages += std::max(
        0, kv::pages_for(tokens + 1, state.options.page_tokens) - static_cast<int>(sequence.table.pages.size()));
  }
  if (!most(drafting, works.size()) || pages > state.cache.pages_available()) return false;
  for (const Work& work : works) {
    Sequence& sequence = *work.sequence;
    const auto tokens = static_cast<int64_t>(sequence.tokens.size());
    SW_CHECK(state.cache.grow(sequence.table, tokens + 1), "pages that were counted are not there");
    kernels::DraftedSequence how = sequence_of(state, sequence, tokens);
    how.token = sequence.tokens.back();
    how.draft = work.draft_token;
    inputs.push_back({how, sequence.table.pages});
  }
  return true;
}

kernels::DraftedSequence carried_draft(const State& state, const Sequence& sequence, int32_t place, int64_t tokens) {
  kernels::DraftedSequence how = sequence_of(state, sequence, tokens);
  how.carried = place;
  return how;
}

bool drafts_go_on(State& state) {
  if (probes_plain_steps(state)) return false;
  int64_t drafting = 0;
  for (const Work& work : state.flight.works) {
    Sequence* sequence = find_live(state, work);
    if (sequence != nullptr && sequence->drafting)
      drafting += draft_pays(state, *sequence, static_cast<int>(state.flight.works.size()));
  }
  return most(drafting, state.flight.works.size());
}

}  // namespace spillway::engine
