// Intake: the door between submitters and the engine's thread: bounded queues of new requests and cancellations, and
// the snapshot that admission and /health read. One short lock; the engine never holds it while it computes.
#pragma once

#include <atomic>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <optional>
#include <unordered_set>
#include <vector>

#include "engine/admission.h"
#include "engine/core.h"

namespace spillway::engine {

class Intake {
 public:
  Intake(const EngineOptions& options, const Limits& limits, const Clock& clock);

  // Any thread.
  std::optional<Refusal> submit(std::unique_ptr<Request> request, std::shared_ptr<EventSink> sink);
  void cancel(RequestId id);
  void set_queue_bounds(const QueueBounds& bounds);  // any thread
  EngineState state() const;
  std::shared_ptr<const LiveView> live_view();  // asks for a new one and gives the last
  bool drain(TimePoint deadline);
  void stop();  // wakes the engine's thread for the last time

  struct Taken {
    std::vector<std::unique_ptr<Sequence>> sequences;
    std::vector<RequestId> cancelled;
    bool stopped = false;
  };
  // The engine's thread. wait: sleeps until there is something to take.
  Taken take(bool wait);
  // The request may be named anew.
  void forget(RequestId id);
  // What the step left; `ended` requests have had their last event.
  void publish(const Core& core);

 private:
  // With mutex_ held.
  Load load_now(TimePoint now) const;
  std::optional<Refusal> judge(const Request& request, TimePoint now) const;

  EngineOptions options_;  // its queue's bounds change, under mutex_
  const Limits limits_;
  const Clock& clock_;

  mutable std::mutex mutex_;
  std::condition_variable work_;
  std::condition_variable drained_;
  std::atomic<bool> view_wanted_{false};
  bool view_shows_work_ = true;           // the engine's thread: make one more when the work is done
  std::shared_ptr<const LiveView> view_;  // under mutex_
  std::vector<std::unique_ptr<Sequence>> inbox_;
  Queued inbox_load_;
  std::vector<RequestId> cancelled_;
  std::unordered_set<RequestId> live_;        // accepted, last event not yet sent
  std::unordered_set<RequestId> cancelling_;  // of them, asked to end
  int unsettled_ = 0;                         // accepted, and the engine has not said that they ended
  Load load_;                                 // as of the last step
  EngineState state_;
  TimePoint progress_;  // end of the last step, or since when there is work
  bool draining_ = false;
  bool stopped_ = false;
};

}  // namespace spillway::engine
