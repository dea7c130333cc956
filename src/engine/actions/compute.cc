#include <algorithm>

#include "engine/actions/actions.h"
#include "engine/actions/batch.h"

namespace spillway::engine {
namespace {

constexpr int kPrefillMin = 32;       // tokens a step, however slow the model: a weight pass should be worth it
constexpr double kAloneTarget_s = 2;  // of a step without decoding rows: cancellations and deadlines wait for it

// How much prefill a step takes, so that decoding sequences do not wait too long for their next token.
int prefill_budget(const State& state, bool decoding) {
  const StepCost& cost = state.costs.cost();
  const int budget = state.limits.batch_tokens;
  if (!cost.measured || cost.token_s <= 0) return budget;
  const double target_s = decoding ? state.options.step_target_s : kAloneTarget_s;
  return std::clamp(static_cast<int>(std::min(1e6, target_s / cost.token_s)), std::min(kPrefillMin, budget), budget);
}

StepPlan plan(State& state) {
  int decoding = 0;
  for (const auto& sequence : state.running)
    decoding += sequence->computed + 1 == static_cast<int>(sequence->tokens.size());
  int pages_wanted = 0;
  std::vector<SequenceView> views;
  views.reserve(state.running.size());
  for (size_t i = 0; i < state.running.size(); ++i) {
    Sequence& sequence = *state.running[i];
    views.push_back(view_of(state, sequence, static_cast<int32_t>(i)));
    SequenceView& view = views.back();
    if (view.draft > 0 && !draft_pays(state, sequence, decoding)) view.draft = 0;
    if (view.decoding()) {
      pages_wanted +=
          std::max(0, kv::pages_for(view.computed + 1 + view.draft, state.options.page_tokens) - view.pages);
    }
  }
  if (pages_wanted > state.cache.pages_available()) views = view_running(state);
  return plan_step({.running = views,
                    .budget_tokens = state.limits.batch_tokens,
                    .prefill_tokens = prefill_budget(state, decoding > 0),
                    .pages_available = state.cache.pages_available(),
                    .page_tokens = state.options.page_tokens,
                    .token_s = token_seconds(state)});
}

}  // namespace

void record_rows(State& state, std::span<const Work> works) {
  for (const Work& work : works) {
    (work.was_decoding ? state.record.decode_rows : state.record.prefill_tokens) += work.rows;
  }
  state.record.slices += static_cast<int>(works.size());
}

void compute(State& state) {
  if (!state.flight.empty()) {
    if (std::ranges::all_of(state.running, &Sequence::in_flight)) return;
    land_flight(state, false);  // others want to join
  }
  if (state.running.empty()) return;
  const StepPlan planned = plan(state);
  std::vector<Work> works;
  works.reserve(planned.slices.size());
  for (const Slice& slice : planned.slices) works.push_back(make_work(*state.running[slice.index], slice));
  std::vector<Sequence*> preempted;
  for (const int32_t index : planned.preempted) preempted.push_back(state.running[index].get());
  for (Sequence* sequence : preempted) preempt(state, *sequence);
  for (const Work& work : works) {
    SW_CHECK(state.cache.grow(work.sequence->table, work.start + work.rows),
             "the plan counted pages that are not there");
  }
  if (works.empty()) return;
  if (!launch_batch(state, works)) {
    if (state.record.slices > 0) observe_costs(state);  // what has landed is a step of its own
    record_rows(state, works);
    run_batch(state, works);
  }
}

}  // namespace spillway::engine
