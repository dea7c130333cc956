#include "engine/admission.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "engine/core.h"
#include "engine/refusal.h"

namespace spillway::engine {
namespace {

using Reason = Refusal::Reason;

// Seconds of prefill work when each of its steps has so many decode rows beside it.
double prefill_s_beside(const Load& load, const Limits& limits, double tokens, int decode_rows) {
  if (!load.cost.measured || tokens <= 0) return 0;
  const double steps = std::ceil(tokens / std::max(1, limits.batch_tokens - decode_rows));
  const double rows = steps * decode_rows;
  return load.cost.step_s(rows, tokens) + (steps - 1) * load.cost.base_s + load.draft_row_s * (rows + tokens);
}

// The same beside the decoding sequences of now. Where those fill the steps, prefill goes on as fast as they end and
// make room for `requests`.
double prefill_s(const Load& load, const Limits& limits, double tokens, int requests) {
  const double beside = prefill_s_beside(load, limits, tokens, load.decode_rows);
  if (load.completions_per_s <= 0) return beside;
  const double alone = prefill_s_beside(load, limits, tokens, 0);
  return std::clamp(requests / load.completions_per_s, std::min(alone, beside), beside);
}

}  // namespace

void Queued::add(const Queued& other) {
  for (size_t i = 0; i < requests.size(); ++i) {
    requests[i] += other.requests[i];
    tokens[i] += other.tokens[i];
  }
}

int Queued::requests_from(Priority priority) const {
  int sum = 0;
  for (size_t i = static_cast<int>(priority) + 1; i < requests.size(); ++i) sum += requests[i];
  return sum;
}

int64_t Queued::tokens_from(Priority priority) const {
  int64_t sum = 0;
  for (size_t i = static_cast<int>(priority) + 1; i < tokens.size(); ++i) sum += tokens[i];
  return sum;
}

double predicted_wait_s(const Load& load, const EngineOptions& options, const Limits& limits, Priority priority) {
  const double prefill =
      prefill_s(load, limits, static_cast<double>(load.waiting.tokens_from(priority) + load.prefill_tokens),
                load.waiting.requests_from(priority) + load.prefilling);
  // Places come free as requests end.
  const int slots = load.blocked ? 0 : std::max(0, options.sequences_max - load.running);
  const int excess = load.waiting.requests_from(priority) + 1 - slots;
  const double places = excess > 0 && load.completions_per_s > 0 ? excess / load.completions_per_s : 0;
  return std::max(prefill, places);
}

std::optional<Refusal> check_request(const Request& request, const Limits& limits) {
  const auto size = static_cast<int64_t>(request.prompt.size());
  if (request.prompt.empty()) return refuse(Reason::kInvalid, 0, 1, "expected at least one prompt token, found none");
  if (request.max_tokens <= 0 && !request.prompt_logprobs) {
    return refuse(Reason::kInvalid, request.max_tokens, 1,
                  fmt::format("expected max_tokens of at least 1, found {}", request.max_tokens));
  }
  const int64_t longest = limits.context_tokens - (request.max_tokens > 0 ? 1 : 0);
  if (size > longest) {
    return refuse(Reason::kTooLong, size, longest,
                  fmt::format("the prompt has {} tokens; the context of {} tokens has room for {}", size,
                              limits.context_tokens, longest));
  }
  for (const int32_t token : request.prompt) {
    if (token < 0 || token >= limits.vocab) {
      return refuse(Reason::kInvalid, token, limits.vocab,
                    fmt::format("expected token ids from 0 to {}, found {}", limits.vocab - 1, token));
    }
  }
  const SamplingParams& sampling = request.sampling;
  const bool sane = sampling.temperature >= 0 && std::isfinite(sampling.temperature) && sampling.top_p > 0 &&
                    sampling.top_p <= 1 && sampling.top_k >= 0 && sampling.min_p >= 0 && sampling.min_p < 1 &&
                    sampling.repetition_penalty > 0 && std::isfinite(sampling.frequency_penalty) &&
                    std::isfinite(sampling.presence_penalty);
  if (!sane) return refuse(Reason::kInvalid, 0, 0, "a sampling parameter is outside its range");
  return std::nullopt;
}

std::optional<Refusal> check_load(const Request& request, const Load& load, const EngineOptions& options,
                                  const Limits& limits, TimePoint now) {
  const double wait_s = predicted_wait_s(load, options, limits, request.priority);
  if (load.draining) return busy(Reason::kDraining, 5, wait_s, 0, 0, "the server is shutting down");
  if (load.seconds_since_progress > options.stall_s) {
    return busy(Reason::kStalled, options.stall_s, wait_s, std::llround(load.seconds_since_progress),
                std::llround(options.stall_s),
                fmt::format("the engine has made no progress for {:.0f} s", load.seconds_since_progress));
  }
  const int64_t requests = load.waiting.requests_from(Priority::kLow);
  const double place_s = load.completions_per_s > 0 ? 1 / load.completions_per_s : 1;
  if (requests >= options.queue_requests_max) {
    return busy(Reason::kQueueRequests, std::max(place_s, wait_s / 2), wait_s, requests, options.queue_requests_max,
                fmt::format("{} requests wait already, of at most {}", requests, options.queue_requests_max));
  }
  const int64_t tokens = load.waiting.tokens_from(Priority::kLow) + static_cast<int64_t>(request.prompt.size());
  if (tokens > options.queue_tokens_max) {
    return busy(Reason::kQueueTokens, std::max(place_s, prefill_s(load, limits, tokens - options.queue_tokens_max, 1)),
                wait_s, tokens, options.queue_tokens_max,
                fmt::format("{} prompt tokens would wait, of at most {}", tokens, options.queue_tokens_max));
  }
  if (wait_s > options.queue_wait_max_s) {
    return busy(Reason::kPredictedWait, wait_s - options.queue_wait_max_s, wait_s, std::llround(wait_s),
                std::llround(options.queue_wait_max_s),
                fmt::format("the predicted wait is {:.1f} s, of at most {:.1f} s", wait_s, options.queue_wait_max_s));
  }
  if (request.deadline != TimePoint::max()) {
    const double left_s = seconds(request.deadline - now);
    const double first_token_s = wait_s + prefill_s(load, limits, static_cast<double>(request.prompt.size()), 1);
    if (left_s <= 0 || first_token_s > left_s) {
      return busy(Reason::kDeadline, std::max(place_s, first_token_s - left_s), wait_s, std::llround(first_token_s),
                  std::llround(left_s),
                  fmt::format("the first token is predicted in {:.2f} s, after the deadline in {:.2f} s", first_token_s,
                              left_s));
    }
  }
  return std::nullopt;
}

Load load_of(const Core& core) {
  const State& state = core.state();
  Load load;
  load.running = static_cast<int>(state.running.size());
  for (const auto& sequence : state.running) {
    const auto remaining = static_cast<int64_t>(sequence->tokens.size()) - sequence->computed;
    if (remaining > 1) {
      load.prefill_tokens += remaining;
      ++load.prefilling;
    } else if (remaining == 1) {
      load.decode_rows += sequence->draft >= 0 ? 2 : 1;
    }
  }
  for (const auto& sequence : state.waiting) {
    load.waiting.add(sequence->request->priority, static_cast<int64_t>(sequence->tokens.size()));
  }
  load.blocked = state.blocked;
  load.cost = state.costs.cost();
  load.draft_row_s = state.draft_row_s;
  if (core.completions().measured()) load.completions_per_s = core.completions().per_s();
  return load;
}

}  // namespace spillway::engine
