// WaitPoint: where one coroutine waits for a wake-up or a deadline. Cheaper than a timer that is set and cancelled for
// each wait: a wake-up resumes the coroutine in place, and the timer is touched only when a deadline comes before the
// one it is set for (each setting of the kernel's timer costs more than a small request). A timer that is set
// keeps io_context::run() from returning until then, so stop() ends a context that is to end earlier. When the context
// of the executor ends, so does the coroutine. Owned by whoever waits; all calls on the executor given, which one
// thread at a time runs.
#pragma once

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/async_result.hpp>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <memory>
#include <optional>
#include <utility>

#include "base/clock.h"

namespace spillway::net {

namespace asio = boost::asio;

class WaitPoint {
 public:
  explicit WaitPoint(asio::any_io_executor executor);
  ~WaitPoint();  // any thread, also when the executor's context is gone
  WaitPoint(const WaitPoint&) = delete;
  WaitPoint& operator=(const WaitPoint&) = delete;

  // Returns at wake(), about the deadline or when the coroutine is cancelled, whichever is first; the caller looks
  // which.
  asio::awaitable<void> wait_until(TimePoint deadline) {
    return asio::async_initiate<const asio::use_awaitable_t<>&, void()>(
        [this, deadline](Resume resume) { begin(std::move(resume), deadline); }, asio::use_awaitable);
  }

  // Resumes the coroutine before it returns; the last thing a caller does, for the coroutine may end its owner. Nothing
  // happens when nobody waits.
  void wake();

 private:
  friend class WaitService;
  using Resume = typename asio::async_result<asio::use_awaitable_t<>, void()>::handler_type;
  struct State;
  struct Registry;

  void begin(Resume resume, TimePoint deadline);

  const std::shared_ptr<State> state_;
};

}  // namespace spillway::net
