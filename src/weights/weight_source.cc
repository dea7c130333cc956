#include "weights/weight_source.h"

#include <utility>

#include "base/check.h"

namespace spillway::weights {

StoredTensor::StoredTensor(const WeightSource* source, tensor::TensorView view, tensor::Tensor owned)
    : source_(source), view_(view), owned_(std::move(owned)) {}

StoredTensor::StoredTensor(StoredTensor&& other) noexcept
    : source_(std::exchange(other.source_, nullptr)),
      view_(other.view_),
      owned_(std::move(other.owned_)),
      kept_(other.kept_),
      places_(other.places_) {}

StoredTensor& StoredTensor::operator=(StoredTensor&& other) noexcept {
  if (this == &other) return *this;
  release();
  source_ = std::exchange(other.source_, nullptr);
  view_ = other.view_;
  owned_ = std::move(other.owned_);
  kept_ = other.kept_;
  places_ = other.places_;
  return *this;
}

void StoredTensor::keep() {
  if (source_ != nullptr && !std::exchange(kept_, true)) source_->consumed(view_);
}

void StoredTensor::read_places(int64_t places) const {
  places_ += places;
  if (source_ == nullptr || !owned_.empty() || places_ < kPlacesMax) return;
  source_->release(view_);
  places_ = 0;
}

void StoredTensor::release() {
  if (source_ == nullptr || kept_) return;
  source_->consumed(view_);
  if (owned_.empty()) source_->release(view_);
  source_ = nullptr;
}

bool WeightSource::take(const tensor::TensorView& view) const {
  if (!locate(view.data)) return false;
  if (taken_[view.data]++ == 0) mapped_bytes_ += int64_t(view.bytes());
  ++taken_count_;
  return true;
}

void WeightSource::give_back(const tensor::TensorView& view) const {
  const auto at = taken_.find(view.data);
  SW_CHECK(at != taken_.end() && at->second > 0, "a tensor given back that nobody has taken");
  if (--at->second == 0) release(view);
  if (--taken_count_ == 0) expect_few();
}

bool WeightSource::taken(const std::byte* data) const {
  const auto at = taken_.find(data);
  return at != taken_.end() && at->second > 0;
}

void WeightSource::consumed(const tensor::TensorView& view) const {
  bytes_done_ += int64_t(view.bytes());
  if (progress_) progress_(bytes_done_, bytes_total());
}

}  // namespace spillway::weights
