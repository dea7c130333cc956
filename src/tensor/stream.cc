#include "tensor/stream.h"

#include <sched.h>

#include <algorithm>
#include <cstring>
#include <stdexcept>
#include <thread>
#include <utility>

#include "tensor/cuda/cuda.h"
#include "tensor/thread_pool.h"

namespace spillway::tensor {
namespace {

int usable_cores() {
  cpu_set_t set;
  CPU_ZERO(&set);
  if (sched_getaffinity(0, sizeof(set), &set) == 0) return std::max(1, CPU_COUNT(&set));
  return std::max(1u, std::thread::hardware_concurrency());
}

}  // namespace

Stream::Stream(int threads)
    : threads_(threads > 0 ? threads : usable_cores()), pool_(std::make_unique<ThreadPool>(threads_)) {}

Stream::~Stream() {
  if (scratch_ != nullptr) free_bytes(scratch_, scratch_bytes_);
}

Stream::Stream(Stream&& other) noexcept
    : device_(other.device_),
      threads_(other.threads_),
      batch_invariant_(other.batch_invariant_),
      pool_(std::move(other.pool_)),
      cuda_(std::move(other.cuda_)),
      scratch_(std::exchange(other.scratch_, nullptr)),
      scratch_bytes_(std::exchange(other.scratch_bytes_, 0)) {}

Stream& Stream::operator=(Stream&& other) noexcept {
  std::swap(device_, other.device_);
  std::swap(threads_, other.threads_);
  std::swap(batch_invariant_, other.batch_invariant_);
  std::swap(pool_, other.pool_);
  std::swap(cuda_, other.cuda_);
  std::swap(scratch_, other.scratch_);
  std::swap(scratch_bytes_, other.scratch_bytes_);
  return *this;
}

Result<Stream> Stream::open(Device device, int threads) {
  SW_TRY(check_available(device));
  Stream stream(threads);
  stream.device_ = device;
  if (device.kind == DeviceKind::kCuda) {
    try {
      stream.cuda_ = cuda::DeviceStream::open(device.index);
    } catch (const std::runtime_error& error) {
      return Error{ErrorCode::kUnavailable, error.what()};
    }
  }
  return stream;
}

void Stream::synchronize() {
  if (cuda_) cuda_->synchronize();
}

void* Stream::cuda_native() const { return cuda_->native(); }

void Stream::upload(void* device, const void* host, size_t bytes) {
  if (cuda_) {
    cuda_->upload(device, host, bytes, *pool_, threads_);
  } else {
    std::memcpy(device, host, bytes);
  }
}

void Stream::download(void* host, const void* device, size_t bytes) {
  if (cuda_) {
    cuda_->download(host, device, bytes);
  } else {
    std::memcpy(host, device, bytes);
  }
}

Tensor Stream::place(Tensor host) {
  if (!cuda_ || host.empty()) return host;
  Tensor tensor(host.dtype(), host.shape(), device_);
  upload(tensor.view().data, host.view().data, host.bytes());
  return tensor;
}

void* Stream::scratch(size_t bytes) {
  if (cuda_) return cuda_->scratch(bytes);
  if (bytes > scratch_bytes_) {
    if (scratch_ != nullptr) free_bytes(scratch_, scratch_bytes_);
    scratch_bytes_ = std::max(bytes, scratch_bytes_ + scratch_bytes_ / 2);
    scratch_ = allocate_bytes(scratch_bytes_);
  }
  return scratch_;
}

void Stream::run(int64_t count, int64_t grain, Function function, void* context) {
  if (count <= 0) return;
  const int64_t parts = std::clamp<int64_t>(count / std::max<int64_t>(grain, 1), 1, threads_);
  if (parts == 1) {
    function(context, 0, count, 0);
    return;
  }
  struct Ranges {
    Function function;
    void* context;
    int64_t count;
    int64_t parts;
  } ranges{function, context, count, parts};
  pool_->run(
      parts,
      [](void* self, int64_t part, int thread) {
        const auto& r = *static_cast<const Ranges*>(self);
        r.function(r.context, r.count * part / r.parts, r.count * (part + 1) / r.parts, thread);
      },
      &ranges);
}

void Stream::run_tasks(int64_t count, Function function, void* context) {
  struct Tasks {
    Function function;
    void* context;
  } tasks{function, context};
  pool_->run(
      count,
      [](void* self, int64_t part, int thread) {
        const auto& t = *static_cast<const Tasks*>(self);
        t.function(t.context, part, part + 1, thread);
      },
      &tasks);
}

void Stream::note(const char* name, StageCost cost) {
  StageMark mark{name, cost, 0, std::chrono::steady_clock::now()};
  if (cuda_) mark.stamp = cuda_->stamp();
  log_->push_back(std::move(mark));
}

std::vector<double> Stream::durations(const StageLog& log) {
  std::vector<double> seconds;
  for (size_t i = 0; i + 1 < log.size(); ++i) {
    seconds.push_back(cuda_ ? cuda_->seconds_between(log[i].stamp, log[i + 1].stamp)
                            : std::chrono::duration<double>(log[i + 1].at - log[i].at).count());
  }
  return seconds;
}

}  // namespace spillway::tensor
