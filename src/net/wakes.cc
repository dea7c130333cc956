#include "net/wakes.h"

#include <boost/asio/execution_context.hpp>
#include <boost/asio/post.hpp>
#include <utility>

#include "net/channel.h"

namespace spillway::net {
namespace {

namespace asio = boost::asio;

constexpr int kAtOnce = 32;  // then whatever else the context has comes first: new requests wait for no whole step

class WakesService final : public asio::execution_context::service {
 public:
  using key_type = WakesService;
  static inline asio::execution_context::id id;

  explicit WakesService(asio::execution_context& context)
      : service(context), wakes_(std::make_shared<Wakes>(static_cast<asio::io_context&>(context).get_executor())) {}

  const std::shared_ptr<Wakes>& wakes() const { return wakes_; }

 private:
  void shutdown() override { wakes_->end(); }

  const std::shared_ptr<Wakes> wakes_;
};

}  // namespace

std::shared_ptr<Wakes> Wakes::of(const asio::io_context::executor_type& executor) {
  return asio::use_service<WakesService>(executor.context()).wakes();
}

void Wakes::add(std::shared_ptr<Signal> signal) {
  const std::lock_guard lock(mutex_);
  if (ended_) return;
  waiting_.push_back(std::move(signal));
  if (std::exchange(posted_, true)) return;
  if (Burst* burst = Burst::current()) {
    burst->at_end(shared_from_this());
  } else {
    post();
  }
}

void Wakes::end_of_burst() {
  const std::lock_guard lock(mutex_);
  post();
}

// The context lives, for its end waits for the lock.
void Wakes::post() {
  if (ended_) return;
  asio::post(executor_, [self = shared_from_this()] { self->drain(); });
}

void Wakes::end() {
  std::vector<std::shared_ptr<Signal>> waiting, taken;  // which end without the lock
  const std::lock_guard lock(mutex_);
  ended_ = true;
  waiting.swap(waiting_);
  taken.swap(taken_);
  next_ = 0;
}

void Wakes::drain() {
  // The rest gets its turn, also when a coroutine throws.
  struct Rest {
    ~Rest() {
      if (left) wakes.end_of_burst();
    }
    Wakes& wakes;
    bool left = true;
  } rest{*this};
  for (int i = 0; i < kAtOnce; ++i) {
    if (next_ == taken_.size()) {
      taken_.clear();
      next_ = 0;
      const std::lock_guard lock(mutex_);
      taken_.swap(waiting_);
      posted_ = rest.left = !taken_.empty();  // what comes from now on is posted anew
      if (!rest.left) return;
    }
    const std::shared_ptr<Signal> signal = std::move(taken_[next_++]);
    signal->resume();
  }
}

}  // namespace spillway::net
