#include "engine/core.h"

#include <algorithm>

#include "base/trace.h"
#include "engine/actions/actions.h"
#include "engine/engine_metrics.h"

namespace spillway::engine {

namespace {

struct Action {
  const char* name;
  void (*run)(State&);
};
constexpr Action kActions[] = {{"land", land}, {"expire", expire}, {"admit", admit}, {"compute", compute}};

}  // namespace

void Core::submit(std::unique_ptr<Sequence> sequence) {
  sequence->arrival = ++state_.arrivals;
  SW_CHECK(state_.by_id.emplace(sequence->id(), sequence.get()).second, "a request id is in use twice");
  state_.waiting.push_back(std::move(sequence));
}

void Core::cancel(RequestId id) {
  const auto it = state_.by_id.find(id);
  if (it != state_.by_id.end()) it->second->cancelled = true;
}

void Core::cancel_all() {
  for (auto& [id, sequence] : state_.by_id) sequence->cancelled = true;
}

void Core::step() {
  const TimePoint begin = state_.now = state_.clock.now();
  ++state_.step;
  state_.record = state_.observed = {};
  state_.observed_until = begin;
  trace::Span span("engine", "step", "rows");
  for (const Action& action : kActions) {
    trace::Span part("engine", action.name);
    action.run(state_);
  }

  const StepRecord& record = state_.record;
  const double step_s = seconds(state_.clock.now() - begin);
  if (record.slices > 0) {
    if (record.slices > state_.observed.slices) observe_costs(state_);
    completions_.observe(record.finished, step_s);
    tokens_.observe(record.emitted + record.prefill_tokens, step_s);
    remember(step_s);
    span.set_value(record.decode_rows + record.prefill_tokens);
  }
  if (record.draft_rows > 0) {
    const double row_s = record.draft_s / record.draft_rows;
    state_.draft_row_s = state_.draft_row_s == 0 ? row_s : state_.draft_row_s * 0.95 + row_s * 0.05;
  }
  record_step(state_, step_s);
}

void Core::remember(double step_s) {
  const StepRecord& record = state_.record;
  last_step_ = {record.decode_rows, record.prefill_tokens, record.slices, record.draft_rows, step_s};
  const double weight = recent_.step_s == 0 ? 1 : 0.1;
  recent_.step_s += weight * (step_s - recent_.step_s);
  recent_.rows += weight * (record.decode_rows + record.prefill_tokens - recent_.rows);
  trace::counter("running", static_cast<int64_t>(state_.running.size()));
  trace::counter("waiting", static_cast<int64_t>(state_.waiting.size()));
  trace::counter("pages free", state_.cache.pages_free());
}

Status Core::check() const {
  std::vector<const kv::BlockTable*> tables;
  for (const auto& sequence : state_.running) tables.push_back(&sequence->table);
  for (const auto& sequence : state_.waiting) {
    if (!sequence->table.pages.empty()) return corrupt("a waiting sequence holds pages");
  }
  SW_TRY(state_.cache.check(tables));
  if (state_.by_id.size() != state_.running.size() + state_.waiting.size()) {
    return corrupt("the index of requests does not match the lists");
  }
  return {};
}

}  // namespace spillway::engine
