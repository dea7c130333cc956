#include "engine/engine_metrics.h"

#include <algorithm>

#include "engine/actions/batch.h"
#include "engine/sequence.h"
#include "engine/state.h"
#include "metrics/metrics.h"
#include "metrics/timeline.h"

namespace spillway::engine {
namespace {

using metrics::Counter;
using metrics::Gauge;
using metrics::Histogram;

const std::vector<double> kLatency_s = {0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25,
                                        0.5,   1,      2.5,   5,    10,    30,   60,  120};
const std::vector<double> kStep_s = {0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01,
                                     0.025,  0.05,    0.1,    0.25,  0.5,    1,     2.5};
const std::vector<double> kIdle_s = {5e-6, 1e-5, 2e-5, 3e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 0.1};
const std::vector<double> kSizes = {1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096};

Counter requests("spillway_engine_requests_total", "Requests that ended, by outcome.", {"outcome"});
Counter refusals("spillway_engine_refusals_total", "Requests refused at admission, by reason.", {"reason"});
Counter prompt_tokens("spillway_engine_prompt_tokens_total", "Prompt tokens of the requests whose prefill began.");
Counter generated_tokens("spillway_engine_generated_tokens_total", "Tokens emitted.");
Counter prefix_queries("spillway_engine_prefix_cache_query_tokens_total", "Tokens looked up in the prefix cache.");
Counter prefix_hits("spillway_engine_prefix_cache_hit_tokens_total", "Tokens taken from the prefix cache.");
Counter preemptions("spillway_engine_preemptions_total", "Sequences put back because pages ran out.");
Counter drafts("spillway_engine_draft_tokens_total", "Tokens proposed by speculation.");
Counter drafts_accepted("spillway_engine_draft_tokens_accepted_total", "Proposed tokens that were kept.");
Gauge running("spillway_engine_requests_running", "Sequences in the batch.");
Gauge waiting("spillway_engine_requests_waiting", "Sequences that wait for a place.");
Gauge pages("spillway_engine_kv_pages", "Pages of the KV cache, by state.", {"state"});
Histogram queue_s("spillway_engine_queue_seconds", "From submission to the first prefill.", kLatency_s);
Histogram first_token_s("spillway_engine_time_to_first_token_seconds", "From submission to the first token.",
                        kLatency_s);
Histogram inter_token_s("spillway_engine_inter_token_seconds", "Between tokens of one request.", kLatency_s);
Histogram request_s("spillway_engine_request_seconds", "From submission to the end.", kLatency_s);
Histogram step_s("spillway_engine_step_seconds", "Duration of a step.", kStep_s);
Histogram idle_s("spillway_engine_device_idle_seconds",
                 "Before a decode step: how long the GPU had nothing to compute.", kIdle_s);
Histogram batch_size("spillway_engine_batch_sequences", "Sequences in a step.", kSizes);
Histogram step_tokens("spillway_engine_step_tokens", "Rows in a step, drafts and prefill included.", kSizes);

using Kind = metrics::Moment::Kind;

void note(const Sequence& sequence, Kind kind, TimePoint at, int64_t a, int64_t b = 0, std::string_view text = {}) {
  if (const auto& timeline = sequence.request->timeline) timeline->add(kind, at, a, b, text);
}

std::string_view trace_of(const Sequence& sequence) { return metrics::trace_id_of(sequence.request->timeline); }

}  // namespace

void record_refusal(Refusal::Reason reason) { refusals.with({name_of(reason)}).add(); }

void record_admission(const Sequence& sequence, int cached_tokens, TimePoint now) {
  prefix_queries->add(static_cast<double>(sequence.tokens.size()));
  prefix_hits->add(cached_tokens);
  note(sequence, Kind::kStarted, now, cached_tokens);
  if (sequence.started) return;
  prompt_tokens->add(sequence.prompt_tokens());
  queue_s->observe(seconds(now - sequence.submitted), trace_of(sequence));
}

void record_preemption(const Sequence& sequence, TimePoint now) {
  preemptions->add();
  note(sequence, Kind::kPreempted, now, 0);
}

void record_chunk(const Sequence& sequence, int tokens, TimePoint now) {
  note(sequence, Kind::kPrefill, now, sequence.computed, tokens);
}

void record_tokens(const Sequence& sequence, int tokens, TimePoint now) {
  generated_tokens->add(tokens);
  note(sequence, Kind::kTokens, now, sequence.generated_tokens(), tokens);
  if (sequence.generated_tokens() == tokens) {
    first_token_s->observe(seconds(now - sequence.submitted), trace_of(sequence));
    return;
  }
  const double each = seconds(now - sequence.last_event) / tokens;
  inter_token_s->observe(each, trace_of(sequence));
  for (int i = 1; i < tokens; ++i) inter_token_s->observe(each);
}

void record_drafts(int proposed, int accepted) {
  drafts->add(proposed);
  drafts_accepted->add(accepted);
}

void record_finish(const Sequence& sequence, FinishReason reason, TimePoint now) {
  requests.with({name_of(reason)}).add();
  note(sequence, Kind::kFinished, now, sequence.generated_tokens(), 0, name_of(reason));
  request_s->observe(seconds(now - sequence.submitted), trace_of(sequence));
}

void record_idle(State& state, std::span<const Work> works, double seconds) {
  if (seconds < 0 || works.empty() || !std::ranges::all_of(works, &Work::was_decoding)) return;
  state.record.idle_s = seconds;
  idle_s->observe(seconds);
}

void record_step(const State& state, double duration_s) {
  running->set(static_cast<double>(state.running.size()));
  waiting->set(static_cast<double>(state.waiting.size()));
  const int free = state.cache.pages_free(), idle = state.cache.pages_idle();
  pages.with({"free"}).set(free);
  pages.with({"cached"}).set(idle);
  pages.with({"used"}).set(state.cache.pages_total() - free - idle);
  if (state.record.slices == 0) return;
  step_s->observe(duration_s);
  batch_size->observe(state.record.slices);
  step_tokens->observe(state.record.decode_rows + state.record.prefill_tokens);
}

}  // namespace spillway::engine
