#include "models/late_packing.h"

#include <sys/resource.h>

#include "base/log.h"

namespace spillway::models {
namespace {

using Clock = std::chrono::steady_clock;

constexpr int kNiceness = 5;  // gives way to serving, but not wholly: packed weights are read faster

}  // namespace

LatePacking::~LatePacking() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  stopped_.notify_all();
  if (packer_.joinable()) packer_.join();
}

bool LatePacking::start() {
  if (weights_.empty()) return false;
  packer_ = std::thread([this] { pack(); });
  return true;
}

bool LatePacking::stopped_within(std::chrono::milliseconds time) {
  std::unique_lock lock(mutex_);
  return stopped_.wait_for(lock, time, [this] { return stop_; });
}

void LatePacking::pack() {
  ::setpriority(PRIO_PROCESS, 0, kNiceness);  // of this thread; advice only
  if (stopped_within(after_)) return;
  const auto start = Clock::now();
  size_t bytes = 0;
  for (const auto& [request, weight] : weights_) {
    if (stopped_within(std::chrono::milliseconds(0))) return;
    const std::span<const std::byte> panels = weight->pack();
    bytes += panels.size();
    const tensor::Tensor& scales = weight->scales();
    if (store_ != nullptr) store_->keep(request, {panels, {scales.view().data, scales.bytes()}}, weight);
    for (const tensor::TensorView& source : weight->sources()) source_.give_back(source);
  }
  SW_INFO("weights: {} MB packed behind the first answers in {:.1f} s", bytes / 1'000'000,
          std::chrono::duration<double>(Clock::now() - start).count());
  if (store_ != nullptr) store_->finish();
}

}  // namespace spillway::models
