// Wakes: the signals of one io_context that wait to resume their coroutines, as one handler for all of them, posted at
// the end of the Burst in which they come. A step of the engine tells some hundred streams at once: as many posts took
// turns with the event loop at its queue's lock, and put the engine's thread to sleep there. Owned by a service of the
// context and by its signals; add() on any thread, the rest on the context's.
#pragma once

#include <boost/asio/io_context.hpp>
#include <memory>
#include <mutex>
#include <vector>

#include "base/burst.h"

namespace spillway::net {

class Signal;

class Wakes final : public Burst::Listener, public std::enable_shared_from_this<Wakes> {
 public:
  // Of the executor's context.
  static std::shared_ptr<Wakes> of(const boost::asio::io_context::executor_type& executor);

  explicit Wakes(boost::asio::io_context::executor_type executor) : executor_(std::move(executor)) {}

  // Signals are resumed in the order in which they came.
  void add(std::shared_ptr<Signal> signal);

  void end_of_burst() override;

  // The context ends: what waits is let go, and so is what comes after.
  void end();

 private:
  void post();  // with the lock
  void drain();

  const boost::asio::io_context::executor_type executor_;
  std::mutex mutex_;
  bool ended_ = false;
  bool posted_ = false;                           // a handler is on its way or draining, or will be posted
  std::vector<std::shared_ptr<Signal>> waiting_;  // behind those below
  std::vector<std::shared_ptr<Signal>> taken_;    // the handler's own
  size_t next_ = 0;                               // of taken_
};

}  // namespace spillway::net
