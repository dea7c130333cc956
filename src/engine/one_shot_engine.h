// OneShotEngine: one one-shot model and its dynamic batch scheduler behind a thread. Any thread may call the public
// functions; the model and the scheduler's state belong to the engine's thread alone. Where several engines share a
// device they take turns by a DeviceShare.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/result.h"
#include "engine/engine.h"
#include "models/one_shot_model.h"

namespace spillway::engine {

// One input and where its answer goes. Values; moved into the engine.
struct OneShotRequest {
  std::vector<int32_t> tokens;
  std::vector<int32_t> types;
  std::vector<float> pixels;
  models::OneShotOutput output = models::OneShotOutput::kEmbedding;
  Priority priority = Priority::kNormal;
  TimePoint deadline = TimePoint::max();
};

// How an accepted request ended.
struct OneShotAnswer {
  enum class Outcome { kDone, kDeadline, kCancelled, kFailed };
  Outcome outcome = Outcome::kDone;
  std::vector<float> values;  // as OneShotModel::run says
  std::string message;        // of kFailed
  double queue_s = 0;         // waited
  double compute_s = 0;       // of the batch it was in
  int batch_inputs = 0;       // of that batch
};

// Called exactly once for an accepted request, from the engine's thread: it must not block.
using OneShotDone = std::function<void(OneShotAnswer)>;

using OneShotId = uint64_t;

struct OneShotState {
  int waiting = 0;
  int64_t waiting_cost = 0;
  bool busy = false;
  double cost_per_s = 0;        // measured service rate
  double predicted_wait_s = 0;  // of a request that arrived now
  double seconds_since_progress = 0;
  bool draining = false;
  bool stalled = false;
};

class OneShotEngine {
 public:
  virtual ~OneShotEngine() = default;  // cancels what waits and joins the thread

  // nullopt: accepted, and done is called exactly once; otherwise refused at once and done is not called. All requests
  // of one call are accepted or refused together: a batch of texts is one client's request.
  virtual std::optional<Refusal> submit(std::vector<OneShotRequest> requests, std::vector<OneShotDone> done,
                                        OneShotId& first_id) = 0;

  // Of ids [first, first + count): those still waiting end with kCancelled.
  virtual void cancel(OneShotId first, size_t count) = 0;

  virtual void set_queue_bounds(const QueueBounds& bounds) = 0;
  virtual OneShotState state() const = 0;  // never waits for a batch
  virtual const models::OneShotModel& model() const = 0;

  // Refuses new requests from now on; returns when the accepted ones have ended, or false at the deadline.
  virtual bool drain(TimePoint deadline) = 0;
};

}  // namespace spillway::engine
