// Signal and Channel: how a coroutine awaits what another thread posts. Many producers on any thread, one consumer
// coroutine on the executor given. Owned by shared_ptr by both sides.
#pragma once

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>
#include <deque>
#include <memory>
#include <mutex>
#include <optional>
#include <utility>

#include "base/clock.h"
#include "net/wait_point.h"
#include "net/wakes.h"

namespace spillway::net {

namespace asio = boost::asio;

// A binary event. Notifications before a wait, and several of them, are one. A producer may keep it after the consumer,
// its executor and the io_context are gone.
class Signal : public std::enable_shared_from_this<Signal> {
 public:
  explicit Signal(asio::any_io_executor executor) : executor_(executor), point_(std::move(executor)) {
    // Any other kind of executor orders its handlers itself.
    if (const auto* context = executor_.target<asio::io_context::executor_type>()) wakes_ = Wakes::of(*context);
  }

  void notify() {
    std::lock_guard lock(mutex_);
    if (std::exchange(set_, true) || !waiting_) return;
    // A consumer waits, so its io_context lives: it cannot leave while the lock is held.
    if (wakes_) return wakes_->add(shared_from_this());
    asio::post(executor_, [self = shared_from_this()] { self->resume(); });
  }

  // Consumer only. True when notified, false at the deadline.
  asio::awaitable<bool> wait_until(TimePoint deadline) {
    Waiter waiter(*this);
    while (!waiter.take()) {
      if (std::chrono::steady_clock::now() >= deadline) co_return false;
      co_await point_.wait_until(deadline);
    }
    co_return true;
  }

 private:
  friend class Wakes;

  void resume() { point_.wake(); }

  // Lives in the waiting coroutine; leaves the signal when that is destroyed half-way, too.
  struct Waiter {
    explicit Waiter(Signal& waited) : signal(waited.shared_from_this()) {}
    ~Waiter() {
      std::lock_guard lock(signal->mutex_);
      signal->waiting_ = false;
    }
    bool take() {
      std::lock_guard lock(signal->mutex_);
      signal->waiting_ = true;
      return std::exchange(signal->set_, false);
    }
    std::shared_ptr<Signal> signal;
  };

  const asio::any_io_executor executor_;
  std::shared_ptr<Wakes> wakes_;
  WaitPoint point_;
  std::mutex mutex_;
  bool set_ = false;
  bool waiting_ = false;
};

template <class T>
class Channel {
 public:
  Channel(asio::any_io_executor executor, size_t capacity)
      : capacity_(capacity), signal_(std::make_shared<Signal>(std::move(executor))) {}

  // Any thread, never waits. False when full or closed; the value is then left as it was.
  bool push(T&& value) {
    {
      std::lock_guard lock(mutex_);
      if (closed_ || items_.size() >= capacity_) return false;
      items_.push_back(std::move(value));
    }
    signal_->notify();
    return true;
  }

  // No more values; those inside can still be taken. Any thread.
  void close() {
    {
      std::lock_guard lock(mutex_);
      closed_ = true;
    }
    signal_->notify();
  }

  bool closed() const {
    std::lock_guard lock(mutex_);
    return closed_;
  }

  // Consumer only. All values there are, waiting for the first until the deadline; empty at the deadline, or when
  // closed and drained (closed() tells which).
  asio::awaitable<std::deque<T>> pop_all_until(TimePoint deadline) {
    for (;;) {
      {
        std::lock_guard lock(mutex_);
        if (!items_.empty() || closed_) co_return std::exchange(items_, {});
      }
      if (!co_await signal_->wait_until(deadline)) co_return std::deque<T>();
    }
  }

  // Consumer only. One value; nothing at the deadline, or when closed and drained.
  asio::awaitable<std::optional<T>> pop_until(TimePoint deadline) {
    for (;;) {
      {
        std::lock_guard lock(mutex_);
        if (!items_.empty()) {
          std::optional<T> value(std::move(items_.front()));
          items_.pop_front();
          co_return value;
        }
        if (closed_) co_return std::nullopt;
      }
      if (!co_await signal_->wait_until(deadline)) co_return std::nullopt;
    }
  }

  asio::awaitable<std::optional<T>> pop() { return pop_until(TimePoint::max()); }

 private:
  const size_t capacity_;
  mutable std::mutex mutex_;
  std::deque<T> items_;
  bool closed_ = false;
  std::shared_ptr<Signal> signal_;
};

}  // namespace spillway::net
