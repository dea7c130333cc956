// The scheduler: pure functions from a view of the sequences to decisions. No clock, no pages, no side effects: the
// same view gives the same decision, so that a simulator can check it. The actions (actions/) build the views and carry
// out the decisions.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "engine/request.h"

namespace spillway::engine {

// One sequence as the scheduler sees it.
struct SequenceView {
  int32_t index = 0;  // in the caller's list
  Priority priority = Priority::kNormal;
  int64_t arrival = 0;      // order of arrival
  double wait_s = 0;        // since arrival
  int32_t tokens = 0;       // whose keys and values must be there before the next token can be drawn, the last included
  int32_t computed = 0;     // of them, there already
  int32_t pages = 0;        // held
  int32_t pages_freed = 0;  // that come free when it is preempted (those it shares do not)
  int32_t draft = 0;        // draft tokens to verify
  int32_t chunk_max = 0;    // most prefill tokens in one step; 0: any
  int64_t last_step = -1;   // when it was computed last
  bool started = false;     // has run before: somebody waits for the rest of an answer

  int32_t remaining() const { return tokens - computed; }
  bool decoding() const { return remaining() == 1; }
};

struct StepView {
  std::span<const SequenceView> running;
  int32_t budget_tokens = 0;    // most rows of the step
  int32_t prefill_tokens = 0;   // most prefill tokens, at most the budget
  int32_t pages_available = 0;  // free or idle in the prefix cache
  int32_t page_tokens = 16;
  double token_s = 1e-3;  // measured seconds a prefill token
};

struct Slice {
  int32_t index = 0;
  int32_t tokens = 0;  // rows, the draft included
  int32_t draft = 0;
};

struct StepPlan {
  std::vector<Slice> slices;       // decode rows first
  std::vector<int32_t> preempted;  // to be put back before the slices run
};

// Decode rows first, the rest of the budget to prefills in order of urgency. When pages run out, the lowest priority
// that arrived last gives way.
StepPlan plan_step(const StepView& view);

// Priority first. Then the highest ratio of (wait + service) to service: short work goes first, and what has waited
// long in relation to its size is overtaken no more. Ties by arrival.
bool more_urgent(const SequenceView& a, const SequenceView& b, double token_s);
// Of one priority, what had begun and was preempted goes on first, as it came.
std::vector<int32_t> order_waiting(std::span<const SequenceView> waiting, double token_s);

// Who gives way first: lowest priority, then latest arrival.
bool gives_way_before(const SequenceView& a, const SequenceView& b);

// The running sequences of lower priority to preempt so that a waiting one of this priority gets `slots` and `pages`.
// Empty when that cannot be had.
std::vector<int32_t> choose_victims(std::span<const SequenceView> running, Priority priority, int slots, int pages);

}  // namespace spillway::engine
