// Whether inputs may join a one-shot engine's line. Pure functions of the options, the model and a snapshot of the
// load. Any thread.
#pragma once

#include <optional>
#include <span>

#include "engine/one_shot_engine.h"

namespace spillway::engine {

// A request of so many inputs is taken where nobody waits, however short the line; no protocol reads more of one
// (held to by server/one_shot/tasks.cc).
inline constexpr int64_t kInputsAtOnce = 4096;

// What is ahead of an input.
struct OneShotLoad {
  std::array<int, 3> waiting{};  // by priority (index: priority + 1)
  std::array<int64_t, 3> cost{};
  int running = 0;          // inputs in the batch under way
  double batch_left_s = 0;  // predicted, of the batch under way
  double batch_cost = 1;    // of a full batch, as inputs are now
  double batch_s = 0;       // that it takes, turns of other models included; 0: not measured yet
  double base_s = 0;        // that the smallest batch takes
  double margin_s = 0;      // by which answers have been later than predicted
  double seconds_since_progress = 0;
  bool draining = false;

  int waiting_all() const { return waiting[0] + waiting[1] + waiting[2]; }
  int64_t cost_all() const { return cost[0] + cost[1] + cost[2]; }
  bool idle() const { return running == 0 && waiting_all() == 0; }
  double cost_per_s() const { return batch_s > 0 ? batch_cost / batch_s : 0; }
};

// Seconds until an input of this priority is in a batch, as far as the measurements tell.
double predicted_wait_s(const OneShotLoad& load, Priority priority);

// Seconds until the answers to inputs of this cost, without the margin: the wait, and the batch that they are in with
// what is ahead of them there. What comes later and would make that batch longer than a deadline in it is kept out of
// it.
double predicted_answer_s(const OneShotLoad& load, Priority priority, int64_t cost);

// What no wait will change: kTooLong and kInvalid.
std::optional<Refusal> check_inputs(std::span<const OneShotRequest> requests, const models::OneShotModel& model,
                                    const QueueBounds& bounds);

std::optional<Refusal> check_load(std::span<const OneShotRequest> requests, const OneShotLoad& load,
                                  const OneShotEngineOptions& options, TimePoint now);

int64_t cost_of(const OneShotRequest& request);

}  // namespace spillway::engine
