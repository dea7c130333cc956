// CUDA devices as the rest of tensor/ uses them: plain functions without CUDA's headers. Defined in this folder, or in
// tensor/no_cuda.cc where the build has no CUDA; then check_device() is an error and nothing else is ever called.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "base/result.h"

namespace spillway::tensor {
class ThreadPool;
}

namespace spillway::tensor::cuda {

// What a device can do; values.
struct DeviceInfo {
  std::string name;
  std::string uuid;          // as the driver's tools write it: GPU-xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx
  int major = 0, minor = 0;  // compute capability of the chip
  int code = 0;              // and of the code that this build runs there; 0: it has none
  int multiprocessors = 0;
  int64_t memory_bytes = 0;
  int64_t l2_bytes = 0;
  int shared_bytes_max = 0;     // of one block, with the larger limit asked for
  int driver = 0, runtime = 0;  // 13000 is 13.0
  // What kernels are chosen by: older code on a newer chip has the kernels of the older one.
  int capability() const { return code; }
};

struct MemoryInfo {
  int64_t free_bytes = 0;
  int64_t total_bytes = 0;
};

// In which numbers a chip of that compute capability computes, in words: for doctor and the log.
std::string precision_tier(int capability);
// The capability of the code that a chip runs, of a build with machine code for some chips and with code that the
// driver compiles for later ones; 0: none of it.
int code_for(int chip, std::span<const int> machine, std::span<const int> portable);
// This program was built with CUDA, and for which chips: "sm_75 sm_80 sm_90a"; empty without.
std::string built_for();
// Devices that the driver shows; 0 without a driver.
int device_count();
// An error that says what is missing when this program cannot use that device.
Status check_device(int index);
// Of a device that check_device() accepts.
const DeviceInfo& device_info(int index);
MemoryInfo memory_info(int index);

// Device memory, aligned to 256 bytes. A refusal by the driver is a std::runtime_error with the figures.
void* allocate(int index, size_t bytes);
void release(int index, void* data);
// How many times allocate() gave memory, on any device: serving leaves it as it is.
int64_t allocations();
// Host memory that the device copies from and to without the driver's own staging.
void* allocate_pinned(size_t bytes);
void release_pinned(void* data);

// The device's side of tensor::Stream. Errors of the driver are std::runtime_error.
class DeviceStream {
 public:
  static std::unique_ptr<DeviceStream> open(int index);
  virtual ~DeviceStream() = default;

  virtual void* native() const = 0;  // a cudaStream_t
  virtual void synchronize() = 0;
  // From any host memory, through pinned staging that the pool's threads fill. The source may be reused on return.
  virtual void upload(void* device, const void* host, size_t bytes, ThreadPool& pool, int threads) = 0;
  // From pinned memory that stays as it is until the copy is done; in the stream's order.
  virtual void upload_pinned(void* device, const void* pinned, size_t bytes) = 0;
  // To pinned memory, in the stream's order.
  virtual void download_pinned(void* pinned, const void* device, size_t bytes) = 0;
  // A point in the stream's order, and waiting until everything before it is done. Few are alive at a time: a mark is
  // forgotten when kMarks later ones were made.
  static constexpr int kMarks = 64;
  virtual int64_t mark() = 0;
  virtual void wait(int64_t mark) = 0;
  // Between two marks that have passed; of those not forgotten.
  virtual double seconds_between_marks(int64_t first, int64_t second) = 0;
  // Done when it returns.
  virtual void download(void* host, const void* device, size_t bytes) = 0;
  virtual void copy(void* to, const void* from, size_t bytes) = 0;  // within the device
  // A time on the device, in the stream's order, also within what is being captured; and the time between two of them,
  // once both have passed. forget_stamps() makes the earlier ones invalid.
  virtual int64_t stamp() = 0;
  virtual double seconds_between(int64_t first, int64_t second) = 0;
  virtual void forget_stamps() = 0;
  virtual void fill(void* device, int byte, size_t bytes) = 0;

  // Device memory for one kernel's own use. Blocks that were outgrown stay allocated: captured graphs point at them.
  virtual void* scratch(size_t bytes) = 0;

  // What the kernels keep beside the stream; released before it.
  std::shared_ptr<void>& attachment() { return attachment_; }

  // Between the two, launches are recorded instead of run. end_capture() gives the graph; run() replays it.
  class Graph {
   public:
    virtual ~Graph() = default;
  };
  virtual void begin_capture() = 0;
  virtual std::unique_ptr<Graph> end_capture() = 0;
  virtual void run(const Graph& graph) = 0;

 private:
  std::shared_ptr<void> attachment_;
};

}  // namespace spillway::tensor::cuda
