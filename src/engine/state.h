// State: everything the engine's thread owns, and nothing else. Actions (actions/) change it one after another; what
// other threads may see is copied out of it after each step (admission.h).
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <unordered_map>
#include <vector>

#include "base/clock.h"
#include "engine/cost_model.h"
#include "engine/engine.h"
#include "engine/runner.h"
#include "engine/sampler.h"
#include "engine/schedule.h"
#include "engine/sequence.h"
#include "kv/cache.h"

namespace spillway::engine {

// What the engine may use: the options with every 0 resolved.
struct Limits {
  int context_tokens = 0;        // of one sequence: the model's, or what all pages hold
  int batch_tokens = 0;          // rows of a step: the option's, at most the model's
  int prompt_logprob_rows = 64;  // logits rows of one chunk with prompt_logprobs
  int vocab = 0;                 // tokens that may be drawn
};

// What a step did, for metrics and the cost model.
struct StepRecord {
  int decode_rows = 0;
  int prefill_tokens = 0;
  int slices = 0;
  int emitted = 0;
  double draft_s = 0;
  int draft_rows = 0;  // rows of the draft layer
  int finished = 0;
  double idle_s = -1;  // before the decode step that ended in it the device had nothing to compute; -1: not known
};

struct Work;

// A step that the device computes while the host goes on. Its sequences may end meanwhile; then their tokens are
// dropped.
struct Flight {
  std::vector<Work> works;
  bool carries = false;  // every token is drawn on the device, so that the next step can start from here
  bool drafted = false;  // drafts are verified and proposed on the device
  bool empty() const { return works.empty(); }
};

struct State {
  State(EngineOptions options_in, Limits limits_in, int pages, Runner& runner_in, const Clock& clock_in);
  ~State();

  EngineOptions options;
  Limits limits;
  Runner& runner;
  const Clock& clock;

  kv::Cache cache;
  std::vector<std::unique_ptr<Sequence>> waiting;  // in order of arrival, preempted ones included
  std::vector<std::unique_ptr<Sequence>> running;
  std::unordered_map<RequestId, Sequence*> by_id;
  Flight flight;

  TimePoint now;  // of this step
  int64_t step = 0;
  int64_t arrivals = 0;
  bool blocked = false;  // something waits that did not fit: slots or pages are the bottleneck
  StepRecord record;
  StepRecord observed;  // what of it the cost model has seen,
  TimePoint observed_until;

  CostModel costs;
  double draft_row_s = 0;                 // measured seconds of the draft layer a row
  bool drafts_in_step = false;            // the last step that verified drafts included the draft layer
  double acceptance = 0.7;                // of recent drafts, of all sequences
  std::vector<SampleScratch> scratch;     // one a thread
  std::function<void(RequestId)> on_end;  // told before a request's last event
};

// Says that the prefill begins, once.
void emit_started(Sequence& sequence);
// Sends tokens, the finish or both.
void emit(Sequence& sequence, std::vector<TokenEvent> tokens, FinishReason finish);

// Ends a waiting or running sequence: pages back, last event, gone. `tokens` were drawn in this step.
void finish(State& state, Sequence& sequence, FinishReason reason, std::vector<TokenEvent> tokens = {});

// Takes the pages and puts the sequence back among the waiting ones; what it has emitted stays and will be recomputed.
void preempt(State& state, Sequence& sequence);

// Keeps computed full pages for others.
void share_pages(State& state, Sequence& sequence);

// Tells the cost model what was computed since it was told last, in the time that has passed since.
void observe_costs(State& state);

SequenceView view_of(const State& state, const Sequence& sequence, int32_t index);
// With pages_freed filled in, which costs a look at every page.
std::vector<SequenceView> view_running(const State& state);
// Seconds a prefill token takes, as far as known; never 0.
double token_seconds(const State& state);

}  // namespace spillway::engine
