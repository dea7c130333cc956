// Admission as clients see it: an engine's refusal, or a full queue seen before any work was done, as an answer that
// says why and when to come back. Pure functions; any thread. Not its job: the decision itself, which is the engine's.
#pragma once

#include <optional>

#include "engine/engine.h"
#include "server/completion.h"

namespace spillway::server {

// The engine's bounds, so that a hopeless request is refused before it is parsed; the engine's own check still follows.
struct AdmissionBounds {
  int queue_requests_max = 1024;
  int64_t queue_tokens_max = 1 << 20;
  double queue_wait_max_s = 60;
  double stall_s = 8;  // as server.stall_timeout
};

Refused refused(const engine::Refusal& refusal);

// What the state alone already refuses; nothing when a request may be tried.
std::optional<Refused> refused_by_state(const engine::EngineState& state, const AdmissionBounds& bounds);

}  // namespace spillway::server
