// Core: the engine without its thread: one state, and a step as an ordered list of actions over it. Deterministic given
// the clock and the model; the engine's thread drives it in service, a simulator in tests.
#pragma once

#include "engine/live_view.h"
#include "engine/state.h"

namespace spillway::engine {

class Core {
 public:
  Core(const EngineOptions& options, const Limits& limits, Runner& runner, const Clock& clock)
      : state_(options, limits, runner.pages(), runner, clock) {}

  void submit(std::unique_ptr<Sequence> sequence);
  void cancel(RequestId id);  // ends with the next step; unknown ids are ignored
  void cancel_all();

  // Land, expire, admit, compute; then what was learned from it.
  void step();

  bool idle() const { return state_.waiting.empty() && state_.running.empty(); }
  const State& state() const { return state_; }
  void remember(const StepCost& cost) { state_.costs.remember(cost); }  // of an earlier start
  void set_on_end(std::function<void(RequestId)> on_end) { state_.on_end = std::move(on_end); }
  // Requests that ended, per second of stepping.
  const Rate& completions() const { return completions_; }
  const Rate& tokens() const { return tokens_; }

  // The last step that computed something, and what recent ones were like.
  const LiveStep& last_step() const { return last_step_; }
  struct Recent {
    double step_s = 0;
    double rows = 0;
  };
  const Recent& recent() const { return recent_; }

  // Every page accounted for.
  Status check() const;

 private:
  void remember(double step_s);

  State state_;
  Rate completions_;
  Rate tokens_;
  LiveStep last_step_;
  Recent recent_;
};

}  // namespace spillway::engine
