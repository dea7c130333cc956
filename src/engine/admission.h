// Admission: whether a request may join the queue, from bounds and the measured service rate. Pure functions of a Load,
// a copy of what the engine published after its last step plus what has come in since. Any thread.
#pragma once

#include <array>
#include <cstdint>
#include <optional>

#include "engine/cost_model.h"
#include "engine/engine.h"
#include "engine/state.h"

namespace spillway::engine {

// What is ahead of a request, by priority (index: priority + 1).
struct Queued {
  std::array<int, 3> requests{};
  std::array<int64_t, 3> tokens{};

  void add(Priority priority, int64_t tokens_in) {
    ++requests[static_cast<int>(priority) + 1];
    tokens[static_cast<int>(priority) + 1] += tokens_in;
  }
  void add(const Queued& other);
  int requests_from(Priority priority) const;  // of this priority and above
  int64_t tokens_from(Priority priority) const;
};

struct Load {
  Queued waiting;
  int running = 0;
  int decode_rows = 0;         // that the next step's decoding sequences take, drafts included
  int prefilling = 0;          // running sequences that have no token yet
  int64_t prefill_tokens = 0;  // that those still have to compute
  bool blocked = false;        // slots or pages are the bottleneck
  StepCost cost;
  double draft_row_s = 0;        // of the draft layer, which runs over every row; 0: there is none
  double completions_per_s = 0;  // 0: not measured yet
  double seconds_since_progress = 0;
  bool draining = false;
};

class Core;

// Of the engine after a step; without what has come in since.
Load load_of(const Core& core);

// Seconds until the prefill of a request of this priority would begin, as far as the measurements tell.
double predicted_wait_s(const Load& load, const EngineOptions& options, const Limits& limits, Priority priority);

// Bounds that no wait will change: kTooLong and kInvalid.
std::optional<Refusal> check_request(const Request& request, const Limits& limits);

std::optional<Refusal> check_load(const Request& request, const Load& load, const EngineOptions& options,
                                  const Limits& limits, TimePoint now);

}  // namespace spillway::engine
