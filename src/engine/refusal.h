// Refusals as both kinds of engine make them. Values; any thread.
#pragma once

#include <algorithm>
#include <string>
#include <utility>

#include "engine/engine.h"

namespace spillway::engine {

// One that will never fit: not worth asking again.
inline Refusal refuse(Refusal::Reason reason, int64_t found, int64_t limit, std::string message) {
  Refusal refusal;
  refusal.reason = reason;
  refusal.retry_after_s = 0;
  refusal.found = found;
  refusal.limit = limit;
  refusal.message = std::move(message);
  return refusal;
}

// One that may come back after retry_after_s (kept within 0.1 to 600 s).
inline Refusal busy(Refusal::Reason reason, double retry_after_s, double wait_s, int64_t found, int64_t limit,
                    std::string message) {
  Refusal refusal = refuse(reason, found, limit, std::move(message));
  refusal.retry_after_s = std::clamp(retry_after_s, 0.1, 600.0);
  refusal.predicted_wait_s = wait_s;
  return refusal;
}

}  // namespace spillway::engine
