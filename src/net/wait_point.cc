#include "net/wait_point.h"

#include <boost/asio/associated_cancellation_slot.hpp>
#include <boost/asio/execution/context.hpp>
#include <boost/asio/execution_context.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/query.hpp>
#include <mutex>

#include "base/check.h"

namespace spillway::net {

// The states of one context, which some of them may outlive.
struct WaitPoint::Registry {
  std::mutex mutex;
  bool alive = true;
  State* first = nullptr;
};

// What WaitPoint and its timer share: the timer's handler may still come when the WaitPoint is gone.
struct WaitPoint::State {
  State(const asio::any_io_executor& executor, std::shared_ptr<Registry> in);
  ~State();

  static void set_timer(const std::shared_ptr<State>& self);
  void resume_now();
  void unlist();  // under the registry's mutex, while the context is

  const std::shared_ptr<Registry> registry;
  std::optional<asio::steady_timer> timer;  // nothing once the context has ended
  TimePoint timer_set = TimePoint::max();   // when the timer will fire
  TimePoint deadline = TimePoint::max();
  std::optional<Resume> resume;  // the coroutine that waits
  State* previous = nullptr;     // in the registry, under its mutex
  State* next = nullptr;
  bool listed = true;
};

// Ends what waits when the context ends. Without it a coroutine whose frame holds its own WaitPoint would keep itself.
class WaitService final : public asio::execution_context::service {
 public:
  using key_type = WaitService;
  static inline asio::execution_context::id id;

  explicit WaitService(asio::execution_context& context) : service(context) {}

  const std::shared_ptr<WaitPoint::Registry>& registry() const { return registry_; }

 private:
  void shutdown() override {
    for (;;) {
      std::optional<WaitPoint::Resume> ending;  // destroyed without the lock, for its frame may hold other states
      std::lock_guard lock(registry_->mutex);
      registry_->alive = false;
      WaitPoint::State* state = registry_->first;
      if (!state) return;
      state->unlist();
      if (state->resume) ending.emplace(std::move(*state->resume));
      state->resume.reset();
    }
  }

  const std::shared_ptr<WaitPoint::Registry> registry_ = std::make_shared<WaitPoint::Registry>();
};

WaitPoint::State::State(const asio::any_io_executor& executor, std::shared_ptr<Registry> in)
    : registry(std::move(in)), timer(executor) {
  std::lock_guard lock(registry->mutex);
  SW_CHECK(registry->alive, "the context has ended");
  next = registry->first;
  if (next) next->previous = this;
  registry->first = this;
}

WaitPoint::State::~State() {
  std::lock_guard lock(registry->mutex);
  if (listed) unlist();
}

void WaitPoint::State::unlist() {
  listed = false;
  (previous ? previous->next : registry->first) = next;
  if (next) next->previous = previous;
  timer.reset();
}

void WaitPoint::State::set_timer(const std::shared_ptr<State>& self) {
  self->timer_set = self->deadline;
  self->timer->expires_at(self->deadline);
  self->timer->async_wait([weak = std::weak_ptr<State>(self)](boost::system::error_code cancelled) {
    const auto state = cancelled ? nullptr : weak.lock();
    if (!state || state->timer_set > std::chrono::steady_clock::now()) return;  // set anew meanwhile
    state->timer_set = TimePoint::max();
    if (!state->resume) return;
    if (state->deadline > std::chrono::steady_clock::now()) return set_timer(state);
    state->resume_now();
  });
}

void WaitPoint::State::resume_now() {
  Resume waiting = std::move(*resume);
  resume.reset();
  std::move(waiting)();
}

WaitPoint::WaitPoint(asio::any_io_executor executor)
    : state_(std::make_shared<State>(
          executor, asio::use_service<WaitService>(asio::query(executor, asio::execution::context)).registry())) {}

WaitPoint::~WaitPoint() = default;

void WaitPoint::begin(Resume resume, TimePoint deadline) {
  SW_CHECK(!state_->resume, "a WaitPoint has room for one");
  state_->resume.emplace(std::move(resume));
  state_->deadline = deadline;
  if (deadline < state_->timer_set) State::set_timer(state_);
  auto slot = asio::get_associated_cancellation_slot(*state_->resume);
  if (!slot.is_connected()) return;
  slot.assign([weak = std::weak_ptr<State>(state_)](asio::cancellation_type) {
    const auto state = weak.lock();
    if (!state || !state->timer) return;
    asio::post(state->timer->get_executor(), [state] {
      if (state->resume) state->resume_now();
    });
  });
}

void WaitPoint::wake() {
  if (state_->resume) state_->resume_now();
}

}  // namespace spillway::net
