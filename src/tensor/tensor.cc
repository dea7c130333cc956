#include "tensor/tensor.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <utility>

#include "tensor/cuda/cuda.h"

namespace spillway::tensor {
namespace {

constexpr size_t kAlignment = 64;
constexpr size_t kHugePage = size_t{2} << 20;

}  // namespace

Shape::Shape(std::initializer_list<int64_t> dims) : Shape(dims.begin(), static_cast<int>(dims.size())) {}

Shape::Shape(const int64_t* dims, int rank) : rank_(rank) {
  SW_CHECK(rank >= 0 && rank <= kRankMax, "too many dimensions");
  for (int i = 0; i < rank; ++i) {
    SW_CHECK(dims[i] >= 0, "negative dimension");
    dims_[static_cast<size_t>(i)] = dims[i];
  }
}

int64_t Shape::elements() const {
  int64_t count = 1;
  for (const int64_t dim : *this) count *= dim;
  return count;
}

bool Shape::operator==(const Shape& other) const {
  return rank_ == other.rank_ && std::equal(begin(), end(), other.begin());
}

std::string to_string(const Shape& shape) {
  std::string text = "[";
  for (int i = 0; i < shape.rank(); ++i) text += (i == 0 ? "" : ", ") + std::to_string(shape[i]);
  return text + "]";
}

TensorView TensorView::rows(int64_t begin, int64_t end) const {
  SW_CHECK(shape.rank() >= 1 && begin >= 0 && begin <= end && end <= shape[0], "rows outside the tensor");
  TensorView slice = *this;
  const int64_t row = shape[0] == 0 ? 0 : elements() / shape[0];
  slice.data += static_cast<size_t>(begin * row) * size_of(dtype);
  slice.shape[0] = end - begin;
  return slice;
}

TensorView TensorView::reshaped(Shape dims) const {
  SW_CHECK(dims.elements() == elements(), "reshape from " + to_string(shape) + " to " + to_string(dims));
  return TensorView(data, dtype, dims);
}

void* allocate_bytes(size_t bytes, Device device) {
  if (device.kind == DeviceKind::kCuda) return cuda::allocate(device.index, bytes);
  if (device.kind == DeviceKind::kPinned) return cuda::allocate_pinned(bytes);
  const bool huge = bytes >= 2 * kHugePage;
  const size_t alignment = huge ? kHugePage : kAlignment;
  const size_t rounded = (bytes + alignment - 1) / alignment * alignment;
  void* data = std::aligned_alloc(alignment, rounded == 0 ? alignment : rounded);
  SW_CHECK(data != nullptr, "out of memory: " + std::to_string(bytes) + " bytes");
  if (huge) madvise(data, rounded, MADV_HUGEPAGE);  // advice only: a kernel without huge pages ignores it
  return data;
}

void free_bytes(void* data, size_t, Device device) {
  if (device.kind == DeviceKind::kCuda) {
    cuda::release(device.index, data);
  } else if (device.kind == DeviceKind::kPinned) {
    cuda::release_pinned(data);
  } else {
    std::free(data);
  }
}

Tensor::Tensor(DType dtype, Shape shape, Device device)
    : view_(allocate_bytes(static_cast<size_t>(shape.elements()) * size_of(dtype), device), dtype, shape),
      device_(device) {}

Tensor::~Tensor() { release(); }

Tensor::Tensor(Tensor&& other) noexcept
    : view_(std::exchange(other.view_, TensorView())), device_(other.device_), borrowed_(other.borrowed_) {}

Tensor& Tensor::operator=(Tensor&& other) noexcept {
  if (this != &other) {
    release();
    view_ = std::exchange(other.view_, TensorView());
    device_ = other.device_;
    borrowed_ = other.borrowed_;
  }
  return *this;
}

void Tensor::release() {
  if (!empty() && !borrowed_) free_bytes(view_.data, view_.bytes(), device_);
}

Tensor Tensor::borrow(TensorView view) {
  Tensor tensor;
  tensor.view_ = view;
  tensor.borrowed_ = true;
  return tensor;
}

Tensor Tensor::zeros(DType dtype, Shape shape) {
  Tensor tensor(dtype, shape);
  std::memset(tensor.view_.data, 0, tensor.bytes());
  return tensor;
}

}  // namespace spillway::tensor
