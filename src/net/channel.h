// Signal and Channel: how a coroutine awaits what another thread posts. Many producers on any thread, one consumer
// coroutine on the executor given. Owned by shared_ptr by both sides.
#pragma once

#include <atomic>
#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <deque>
#include <memory>
#include <mutex>
#include <optional>

#include "base/clock.h"

namespace spillway::net {

namespace asio = boost::asio;

// A binary event. Notifications before a wait, and several of them, are one.
class Signal : public std::enable_shared_from_this<Signal> {
 public:
  explicit Signal(asio::any_io_executor executor) : timer_(std::move(executor)) {}

  void notify() {
    if (set_.exchange(true)) return;
    asio::post(timer_.get_executor(), [self = shared_from_this()] { self->timer_.cancel(); });
  }

  // Consumer only. True when notified, false at the deadline.
  asio::awaitable<bool> wait_until(TimePoint deadline) {
    while (!set_.exchange(false)) {
      if (std::chrono::steady_clock::now() >= deadline) co_return false;
      timer_.expires_at(deadline);
      co_await timer_.async_wait(asio::as_tuple(asio::use_awaitable));
    }
    co_return true;
  }

 private:
  std::atomic<bool> set_{false};
  asio::steady_timer timer_;  // touched on its executor only
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

  // Consumer only. All values there are, waiting for the first until the deadline; empty at the deadline, or when closed
  // and drained (closed() tells which).
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
