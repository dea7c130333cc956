// OneShotEngine: one one-shot model and its dynamic batch scheduler behind a thread. Any thread may call the public
// functions; the model and the scheduler's state belong to the engine's thread alone. Where several engines share a
// device they take turns by a DeviceShare.
#pragma once

#include <array>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/result.h"
#include "engine/engine.h"
#include "metrics/timeline.h"
#include "models/one_shot_model.h"
#include "tensor/device.h"

namespace spillway::engine {

class DeviceShare;

// How requests of one priority wait, as Triton's queue policies have it.
struct QueuePolicy {
  int requests_max = 0;          // waiting at this priority; 0: only the bound of the whole queue
  double timeout_s = 0;          // of a request that names no deadline; 0: none
  bool timeout_override = true;  // a request's own deadline counts; otherwise timeout_s alone
  bool reject = true;            // past its time a request ends with kDeadline; false: it goes behind the rest instead
};

struct OneShotEngineOptions {
  std::string name;  // of the model, a label of the metrics
  tensor::Device device;
  int threads = 0;  // 0: one a physical core

  QueueBounds queue;                    // tokens_max bounds the waiting cost
  std::array<QueuePolicy, 3> policies;  // index: priority + 1
  int64_t batch_cost_max = 0;           // of one batch; 0: the model's
  int batch_inputs_max = 0;             // 0: the model's
  double delay_max_s = 0.002;           // the longest that a batch is held back for more to come; 0: never
  double latency_target_s = 0;          // batches are kept small enough for it where throughput allows; 0: none
  double cooldown_s = 30;               // cap and delay change no more than once in this
  double warm_up_s = 1;                 // for sample batches before the first request; 0: none
  double stall_s = 8;                   // a batch without end for this long: refuse (kStalled), not ready

  std::shared_ptr<DeviceShare> share;  // with others on the device; null: alone
  double weight = 1;                   // of its share
};

// One input and where its answer goes. Values; moved into the engine.
struct OneShotRequest {
  std::vector<int32_t> tokens;
  std::vector<int32_t> types;
  std::vector<float> pixels;
  models::OneShotOutput output = models::OneShotOutput::kEmbedding;
  Priority priority = Priority::kNormal;
  TimePoint deadline = TimePoint::max();
  std::shared_ptr<metrics::Timeline> timeline;  // of the request that it is a part of, for exemplars; null: none
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

// Totals since the start, in the shape of KServe's and Triton's model statistics.
struct OneShotStatistics {
  struct Sum {
    uint64_t count = 0;
    double seconds = 0;
    void add(double more) {
      ++count;
      seconds += more;
    }
  };
  uint64_t inputs = 0;                 // answered
  uint64_t batches = 0;                // computed
  int64_t last_inference_ms = 0;       // since the epoch; 0: none yet
  Sum success, failure;                // from submission to the end
  Sum queue, compute;                  // of the successful
  std::map<int, Sum> compute_by_size;  // batches by their inputs
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
  virtual OneShotStatistics statistics() const = 0;
  virtual const models::OneShotModel& model() const = 0;

  // Refuses new requests from now on; returns when the accepted ones have ended, or false at the deadline.
  virtual bool drain(TimePoint deadline) = 0;
};

// Runs the warm-up batches, then accepts requests.
Result<std::unique_ptr<OneShotEngine>> start_one_shot_engine(std::unique_ptr<models::OneShotModel> model,
                                                             OneShotEngineOptions options);

}  // namespace spillway::engine
