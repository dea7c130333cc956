#include <algorithm>

#include "engine/actions/actions.h"
#include "engine/engine_metrics.h"

namespace spillway::engine {
namespace {

// What cannot be placed may be overtaken for this long; then places are kept free for it.
constexpr double kOvertaken_s = 2;
constexpr int kAttempts = 128;  // sequences looked at a step

int common_pages(const std::vector<uint64_t>& a, const std::vector<uint64_t>& b) {
  return static_cast<int>(std::ranges::mismatch(a, b).in1 - a.begin());
}

// Whether a running prefill is about to complete pages of this prefix that the cache does not have yet.
bool prefix_is_coming(const State& state, const Sequence& sequence, int cached_pages) {
  if (!state.options.prefix_cache) return false;
  const int cacheable = sequence.cacheable_pages(state.options.page_tokens);
  if (cacheable <= cached_pages) return false;
  for (const auto& other : state.running) {
    if (other->computed + 1 >= static_cast<int>(other->tokens.size())) continue;  // its prefill is done
    if (other->request->priority < sequence.request->priority) continue;          // may itself be held up
    if (other->last_step >= 0 && other->last_step + 1 < state.step) continue;     // is being held up
    const int common = std::min(common_pages(other->hashes, sequence.hashes), cacheable);
    if (common > cached_pages && common > other->computed / state.options.page_tokens) return true;
  }
  return false;
}

// Tokens that running prefills more urgent than this one still have to compute.
int64_t tokens_ahead(const State& state, const SequenceView& view, double token_s) {
  int64_t tokens = 0;
  for (const auto& other : state.running) {
    const SequenceView ahead = view_of(state, *other, 0);
    if (!ahead.decoding() && more_urgent(ahead, view, token_s)) tokens += ahead.remaining();
  }
  return tokens;
}

// Makes a slot and pages by preempting lower priorities, if that is enough.
bool make_room(State& state, const Sequence& sequence, int slots, int pages) {
  const auto victims = choose_victims(view_running(state), sequence.request->priority, slots, pages);
  std::vector<Sequence*> chosen;
  for (const int32_t victim : victims) chosen.push_back(state.running[victim].get());
  for (Sequence* victim : chosen) preempt(state, *victim);
  return !chosen.empty();
}

enum class Outcome { kAdmitted, kComing, kBlocked };

Outcome try_admit(State& state, Sequence& sequence) {
  const int page_tokens = state.options.page_tokens;
  const int cacheable = sequence.cacheable_pages(page_tokens);
  for (int attempt = 0; attempt < 2; ++attempt) {
    const auto match = state.cache.match(sequence.tokens, cacheable, sequence.request->cache_salt);
    if (prefix_is_coming(state, sequence, match.pages)) return Outcome::kComing;
    // Room to grow for those that run, so that admission does not cause preemptions at once.
    const int reserve = std::min<int>(state.running.size(), state.cache.pages_total() / 8);
    const int needed =
        kv::pages_for(sequence.tokens.size() + 1, page_tokens) - match.pages + match.idle_pages + reserve;
    const int slots = static_cast<int>(state.running.size()) + 1 - state.options.sequences_max;
    const int pages = needed - state.cache.pages_available();
    if (slots <= 0 && pages <= 0) break;
    if (attempt == 1 || !make_room(state, sequence, slots, pages)) return Outcome::kBlocked;
  }
  sequence.computed =
      state.cache.acquire_prefix(sequence.tokens, cacheable, sequence.request->cache_salt, sequence.table);
  SW_CHECK(state.cache.grow(sequence.table, sequence.tokens.size()), "admission counted pages that are not there");
  return Outcome::kAdmitted;
}

void start(State& state, std::unique_ptr<Sequence> sequence) {
  const int cached = sequence->computed;
  if (!sequence->started) sequence->usage.cached_tokens = std::min(cached, sequence->prompt_tokens());
  record_admission(*sequence, cached, state.now);
  sequence->drafting =
      state.options.speculate && sequence->request->speculate && state.runner.info().draft_tokens_max > 0;
  sequence->acceptance = state.acceptance;
  sequence->last_step = -1;
  emit_started(*sequence);
  state.running.push_back(std::move(sequence));
}

}  // namespace

void admit(State& state) {
  state.blocked = false;
  if (state.waiting.empty()) return;
  const double token_s = token_seconds(state);
  std::vector<SequenceView> views;
  views.reserve(state.waiting.size());
  for (const auto& sequence : state.waiting)
    views.push_back(view_of(state, *sequence, static_cast<int32_t>(views.size())));
  std::vector<Sequence*> order;
  for (const int32_t index : order_waiting(views, token_s)) order.push_back(state.waiting[index].get());

  int attempts = 0;
  for (Sequence* sequence : order) {
    if (++attempts > kAttempts) break;
    const SequenceView view = view_of(state, *sequence, 0);
    if (tokens_ahead(state, view, token_s) >= state.limits.batch_tokens) break;  // would not be computed in this step
    const Outcome outcome = try_admit(state, *sequence);
    if (outcome == Outcome::kBlocked) {
      state.blocked = true;
      if (view.wait_s > kOvertaken_s || static_cast<int>(state.running.size()) >= state.options.sequences_max) break;
    }
    if (outcome != Outcome::kAdmitted) continue;
    const auto place = std::ranges::find_if(state.waiting, [&](const auto& item) { return item.get() == sequence; });
    auto owned = std::move(*place);
    state.waiting.erase(place);
    start(state, std::move(owned));
  }
}

}  // namespace spillway::engine
