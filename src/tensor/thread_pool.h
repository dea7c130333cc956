// ThreadPool: the workers of a CPU stream. A region of numbered parts is opened, the caller and the workers that are
// awake take parts from one counter, and the region closes when all parts are done; a worker that the system has not
// scheduled in time is not waited for. Owned by Stream; run() is called from one thread at a time.
#pragma once

#include <atomic>
#include <cstdint>
#include <thread>
#include <vector>

namespace spillway::tensor {

class ThreadPool {
 public:
  using Part = void (*)(void* context, int64_t part, int thread);

  explicit ThreadPool(int threads);
  ~ThreadPool();

  // Calls part(context, i, thread) once for each i in [0, parts) and returns when all have returned.
  void run(int64_t parts, Part part, void* context);

 private:
  void work(int thread);
  void take_parts(int thread);

  // The region in progress; written by run() while no worker is inside.
  Part part_ = nullptr;
  void* context_ = nullptr;
  int64_t parts_ = 0;
  alignas(64) std::atomic<int64_t> next_{0};
  alignas(64) std::atomic<uint32_t> inside_{0};  // workers inside the region, and kOpen
  alignas(64) std::atomic<uint32_t> epoch_{0};   // counts regions; workers sleep on it
  std::atomic<bool> stopping_{false};
  std::vector<std::thread> workers_;
};

}  // namespace spillway::tensor
