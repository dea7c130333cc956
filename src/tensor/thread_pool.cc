#include "tensor/thread_pool.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace spillway::tensor {
namespace {

constexpr uint32_t kOpen = 0x80000000;
constexpr int kSpins = 20000;       // a few hundred microseconds: longer than the gap between two regions of a step
constexpr int kSpinsToYield = 200;  // then let others run between looks

void pause(int spin) {
  if (spin % kSpinsToYield == kSpinsToYield - 1) {
    std::this_thread::yield();
    return;
  }
#if defined(__x86_64__)
  _mm_pause();
#endif
}

}  // namespace

ThreadPool::ThreadPool(int threads) {
  for (int i = 1; i < threads; ++i) workers_.emplace_back([this, i] { work(i); });
}

ThreadPool::~ThreadPool() {
  stopping_.store(true);
  epoch_.fetch_add(1);
  epoch_.notify_all();
  for (std::thread& worker : workers_) worker.join();
}

void ThreadPool::take_parts(int thread) {
  for (int64_t i = next_.fetch_add(1, std::memory_order_relaxed); i < parts_;
       i = next_.fetch_add(1, std::memory_order_relaxed)) {
    part_(context_, i, thread);
  }
}

void ThreadPool::run(int64_t parts, Part part, void* context) {
  if (workers_.empty() || parts <= 1) {
    for (int64_t i = 0; i < parts; ++i) part(context, i, 0);
    return;
  }
  part_ = part;
  context_ = context;
  parts_ = parts;
  next_.store(0, std::memory_order_relaxed);
  inside_.store(kOpen, std::memory_order_release);
  epoch_.fetch_add(1);
  epoch_.notify_all();
  take_parts(0);
  inside_.fetch_and(~kOpen, std::memory_order_acq_rel);
  for (int spin = 0; inside_.load(std::memory_order_acquire) != 0; ++spin) pause(spin);
}

void ThreadPool::work(int thread) {
  uint32_t seen = 0;
  while (true) {
    int spin = 0;
    while (epoch_.load(std::memory_order_acquire) == seen && spin < kSpins) pause(spin++);
    epoch_.wait(seen);
    seen = epoch_.load();
    if (stopping_.load()) return;
    uint32_t inside = inside_.load(std::memory_order_relaxed);
    while ((inside & kOpen) != 0) {
      if (!inside_.compare_exchange_weak(inside, inside + 1, std::memory_order_acq_rel)) continue;
      take_parts(thread);
      inside_.fetch_sub(1, std::memory_order_acq_rel);
      break;
    }
  }
}

}  // namespace spillway::tensor
