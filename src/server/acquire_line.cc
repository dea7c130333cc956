#include "server/acquire_line.h"

#include <algorithm>
#include <utility>

namespace spillway::server {

AcquireLine::AcquireLine() : thread_([this] { run(); }) {}

AcquireLine::~AcquireLine() {
  {
    std::lock_guard lock(mutex_);
    stopped_ = true;
  }
  news_.notify_one();
  thread_.join();
  for (Waiter& waiter : waiters_) waiter.done(Error{ErrorCode::kCancelled, "the models are being unloaded"});
}

void AcquireLine::add(Waiter waiter) {
  {
    std::lock_guard lock(mutex_);
    waiters_.push_back(std::move(waiter));
  }
  news_.notify_one();
}

bool AcquireLine::waits(std::string_view model) const {
  std::lock_guard lock(mutex_);
  return std::ranges::any_of(waiters_, [&](const Waiter& waiter) { return waiter.model == model; });
}

std::vector<AcquireLine::Waiter> AcquireLine::take(std::string_view model) {
  std::vector<Waiter> taken;
  std::lock_guard lock(mutex_);
  std::erase_if(waiters_, [&](Waiter& waiter) {
    if (waiter.model != model) return false;
    taken.push_back(std::move(waiter));
    return true;
  });
  why_.erase(std::string(model));
  return taken;
}

void AcquireLine::explain(std::string_view model, std::string why) {
  std::lock_guard lock(mutex_);
  why_[std::string(model)] = std::move(why);
}

// Ends the waits whose time has come.
void AcquireLine::run() {
  std::unique_lock lock(mutex_);
  while (!stopped_) {
    TimePoint next = TimePoint::max();  // a copy: the line may change during the wait
    for (const Waiter& waiter : waiters_) next = std::min(next, waiter.until);
    if (next == TimePoint::max()) {
      news_.wait(lock);
    } else {
      news_.wait_until(lock, next);
    }
    const TimePoint now = std::chrono::steady_clock::now();
    std::vector<std::pair<Waiter, std::string>> late;
    std::erase_if(waiters_, [&](Waiter& waiter) {
      if (waiter.until > now) return false;
      const auto why = why_.find(waiter.model);
      late.emplace_back(std::move(waiter), why == why_.end() ? "it is still being loaded" : why->second);
      return true;
    });
    if (late.empty()) continue;
    lock.unlock();
    for (auto& [waiter, why] : late) {
      waiter.done(Error{ErrorCode::kUnavailable, "model \"" + waiter.model + "\" was not back in time: " + why});
    }
    late.clear();
    lock.lock();
  }
}

}  // namespace spillway::server
