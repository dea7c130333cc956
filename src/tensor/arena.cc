#include "tensor/arena.h"

#include <algorithm>
#include <utility>

namespace spillway::tensor {
namespace {

constexpr size_t kAlignment = 256;  // what the copy engines and vector loads of a GPU like; a CPU line four times

}  // namespace

Arena::Arena(size_t capacity_bytes, Device device)
    : data_(static_cast<std::byte*>(allocate_bytes(capacity_bytes, device))),
      capacity_(capacity_bytes),
      device_(device) {}

Arena::~Arena() {
  if (data_ != nullptr) free_bytes(data_, capacity_, device_);
}

Arena::Arena(Arena&& other) noexcept { *this = std::move(other); }

Arena& Arena::operator=(Arena&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(capacity_, other.capacity_);
  std::swap(used_, other.used_);
  std::swap(peak_, other.peak_);
  std::swap(device_, other.device_);
  return *this;
}

size_t Arena::footprint(DType dtype, const Shape& shape) {
  const size_t bytes = static_cast<size_t>(shape.elements()) * size_of(dtype);
  return (bytes + kAlignment - 1) / kAlignment * kAlignment;
}

TensorView Arena::allocate(DType dtype, Shape shape) {
  const size_t bytes = footprint(dtype, shape);
  SW_CHECK(bytes <= capacity_ - used_, "arena of " + std::to_string(capacity_) + " bytes is full: " +
                                           std::to_string(bytes) + " more for " + to_string(shape));
  TensorView view(data_ + used_, dtype, shape);
  used_ += bytes;
  peak_ = std::max(peak_, used_);
  return view;
}

}  // namespace spillway::tensor
