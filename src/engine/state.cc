#include "engine/state.h"

#include <algorithm>

#include "engine/actions/batch.h"
#include "engine/engine_metrics.h"

namespace spillway::engine {
namespace {

std::unique_ptr<Sequence> take(std::vector<std::unique_ptr<Sequence>>& list, const Sequence& sequence) {
  const auto it = std::ranges::find_if(list, [&](const auto& item) { return item.get() == &sequence; });
  if (it == list.end()) return nullptr;
  auto taken = std::move(*it);
  list.erase(it);
  return taken;
}

}  // namespace

State::State(EngineOptions options_in, Limits limits_in, int pages, Runner& runner_in, const Clock& clock_in)
    : options(options_in),
      limits(limits_in),
      runner(runner_in),
      clock(clock_in),
      cache(pages, options.page_tokens, options.prefix_cache),
      now(clock.now()),
      scratch(std::max(1, runner.threads())) {}

State::~State() = default;

void emit_started(Sequence& sequence) {
  if (sequence.started) return;
  sequence.started = true;
  Event event;
  event.id = sequence.id();
  event.started = true;
  event.usage = sequence.usage;
  sequence.sink->on_event(std::move(event));
}

void emit(Sequence& sequence, std::vector<TokenEvent> tokens, FinishReason finish) {
  Event event;
  event.id = sequence.id();
  event.tokens = std::move(tokens);
  if (sequence.request->prompt_logprobs && !sequence.prompt_sent && !sequence.wants_prompt_rows()) {
    event.prompt = std::move(sequence.prompt_logprobs);
    sequence.prompt_sent = true;
  }
  event.finish = finish;
  event.usage = sequence.usage;
  sequence.sink->on_event(std::move(event));
}

void share_pages(State& state, Sequence& sequence) {
  if (!sequence.request->use_prefix_cache) return;
  state.cache.share(sequence.table, std::span(sequence.tokens).first(sequence.computed), sequence.request->cache_salt);
}

void finish(State& state, Sequence& sequence, FinishReason reason, std::vector<TokenEvent> tokens) {
  if (reason != FinishReason::kFailed) share_pages(state, sequence);
  state.cache.release(sequence.table);
  auto owned = take(state.running, sequence);
  if (owned == nullptr) owned = take(state.waiting, sequence);
  state.by_id.erase(sequence.id());
  ++state.record.finished;
  record_finish(sequence, reason, state.now);
  if (state.on_end) state.on_end(owned->id());
  emit(*owned, std::move(tokens), reason);
}

void preempt(State& state, Sequence& sequence) {
  share_pages(state, sequence);
  state.cache.release(sequence.table);
  sequence.computed = 0;
  sequence.in_flight = false;
  sequence.draft = -1;
  sequence.drafting = false;
  ++sequence.usage.preemptions;
  record_preemption(sequence, state.now);
  auto owned = take(state.running, sequence);
  const auto place =
      std::ranges::lower_bound(state.waiting, owned->arrival, {}, [](const auto& s) { return s->arrival; });
  state.waiting.insert(place, std::move(owned));
}

void observe_costs(State& state) {
  const StepRecord &record = state.record, &seen = state.observed;
  const TimePoint now = state.clock.now();
  const double spent_s = seconds(now - state.observed_until) - (record.draft_s - seen.draft_s);
  state.costs.observe(record.decode_rows - seen.decode_rows, record.prefill_tokens - seen.prefill_tokens,
                      std::max(0.0, spent_s));
  state.observed = record;
  state.observed_until = now;
}

SequenceView view_of(const State& state, const Sequence& sequence, int32_t index) {
  SequenceView view;
  view.index = index;
  view.priority = sequence.request->priority;
  view.arrival = sequence.arrival;
  view.wait_s = seconds(state.now - sequence.submitted);
  view.tokens = static_cast<int32_t>(sequence.tokens.size());
  view.computed = sequence.computed;
  view.pages = static_cast<int32_t>(sequence.table.pages.size());
  view.draft = sequence.draft >= 0 ? 1 : 0;
  view.last_step = sequence.last_step;
  view.started = sequence.started;
  view.chunk_max = sequence.wants_prompt_rows() ? state.limits.prompt_logprob_rows : 0;
  return view;
}

std::vector<SequenceView> view_running(const State& state) {
  std::vector<SequenceView> views;
  views.reserve(state.running.size());
  for (size_t i = 0; i < state.running.size(); ++i) {
    views.push_back(view_of(state, *state.running[i], static_cast<int32_t>(i)));
    views.back().pages_freed = state.cache.freed_by(state.running[i]->table);
  }
  return views;
}

double token_seconds(const State& state) {
  const StepCost& cost = state.costs.cost();
  return std::max(1e-6, cost.token_s + cost.base_s / std::max(1, state.limits.batch_tokens));
}

}  // namespace spillway::engine
