#include "engine/batching/one_shot_admission.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "engine/refusal.h"

namespace spillway::engine {
namespace {

using Reason = Refusal::Reason;

const char* name_of(models::OneShotOutput output) {
  switch (output) {
    case models::OneShotOutput::kEmbedding:
      return "embeddings";
    case models::OneShotOutput::kTokenVectors:
      return "token vectors";
    case models::OneShotOutput::kScores:
      return "scores";
    case models::OneShotOutput::kSparse:
      return "sparse vectors";
    case models::OneShotOutput::kPooled:
      return "pooled vectors";
  }
  return "unknown";
}

std::optional<Refusal> check_image(const OneShotRequest& request, const models::OneShotInfo& info) {
  const int64_t expected = int64_t{info.channels} * info.height * info.width;
  const auto found = static_cast<int64_t>(request.pixels.size());
  if (found == expected && request.tokens.empty()) return std::nullopt;
  return refuse(
      Reason::kInvalid, found, expected,
      fmt::format("expected {} x {} x {} pixel values, found {}", info.channels, info.height, info.width, found));
}

std::optional<Refusal> check_text(const OneShotRequest& request, const models::OneShotInfo& info, int64_t cost_max) {
  const auto size = static_cast<int64_t>(request.tokens.size());
  if (size == 0 || !request.pixels.empty()) {
    return refuse(Reason::kInvalid, 0, 1, "expected at least one token, found none");
  }
  const int64_t longest = std::min<int64_t>(info.tokens_max, cost_max);
  if (size > longest) {
    return refuse(Reason::kTooLong, size, longest,
                  fmt::format("the input has {} tokens, of at most {}", size, longest));
  }
  if (!request.types.empty() && request.types.size() != request.tokens.size()) {
    return refuse(Reason::kInvalid, static_cast<int64_t>(request.types.size()), size,
                  fmt::format("expected a type for each of {} tokens, found {}", size, request.types.size()));
  }
  for (const int32_t token : request.tokens) {
    if (token >= 0 && token < info.vocab_size) continue;
    return refuse(Reason::kInvalid, token, info.vocab_size,
                  fmt::format("expected token ids from 0 to {}, found {}", info.vocab_size - 1, token));
  }
  const int types = std::max(1, info.type_vocab_size);
  for (const int32_t type : request.types) {
    if (type >= 0 && (type < types || info.type_vocab_size <= 1)) continue;
    return refuse(Reason::kInvalid, type, types,
                  fmt::format("expected token types from 0 to {}, found {}", types - 1, type));
  }
  return std::nullopt;
}

double cost_ahead(const OneShotLoad& load, Priority priority) {
  double ahead = 0;
  for (size_t at = static_cast<size_t>(static_cast<int>(priority) + 1); at < load.cost.size(); ++at) {
    ahead += static_cast<double>(load.cost[at]);
  }
  return ahead;
}

}  // namespace

int64_t cost_of(const OneShotRequest& request) {
  return request.pixels.empty() ? static_cast<int64_t>(request.tokens.size()) : 1;
}

double predicted_wait_s(const OneShotLoad& load, Priority priority) {
  const double ahead = cost_ahead(load, priority);
  return load.batch_left_s + std::floor(ahead / std::max(1.0, load.batch_cost)) * load.batch_s;
}

double predicted_answer_s(const OneShotLoad& load, Priority priority, int64_t cost) {
  const double full = std::max(1.0, load.batch_cost);
  const double share = (std::fmod(cost_ahead(load, priority), full) + static_cast<double>(cost)) / full;
  return predicted_wait_s(load, priority) + std::max(load.base_s, std::min(1.0, share) * load.batch_s);
}

std::optional<Refusal> check_inputs(std::span<const OneShotRequest> requests, const models::OneShotModel& model,
                                    const QueueBounds& bounds) {
  const models::OneShotInfo& info = model.info();
  if (requests.empty()) return refuse(Reason::kInvalid, 0, 1, "expected at least one input, found none");
  const auto count = static_cast<int64_t>(requests.size());
  const int64_t most = std::max<int64_t>(bounds.requests_max, kInputsAtOnce);
  if (count > most) {
    return refuse(Reason::kTooLong, count, most, fmt::format("{} inputs in one request, of at most {}", count, most));
  }
  int64_t cost = 0;
  for (const OneShotRequest& request : requests) {
    if (std::ranges::find(info.outputs, request.output) == info.outputs.end()) {
      return refuse(Reason::kInvalid, 0, 0,
                    fmt::format("the model ({}) gives no {}", info.architecture, name_of(request.output)));
    }
    auto wrong = info.vision ? check_image(request, info) : check_text(request, info, model.batch_cost_max());
    if (wrong) return wrong;
    cost += cost_of(request);
  }
  if (cost > bounds.tokens_max) {
    return refuse(Reason::kTooLong, cost, bounds.tokens_max,
                  fmt::format("{} tokens in one request, of at most {}", cost, bounds.tokens_max));
  }
  return std::nullopt;
}

std::optional<Refusal> check_load(std::span<const OneShotRequest> requests, const OneShotLoad& load,
                                  const OneShotEngineOptions& options, TimePoint now) {
  const auto count = static_cast<int64_t>(requests.size());
  int64_t cost = 0;
  TimePoint deadline = TimePoint::max();
  std::array<int64_t, 3> joining{};
  for (const OneShotRequest& request : requests) {
    cost += cost_of(request);
    deadline = std::min(deadline, request.deadline);
    ++joining[static_cast<size_t>(static_cast<int>(request.priority) + 1)];
  }
  const double wait_s = predicted_wait_s(load, requests.front().priority);
  const double input_s = load.batch_s > 0 ? static_cast<double>(cost) / load.cost_per_s() : 0.1;
  if (load.draining) return busy(Reason::kDraining, 5, wait_s, 0, 0, "the model is being unloaded");
  if (load.seconds_since_progress > options.stall_s) {
    return busy(Reason::kStalled, options.stall_s, wait_s, std::llround(load.seconds_since_progress),
                std::llround(options.stall_s),
                fmt::format("the model has made no progress for {:.0f} s", load.seconds_since_progress));
  }
  const auto full = [&](int64_t found, int64_t limit) {
    return busy(Reason::kQueueRequests, std::max(input_s, wait_s / 2), wait_s, found, limit,
                fmt::format("{} inputs would wait, of at most {}", found, limit));
  };
  // A request that finds nobody waiting is taken however many inputs it has, so that a client's batch may be larger
  // than the queue.
  const int64_t inputs = load.waiting_all() + count;
  if (inputs > options.queue.requests_max && load.waiting_all() > 0) return full(inputs, options.queue.requests_max);
  for (size_t at = 0; at < joining.size(); ++at) {
    const int64_t bound = options.policies[at].requests_max, found = load.waiting[at] + joining[at];
    if (joining[at] > 0 && bound > 0 && found > bound) return full(found, bound);
  }
  if (const int64_t would = load.cost_all() + cost; would > options.queue.tokens_max) {
    return busy(Reason::kQueueTokens, std::max(input_s, wait_s / 2), wait_s, would, options.queue.tokens_max,
                fmt::format("{} tokens would wait, of at most {}", would, options.queue.tokens_max));
  }
  if (wait_s > options.queue.wait_max_s) {
    return busy(Reason::kPredictedWait, wait_s - options.queue.wait_max_s, wait_s, std::llround(wait_s),
                std::llround(options.queue.wait_max_s),
                fmt::format("the predicted wait is {:.3f} s, of at most {:.3f} s", wait_s, options.queue.wait_max_s));
  }
  if (deadline != TimePoint::max()) {
    const double left_s = seconds(deadline - now);
    const double end_s = predicted_answer_s(load, requests.front().priority, cost) + load.margin_s;
    // An idle model tries whatever is left: a prediction that was never right would else never be corrected.
    if (left_s <= 0 || (end_s > left_s && !load.idle())) {
      return busy(Reason::kDeadline, std::max(input_s, end_s - left_s), wait_s, std::llround(end_s),
                  std::llround(left_s),
                  fmt::format("the answer is predicted in {:.3f} s, after the deadline in {:.3f} s", end_s, left_s));
    }
  }
  return std::nullopt;
}

}  // namespace spillway::engine
