// Tensor and TensorView: contiguous row-major arrays, in the memory of one device. A Tensor owns its bytes and only
// moves; a TensorView is a plain value that borrows them: whoever computes with it knows where they are. Neither knows
// any operation (kernels/). Any thread; no locking.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <string>

#include "base/check.h"
#include "tensor/device.h"
#include "tensor/dtype.h"

namespace spillway::tensor {

class Stream;  // tensor/stream.h
class Arena;   // tensor/arena.h

class Shape {
 public:
  static constexpr int kRankMax = 6;

  Shape() = default;
  Shape(std::initializer_list<int64_t> dims);
  Shape(const int64_t* dims, int rank);

  int rank() const { return rank_; }
  // Negative indices count from the end.
  int64_t operator[](int i) const { return dims_[index(i)]; }
  int64_t& operator[](int i) { return dims_[index(i)]; }
  int64_t elements() const;
  const int64_t* begin() const { return dims_.data(); }
  const int64_t* end() const { return dims_.data() + rank_; }
  bool operator==(const Shape& other) const;

 private:
  size_t index(int i) const {
    const int at = i < 0 ? i + rank_ : i;
    SW_CHECK(at >= 0 && at < rank_, "dimension outside the shape");
    return static_cast<size_t>(at);
  }
  std::array<int64_t, kRankMax> dims_{};
  int rank_ = 0;
};

std::string to_string(const Shape& shape);  // "[3, 128]"

template <class T>
constexpr DType dtype_of();
template <>
constexpr DType dtype_of<float>() {
  return DType::kF32;
}
template <>
constexpr DType dtype_of<int32_t>() {
  return DType::kI32;
}
template <>
constexpr DType dtype_of<int64_t>() {
  return DType::kI64;
}
template <>
constexpr DType dtype_of<uint8_t>() {
  return DType::kU8;
}
template <>
constexpr DType dtype_of<int8_t>() {
  return DType::kI8;
}

struct TensorView {
  std::byte* data = nullptr;
  DType dtype = DType::kF32;
  Shape shape;

  TensorView() = default;
  TensorView(void* bytes, DType type, Shape dims) : data(static_cast<std::byte*>(bytes)), dtype(type), shape(dims) {}

  bool empty() const { return data == nullptr; }
  int64_t elements() const { return shape.elements(); }
  size_t bytes() const { return static_cast<size_t>(elements()) * size_of(dtype); }

  // The elements, checked against the type. raw<T>() does not check (bf16 bits as uint16_t, ...).
  template <class T>
  T* as() const {
    SW_CHECK(dtype == dtype_of<T>(), "tensor read as another type");
    return reinterpret_cast<T*>(data);
  }
  template <class T>
  T* raw() const {
    return reinterpret_cast<T*>(data);
  }

  // Rows [begin, end) of the first dimension.
  TensorView rows(int64_t begin, int64_t end) const;
  // The same bytes in another shape of as many elements.
  TensorView reshaped(Shape dims) const;
};

class Tensor {
 public:
  Tensor() = default;
  // Uninitialised, aligned to 64 bytes; large ones ask for huge pages.
  Tensor(DType dtype, Shape shape, Device device = {});
  ~Tensor();
  Tensor(Tensor&& other) noexcept;
  Tensor& operator=(Tensor&& other) noexcept;
  Tensor(const Tensor&) = delete;
  Tensor& operator=(const Tensor&) = delete;

  static Tensor zeros(DType dtype, Shape shape);
  // Over host bytes that somebody else owns and keeps: a mapped file's, say.
  static Tensor borrow(TensorView view);

  bool empty() const { return view_.empty(); }
  const TensorView& view() const { return view_; }
  operator TensorView() const { return view_; }
  DType dtype() const { return view_.dtype; }
  const Shape& shape() const { return view_.shape; }
  Device device() const { return device_; }
  size_t bytes() const { return empty() ? 0 : view_.bytes(); }
  template <class T>
  T* as() const {
    return view_.as<T>();
  }
  template <class T>
  T* raw() const {
    return view_.raw<T>();
  }

 private:
  void release();

  TensorView view_;
  Device device_;
  bool borrowed_ = false;
};

// Bytes aligned to 64 (to 2 MiB with huge pages advised when large); aborts when the system has no memory left. On a
// CUDA device aligned to 256; throws when the driver has none left.
void* allocate_bytes(size_t bytes, Device device = {});
void free_bytes(void* data, size_t bytes, Device device = {});

}  // namespace spillway::tensor
