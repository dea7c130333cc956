#include "server/admission.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <cmath>

namespace spillway::server {
namespace {

using api::ErrorKind;
using Reason = engine::Refusal::Reason;

// A second at least: a client that comes back sooner finds the same queue.
double retry_after(double seconds) { return std::clamp(seconds, 1.0, 600.0); }

// The engine's reasons are clauses; clients are shown sentences.
std::string sentence(std::string text) {
  if (text.empty()) return text;
  text.front() = char(std::toupper(uint8_t(text.front())));
  return text.ends_with('.') ? text : text + ".";
}

Refused busy(const char* reason, const std::string& why, double retry_after_s, double predicted_wait_s) {
  const double retry = retry_after(retry_after_s);
  return {
      {ErrorKind::kRateLimit,
       fmt::format("{} The predicted wait is {:.1f} s; retry after {:.0f} s.", why, predicted_wait_s, std::ceil(retry)),
       "", reason},
      retry,
      predicted_wait_s,
      reason};
}

Refused unavailable(const char* reason, const char* why, double retry_after_s) {
  return {{ErrorKind::kOverloaded, why, "", reason}, retry_after(retry_after_s), 0, reason};
}

Refused hopeless(const char* reason, const char* code, const std::string& why) {
  return {{ErrorKind::kInvalidFormat, why, "", code}, 0, 0, reason};
}

}  // namespace

Refused refused(const engine::Refusal& refusal) {
  const double retry = refusal.retry_after_s, wait = refusal.predicted_wait_s;
  const std::string why = sentence(refusal.message);
  switch (refusal.reason) {
    case Reason::kQueueRequests:
      return busy("queue_requests", why, retry, wait);
    case Reason::kQueueTokens:
      return busy("queue_tokens", why, retry, wait);
    case Reason::kPredictedWait:
      return busy("predicted_wait", why, retry, wait);
    case Reason::kDeadline:
      return busy("deadline", why, retry, wait);
    case Reason::kDraining:
      return unavailable("draining", "The server is shutting down.", retry);
    case Reason::kStalled:
      return unavailable("stalled", "The engine makes no progress.", retry);
    case Reason::kTooLong:
      return hopeless("too_long", "context_length_exceeded", why);
    case Reason::kInvalid:
      break;
  }
  return hopeless("invalid", "", why);
}

std::optional<Refused> refused_by_state(const engine::EngineState& state, const AdmissionBounds& bounds) {
  if (state.draining) return unavailable("draining", "The server is shutting down.", 1);
  if (state.stalled || state.seconds_since_progress >= bounds.stall_s)
    return unavailable("stalled", "The engine makes no progress.", 1);
  const double wait = state.predicted_wait_s;
  if (state.waiting >= bounds.queue_requests_max && state.waiting > 0) {
    return busy("queue_requests", "Too many requests are waiting.", wait, wait);
  }
  if (state.waiting_tokens >= bounds.queue_tokens_max && state.waiting > 0) {
    return busy("queue_tokens", "The waiting requests hold too many tokens.", wait, wait);
  }
  if (wait > bounds.queue_wait_max_s) {
    return busy("predicted_wait", "The request would wait too long.", wait - bounds.queue_wait_max_s, wait);
  }
  return std::nullopt;
}

}  // namespace spillway::server
