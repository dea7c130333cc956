// Uploads go through two pinned buffers: while one is on its way to the device, the pool's threads fill the other, so
// that a checkpoint that is mapped from a file reaches the device at the slower of the page cache and the bus.
#include <algorithm>
#include <cstring>
#include <vector>

#include "tensor/cuda/cuda.h"
#include "tensor/cuda/error.h"
#include "tensor/thread_pool.h"

namespace spillway::tensor::cuda {
namespace {

constexpr size_t kStagingBytes = size_t{32} << 20;
constexpr size_t kPartBytes = size_t{1} << 20;  // what one thread copies at a time
constexpr size_t kAlignment = 256;

class CapturedGraph final : public DeviceStream::Graph {
 public:
  CapturedGraph(cudaGraph_t graph, cudaGraphExec_t exec) : graph_(graph), exec_(exec) {}
  ~CapturedGraph() override {
    cudaGraphExecDestroy(exec_);
    cudaGraphDestroy(graph_);
  }
  cudaGraphExec_t exec() const { return exec_; }

 private:
  cudaGraph_t graph_;
  cudaGraphExec_t exec_;
};

struct Staging {
  void* data = nullptr;
  cudaEvent_t sent = nullptr;  // the copy out of it is done
};

void copy_in_parallel(void* to, const void* from, size_t bytes, ThreadPool& pool, int threads) {
  if (threads <= 1 || bytes <= kPartBytes) {
    std::memcpy(to, from, bytes);
    return;
  }
  struct Copy {
    std::byte* to;
    const std::byte* from;
    size_t bytes;
  } copy{static_cast<std::byte*>(to), static_cast<const std::byte*>(from), bytes};
  pool.run(
      int64_t((bytes + kPartBytes - 1) / kPartBytes),
      [](void* context, int64_t part, int) {
        const Copy& c = *static_cast<const Copy*>(context);
        const size_t begin = size_t(part) * kPartBytes;
        std::memcpy(c.to + begin, c.from + begin, std::min(kPartBytes, c.bytes - begin));
      },
      &copy);
}

class NativeStream final : public DeviceStream {
 public:
  explicit NativeStream(int index) : index_(index) {
    SW_CUDA(cudaSetDevice(index));
    SW_CUDA(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking));
  }

  ~NativeStream() override {
    if (cudaSetDevice(index_) != cudaSuccess) return;
    cudaStreamSynchronize(stream_);
    for (Staging& staging : staging_) {
      if (staging.data == nullptr) continue;
      release_pinned(staging.data);
      cudaEventDestroy(staging.sent);
    }
    for (cudaEvent_t event : marks_) {
      if (event != nullptr) cudaEventDestroy(event);
    }
    for (cudaEvent_t event : stamps_) cudaEventDestroy(event);
    for (void* block : scratch_) release(index_, block);
    cudaStreamDestroy(stream_);
  }

  void* native() const override { return stream_; }

  void synchronize() override { SW_CUDA(cudaStreamSynchronize(stream_)); }

  void upload(void* device, const void* host, size_t bytes, ThreadPool& pool, int threads) override {
    SW_CUDA(cudaSetDevice(index_));
    for (size_t at = 0; at < bytes; at += kStagingBytes) {
      const size_t part = std::min(kStagingBytes, bytes - at);
      Staging& staging = staging_[turn_ ^= 1];
      if (staging.data == nullptr) {
        staging.data = allocate_pinned(kStagingBytes);
        SW_CUDA(cudaEventCreateWithFlags(&staging.sent, cudaEventDisableTiming));
      } else {
        SW_CUDA(cudaEventSynchronize(staging.sent));
      }
      copy_in_parallel(staging.data, static_cast<const std::byte*>(host) + at, part, pool, threads);
      upload_pinned(static_cast<std::byte*>(device) + at, staging.data, part);
      SW_CUDA(cudaEventRecord(staging.sent, stream_));
    }
  }

  void upload_pinned(void* device, const void* pinned, size_t bytes) override {
    SW_CUDA(cudaMemcpyAsync(device, pinned, bytes, cudaMemcpyHostToDevice, stream_));
  }

