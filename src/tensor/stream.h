// Stream: the order in which kernels run on a device, and the threads that run them. A CPU stream is a pool of threads
// with the caller as the first; kernels have finished when they return, so synchronize() has nothing to wait for. A
// CUDA stream is a queue on the device and the same pool beside it, for the host's own work (loading, sampling). Called
// from one thread at a time (the engine's). Workers spin for a moment between regions and then sleep.
#pragma once

#include <cstdint>
#include <memory>
#include <type_traits>

#include "tensor/device.h"
#include "tensor/stages.h"
#include "tensor/tensor.h"

namespace spillway::tensor {

class ThreadPool;
namespace cuda {
class DeviceStream;
}

class Stream {
 public:
  // threads <= 0: as many as this process may run on.
  explicit Stream(int threads = 0);
  ~Stream();
  Stream(Stream&&) noexcept;
  Stream& operator=(Stream&&) noexcept;

  // A stream on any device, or check_available()'s error.
  static Result<Stream> open(Device device, int threads = 0);

  Device device() const { return device_; }
  int threads() const { return threads_; }
  void synchronize();

  // body(begin, end, thread) over equal contiguous ranges of [0, count), one a thread. Fewer threads take part when the
  // ranges would be smaller than grain. Not to be nested.
  template <class Body>
  void parallel_for(int64_t count, int64_t grain, Body&& body) {
    using Plain = std::remove_reference_t<Body>;
    run(
        count, grain,
        [](void* context, int64_t begin, int64_t end, int thread) {
          (*static_cast<Plain*>(context))(begin, end, thread);
        },
        const_cast<void*>(static_cast<const void*>(&body)));
  }

  // body(index, thread) for each of [0, count), handed out one by one: for tasks of uneven size.
  template <class Body>
  void parallel_tasks(int64_t count, Body&& body) {
    using Plain = std::remove_reference_t<Body>;
    run_tasks(
        count,
        [](void* context, int64_t begin, int64_t, int thread) { (*static_cast<Plain*>(context))(begin, thread); },
        const_cast<void*>(static_cast<const void*>(&body)));
  }

  // Memory of the device for one kernel's own use, valid until the next kernel on this stream; it grows and is kept.
  void* scratch(size_t bytes);

  // Copies between host memory and the device's, in the order of the stream; the host side may be reused or read when
  // they return. Plain copies on the CPU.
  void upload(void* device, const void* host, size_t bytes);
  void download(void* host, const void* device, size_t bytes);
  // The tensor on this stream's device: itself on the CPU.
  Tensor place(Tensor host);
  // Asked for: a row's bits do not depend on what else is in the batch, at the price of slower kernels. Set before the
  // first kernel. Kernels of the CPU keep this always.
  void set_batch_invariant(bool wanted) { batch_invariant_ = wanted; }
  bool batch_invariant() const { return batch_invariant_; }

  // Where host memory lies that this stream copies from and to.
  Device host() const { return device_.kind == DeviceKind::kCpu ? Device{} : Device{DeviceKind::kPinned, 0}; }

  // Notes in the log that a stage begins, if one is set. The last stage ends where `end_of_step` begins.
  void watch(StageLog* log) { log_ = log; }
  bool watched() const { return log_ != nullptr; }
  void stage(const char* name, StageCost cost = {}) {
    if (log_ != nullptr) note(name, cost);
  }
  // Seconds from each mark to the next one, once the stream is synchronised.
  std::vector<double> durations(const StageLog& log);

  // The device's own side; only of a CUDA stream.
  cuda::DeviceStream& cuda() { return *cuda_; }
  void* cuda_native() const;

 private:
  using Function = void (*)(void* context, int64_t begin, int64_t end, int thread);
  void run(int64_t count, int64_t grain, Function function, void* context);
  void run_tasks(int64_t count, Function function, void* context);
  void note(const char* name, StageCost cost);

  Device device_;
  int threads_ = 1;
  bool batch_invariant_ = false;
  std::unique_ptr<ThreadPool> pool_;
  std::unique_ptr<cuda::DeviceStream> cuda_;
  void* scratch_ = nullptr;
  size_t scratch_bytes_ = 0;
  StageLog* log_ = nullptr;
};

}  // namespace spillway::tensor
