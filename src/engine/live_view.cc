#include "engine/live_view.h"

#include <algorithm>

#include "engine/admission.h"
#include "engine/core.h"
#include "engine/schedule.h"
#include "metrics/timeline.h"

namespace spillway::engine {
namespace {

LiveStream stream_of(const State& state, const Sequence& sequence) {
  LiveStream stream;
  stream.id = sequence.id();
  if (const auto& timeline = sequence.request->timeline) stream.name = timeline->id();
  stream.priority = sequence.request->priority;
  stream.prompt_tokens = sequence.prompt_tokens();
  stream.cached_tokens = sequence.usage.cached_tokens;
  stream.computed_tokens = sequence.computed;
  stream.generated_tokens = sequence.generated_tokens();
  stream.max_tokens = sequence.request->max_tokens;
  stream.pages = static_cast<int>(sequence.table.pages.size());
  stream.preemptions = sequence.usage.preemptions;
  stream.age_s = seconds(state.now - sequence.submitted);
  return stream;
}

bool is_decoding(const Sequence& sequence) {
  return sequence.generated_tokens() > 0 && sequence.computed + 1 == static_cast<int>(sequence.tokens.size());
}

void add_running(const State& state, LiveView& view) {
  for (const auto& sequence : state.running) {
    const bool decoding = is_decoding(*sequence);
    view.decoding += decoding;
    view.cache_bytes += static_cast<double>(sequence->table.pages.size()) *
                        static_cast<double>(state.runner.info().kv.bytes_per_page(state.options.page_tokens));
    if (view.streams.size() >= LiveView::kStreamsMax) continue;
    view.streams.push_back(stream_of(state, *sequence));
    view.streams.back().phase = decoding ? LiveStream::Phase::kDecode : LiveStream::Phase::kPrefill;
  }
}

// In the order they will go; each waits for what is ahead of it.
void add_waiting(const Core& core, LiveView& view) {
  const State& state = core.state();
  if (state.waiting.empty() || view.streams.size() >= LiveView::kStreamsMax) return;
  std::vector<SequenceView> views;
  views.reserve(state.waiting.size());
  for (const auto& sequence : state.waiting) {
    views.push_back(view_of(state, *sequence, static_cast<int32_t>(views.size())));
  }
  Load ahead = load_of(core);
  ahead.waiting = {};
  for (const int32_t index : order_waiting(views, token_seconds(state))) {
    const Sequence& sequence = *state.waiting[index];
    view.streams.push_back(stream_of(state, sequence));
    view.streams.back().predicted_wait_s = predicted_wait_s(ahead, state.options, state.limits, Priority::kLow);
    if (view.streams.size() >= LiveView::kStreamsMax) break;
    ahead.waiting.add(sequence.request->priority, static_cast<int64_t>(sequence.tokens.size()));
  }
}

void add_pages(const State& state, LiveView& view) {
  const kv::Cache& cache = state.cache;
  view.page_tokens = cache.page_tokens();
  view.pages_total = cache.pages_total();
  view.pages_free = cache.pages_free();
  view.pages_cached = cache.pages_idle();
  const size_t pages = static_cast<size_t>(view.pages_total);
  const size_t cells = std::min(pages, LiveView::kMapCells);
  view.page_map.assign(cells, 0);
  for (size_t page = 0; page < pages; ++page) {
    const kv::PageUse use = cache.use_of(static_cast<kv::PageId>(page));
    view.pages_shared += use == kv::PageUse::kShared;
    uint8_t& cell = view.page_map[page * cells / pages];
    cell = std::max(cell, static_cast<uint8_t>(use));
  }
  view.prefixes = cache.prefixes();
}

}  // namespace

LiveView view_core(const Core& core) {
  const State& state = core.state();
  LiveView view;
  view.at = state.now;
  view.steps = state.step;
  view.running = static_cast<int>(state.running.size());
  view.waiting = static_cast<int>(state.waiting.size());
  view.blocked = state.blocked;
  view.last = core.last_step();
  view.cost = state.costs.cost();
  view.step_s_mean = core.recent().step_s;
  view.rows_mean = core.recent().rows;
  view.batch_tokens_max = state.limits.batch_tokens;
  view.sequences_max = state.options.sequences_max;
  add_running(state, view);
  add_waiting(core, view);
  add_pages(state, view);
  const models::ModelInfo& info = state.runner.info();
  view.weight_bytes = static_cast<double>(info.decode_bytes);
  view.flops = static_cast<double>(info.flops_per_token) * std::max(1.0, view.rows_mean);
  return view;
}

}  // namespace spillway::engine