  void download_pinned(void* pinned, const void* device, size_t bytes) override {
    SW_CUDA(cudaMemcpyAsync(pinned, device, bytes, cudaMemcpyDeviceToHost, stream_));
  }

  int64_t mark() override {
    cudaEvent_t& event = marks_[marked_ % kMarks];
    if (event == nullptr) SW_CUDA(cudaEventCreate(&event));
    SW_CUDA(cudaEventRecord(event, stream_));
    return marked_++;
  }

  void wait(int64_t mark) override {
    if (mark + kMarks < marked_) return synchronize();
    SW_CUDA(cudaEventSynchronize(marks_[mark % kMarks]));
  }

  double seconds_between_marks(int64_t first, int64_t second) override {
    SW_CHECK(first + kMarks > marked_ && second + kMarks > marked_, "marks that are forgotten");
    return seconds_between_events(marks_[first % kMarks], marks_[second % kMarks]);
  }

  void download(void* host, const void* device, size_t bytes) override {
    SW_CUDA(cudaMemcpyAsync(host, device, bytes, cudaMemcpyDeviceToHost, stream_));
    synchronize();
  }

  void copy(void* to, const void* from, size_t bytes) override {
    SW_CUDA(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, stream_));
  }

  int64_t stamp() override {
    if (stamped_ == int64_t(stamps_.size())) SW_CUDA(cudaEventCreate(&stamps_.emplace_back()));
    SW_CUDA(cudaEventRecordWithFlags(stamps_[size_t(stamped_)], stream_,
                                     capturing_ ? cudaEventRecordExternal : cudaEventRecordDefault));
    return stamped_++;
  }

  double seconds_between(int64_t first, int64_t second) override {
    return seconds_between_events(stamps_.at(size_t(first)), stamps_.at(size_t(second)));
  }

  void forget_stamps() override { stamped_ = 0; }

  void fill(void* device, int byte, size_t bytes) override { SW_CUDA(cudaMemsetAsync(device, byte, bytes, stream_)); }

  void* scratch(size_t bytes) override {
    if (bytes > scratch_bytes_) {
      const size_t rounded = (std::max(bytes, scratch_bytes_ * 3 / 2) + kAlignment - 1) / kAlignment * kAlignment;
      scratch_.push_back(allocate(index_, rounded));
      scratch_bytes_ = rounded;
    }
    return scratch_.empty() ? nullptr : scratch_.back();
  }

  void begin_capture() override {
    SW_CUDA(cudaStreamBeginCapture(stream_, cudaStreamCaptureModeThreadLocal));
    capturing_ = true;
  }

  std::unique_ptr<Graph> end_capture() override {
    cudaGraph_t graph = nullptr;
    capturing_ = false;
    SW_CUDA(cudaStreamEndCapture(stream_, &graph));
    cudaGraphExec_t exec = nullptr;
    const cudaError_t error = cudaGraphInstantiate(&exec, graph, 0);
    if (error != cudaSuccess) cudaGraphDestroy(graph);
    check(error, "cudaGraphInstantiate");
    return std::make_unique<CapturedGraph>(graph, exec);
  }

  void run(const Graph& graph) override {
    SW_CUDA(cudaGraphLaunch(static_cast<const CapturedGraph&>(graph).exec(), stream_));
  }

 private:
  static double seconds_between_events(cudaEvent_t first, cudaEvent_t second) {
    float milliseconds = 0;
    SW_CUDA(cudaEventElapsedTime(&milliseconds, first, second));
    return double(milliseconds) * 1e-3;
  }

  int index_;
  cudaStream_t stream_ = nullptr;
  Staging staging_[2];
  int turn_ = 0;
  cudaEvent_t marks_[kMarks] = {};
  int64_t marked_ = 0;
  std::vector<cudaEvent_t> stamps_;
  int64_t stamped_ = 0;
  bool capturing_ = false;
  std::vector<void*> scratch_;
  size_t scratch_bytes_ = 0;
};

}  // namespace

std::unique_ptr<DeviceStream> DeviceStream::open(int index) { return std::make_unique<NativeStream>(index); }

}  // namespace spillway::tensor::cuda
