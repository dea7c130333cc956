// EventQueue: the events of one completion on their way from the engine's thread to whoever answers the client. It
// holds one pending event a sequence at most (later ones are merged into it), so a slow reader costs no more memory
// than the tokens themselves, which max_tokens bounds, and the engine never waits. Shared by the engine and the
// completion.
#pragma once

#include <condition_variable>
#include <functional>
#include <iterator>
#include <mutex>
#include <utility>
#include <vector>

#include "engine/request.h"

namespace spillway::server {

class EventQueue final : public engine::EventSink {
 public:
  // notify: called on the engine's thread when events came to an empty queue; must return at once and
  // not touch the queue.
  explicit EventQueue(std::function<void()> notify) : notify_(std::move(notify)) {}

  void on_event(engine::Event event) override {
    std::lock_guard lock(mutex_);
    const bool was_empty = events_.empty();
    add(std::move(event));
    ready_.notify_one();
    if (was_empty && notify_) notify_();
  }

  // Nobody listens any more: notify is dropped, and not called again once this returns. The engine may hold the queue
  // for longer than what notify refers to.
  void detach() {
    std::lock_guard lock(mutex_);
    notify_ = nullptr;
  }

  std::vector<engine::Event> take() {
    std::lock_guard lock(mutex_);
    return std::exchange(events_, {});
  }

  // Waits until there is an event or the deadline. For programs without an event loop.
  void wait_until(TimePoint deadline) {
    std::unique_lock lock(mutex_);
    const auto ready = [&] { return !events_.empty(); };
    if (deadline == TimePoint::max()) return ready_.wait(lock, ready);
    ready_.wait_until(lock, deadline, ready);
  }

 private:
  void add(engine::Event event) {
    for (engine::Event& pending : events_) {
      if (pending.id != event.id) continue;
      pending.started |= event.started;
      std::move(event.tokens.begin(), event.tokens.end(), std::back_inserter(pending.tokens));
      std::move(event.prompt.begin(), event.prompt.end(), std::back_inserter(pending.prompt));
      pending.finish = event.finish;
      pending.usage = event.usage;
      return;
    }
    events_.push_back(std::move(event));
  }

  std::function<void()> notify_;
  std::mutex mutex_;
  std::condition_variable ready_;
  std::vector<engine::Event> events_;
};

}  // namespace spillway::server
