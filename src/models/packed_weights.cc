#include "models/packed_weights.h"

#include <fmt/format.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <chrono>

#include "base/log.h"

namespace spillway::models {
namespace {

using Clock = std::chrono::steady_clock;

// This thread gives way to every other, at the processor and at the disk. Both are advice.
void give_way() {
  constexpr int kLeastPriority = 19, kIoWhoProcess = 1, kIoIdle = 3 << 13;
  const auto thread = static_cast<id_t>(::syscall(SYS_gettid));
  ::setpriority(PRIO_PROCESS, thread, kLeastPriority);
  ::syscall(SYS_ioprio_set, kIoWhoProcess, thread, kIoIdle);
}

std::span<const std::byte> bytes_of(const tensor::Tensor& tensor) { return {tensor.view().data, tensor.bytes()}; }

}  // namespace

PackedWeights::PackedWeights(const weights::WeightSource& source, weights::PackedCache cache, tensor::Stream& stream,
                             const weights::Progress& progress)
    : source_(source), cache_(std::move(cache)) {
  auto file = cache_.read(stream, progress);
  if (file.ok()) {
    file_.emplace(std::move(*file));
    SW_INFO("packed weights: {} MB mapped from {}", file_->bytes() / 1'000'000, cache_.path());
    return;
  }
  if (file.error().code == ErrorCode::kNotFound) {
    SW_INFO("packed weights: none to use yet ({})", file.error().message);
  } else {
    SW_WARN("packed weights: not used, made anew: {}", file.error().message);
  }
}

PackedWeights::~PackedWeights() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  stopped_.notify_all();
  if (writer_.joinable()) writer_.join();
}

std::optional<kernels::PackedBytes> PackedWeights::find(kernels::PackRequest& request) {
  request.place = requests_++;
  const std::string name = request.name();
  if (!file_) return {};
  const auto data = file_->find(name + " data").bytes, scales = file_->find(name + " scales").bytes;
  if (data.empty()) return {};
  remember(name + " data", data);
  if (!scales.empty()) remember(name + " scales", scales);
  return kernels::PackedBytes{data, scales};
}

void PackedWeights::keep(const kernels::PackRequest& request, kernels::PackedLinear& packed) {
  complete_ = false;
  const std::string name = request.name();
  const auto take = [&](tensor::Tensor& tensor, const char* what) {
    if (tensor.empty()) return;
    const tensor::TensorView view = tensor.view();
    remember(name + what, bytes_of(tensor));
    owned_.push_back(std::move(tensor));
    tensor = tensor::Tensor::borrow(view);
  };
  take(packed.data, " data");
  take(packed.scales, " scales");
}

void PackedWeights::keep(const kernels::PackRequest& request, const kernels::PackedBytes& bytes,
                         std::shared_ptr<const void> owner) {
  complete_ = false;
  remember(request.name() + " data", bytes.data);
  if (!bytes.scales.empty()) remember(request.name() + " scales", bytes.scales);
  owners_.push_back(std::move(owner));
}

void PackedWeights::remember(const std::string& name, std::span<const std::byte> bytes) {
  blobs_.push_back({.name = name, .tag = 0, .bytes = bytes});
}

void PackedWeights::finish() {
  if (complete_) return;
  if (cache_.options().mode == weights::PackedCacheOptions::Mode::kOn) return write();
  writer_ = std::thread([this] { write_later(); });
}

void PackedWeights::write() {
  const auto start = Clock::now();
  const Status status = cache_.write(blobs_, [this] {
    const std::lock_guard lock(mutex_);
    return stop_;
  });
  if (status.ok()) {
    const double seconds = std::chrono::duration<double>(Clock::now() - start).count();
    SW_INFO("packed weights: written to {} in {:.1f} s; the next start maps them", cache_.path(), seconds);
  } else if (status.error().code != ErrorCode::kCancelled) {
    SW_WARN("packed weights: not written, the next start packs again: {}", status.error().message);
  }
}

void PackedWeights::write_later() {
  give_way();
  {
    std::unique_lock lock(mutex_);
    if (stopped_.wait_for(lock, cache_.options().write_after, [this] { return stop_; })) return;
  }
  write();
}

}  // namespace spillway::models
