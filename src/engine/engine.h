// Engine: one model, its pages and its scheduler behind a thread. Requests go in by submit(), events come out of each
// request's sink. Any thread may call the public functions; the state belongs to the engine's thread alone.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "base/clock.h"
#include "base/result.h"
#include "engine/request.h"
#include "tensor/device.h"

namespace spillway::models {
class LanguageModel;
}

namespace spillway::engine {

struct LiveView;

struct EngineOptions {
  int64_t kv_cache_bytes = 0;  // 0: what the model's context needs for sequences_max, bounded by free memory
  // On a GPU: bytes of its memory that stay free. The cache is then measured out when all else is there, of at most
  // kv_cache_bytes. -1: kv_cache_bytes as they are.
  int64_t device_bytes_kept = -1;
  bool kv_populate = false;  // make the cache resident at once (CPU)
  int page_tokens = 16;
  int sequences_max = 256;        // running at once
  int batch_tokens_max = 512;     // token budget of a step (chunked prefill)
  int queue_requests_max = 1024;  // bounds of the waiting queue
  int64_t queue_tokens_max = 1 << 20;
  double queue_wait_max_s = 60;  // refuse what is predicted to wait longer
  bool prefix_cache = true;
  bool speculate = true;
  bool speculate_adaptively = true;  // stop drafting where the measured cost says that it loses
  tensor::Device device;             // the model's
  bool autotune = false;             // measure a GPU's library for this model's shapes, and keep what was learned
  std::string tuning_folder;         // where; empty: neither kept nor read
  bool deterministic = false;        // a request's tokens do not depend on its neighbours, on a GPU as on a CPU
  int threads = 0;                   // 0: one a physical core
  int vocab_limit = 0;               // tokens the tokenizer knows; the rest of the head is never drawn. 0: all
  double step_target_s = 0.25;       // prefill shares a step with decoding rows for about this long
  double stall_s = 8;                // a step without end for this long: refuse (kStalled), not ready
};

// The bounds of the waiting queue, which may change while the engine runs.
struct QueueBounds {
  int requests_max = 1024;
  int64_t tokens_max = 1 << 20;
  double wait_max_s = 60;
};

// Why a request was refused, and when to come back.
struct Refusal {
  enum class Reason {
    kQueueRequests,
    kQueueTokens,
    kPredictedWait,
    kDeadline,
    kDraining,
    kStalled,
    kTooLong,  // will never fit: do not retry
    kInvalid,  // ids outside the vocabulary, an empty prompt, an id in use, ...: do not retry
  };

  Reason reason = Reason::kInvalid;
  double retry_after_s = 1;  // from the measured service rate
  double predicted_wait_s = 0;
  int64_t found = 0;  // the figure that broke the bound, and the bound: tokens, requests or seconds
  int64_t limit = 0;
  std::string message;  // one sentence, with both
};

const char* name_of(Refusal::Reason reason);  // "queue_requests", ...: the label of the metric

// A consistent snapshot for /health, /metrics and admission.
struct EngineState {
  int running = 0;
  int waiting = 0;
  int64_t waiting_tokens = 0;
  int pages_total = 0;
  int pages_free = 0;                 // not referenced by any sequence nor the prefix cache
  int pages_cached = 0;               // held by the prefix cache alone: reclaimable
  int64_t tokens_cached = 0;          // that those pages hold
  double tokens_per_s = 0;            // measured service rate, decode and prefill weighted by cost
  double predicted_wait_s = 0;        // of a request that arrived now
  double seconds_since_progress = 0;  // with work to do; 0 when idle
  bool draining = false;
  bool stalled = false;         // seconds_since_progress is past EngineOptions::stall_s
  double draft_acceptance = 0;  // drafts kept of those proposed, recently
};

class Engine {
 public:
  static Result<std::unique_ptr<Engine>> start(std::unique_ptr<models::LanguageModel> model, EngineOptions options);
  virtual ~Engine() = default;  // cancels what runs and joins the thread

  // nullopt: accepted, and the sink will get a finish; otherwise refused at once and the sink hears nothing. The sink
  // must outlive its request's last event.
  virtual std::optional<Refusal> submit(std::unique_ptr<Request> request, std::shared_ptr<EventSink> sink) = 0;

  // The request ends with kCancelled unless it has ended before. Its pages are free within a step.
  virtual void cancel(RequestId id) = 0;

  // For requests from now on; those that wait already stay.
  virtual void set_queue_bounds(const QueueBounds& bounds) = 0;

  virtual EngineState state() const = 0;  // never waits for a step
  // Every stream and page, for the console; as of the last step, made only while somebody asks. Null: none yet.
  virtual std::shared_ptr<const LiveView> live_view() { return nullptr; }
  virtual const models::LanguageModel& model() const = 0;

  // Refuses new requests from now on; returns when the accepted ones have ended, or false at the deadline.
  virtual bool drain(TimePoint deadline) = 0;
};

}  // namespace spillway::engine
