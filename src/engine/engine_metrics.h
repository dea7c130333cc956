// The engine's metrics, recorded where things happen. Engine's thread, except record_refusal.
#pragma once

#include <span>

#include "base/clock.h"
#include "engine/engine.h"
#include "engine/request.h"

namespace spillway::engine {

struct Sequence;
struct State;
struct Work;

void record_refusal(Refusal::Reason reason);
void record_admission(const Sequence& sequence, int cached_tokens, TimePoint now);
void record_preemption(const Sequence& sequence, TimePoint now);
void record_chunk(const Sequence& sequence, int tokens, TimePoint now);  // of a prefill, computed
void record_tokens(const Sequence& sequence, int tokens, TimePoint now);
void record_drafts(int proposed, int accepted);
void record_finish(const Sequence& sequence, FinishReason reason, TimePoint now);
// The device was idle for so long before a step of these works; of decoding ones alone: they were there all the while.
void record_idle(State& state, std::span<const Work> works, double idle_s);
void record_step(const State& state, double step_s);

}  // namespace spillway::engine
