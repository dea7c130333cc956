// Arena: a bump allocator for one step's activations, in the memory of one device. reset() at the start of a step frees
// everything at once; the capacity is fixed at load so that a step never asks the system for memory. One owner, one
// thread.
#pragma once

#include "tensor/tensor.h"

namespace spillway::tensor {

class Arena {
 public:
  explicit Arena(size_t capacity_bytes, Device device = {});
  ~Arena();
  Arena(Arena&& other) noexcept;
  Arena& operator=(Arena&& other) noexcept;
  Arena(const Arena&) = delete;
  Arena& operator=(const Arena&) = delete;

  // Uninitialised; a CHECK when the capacity was sized wrongly.
  TensorView allocate(DType dtype, Shape shape);
  TensorView f32(Shape shape) { return allocate(DType::kF32, shape); }

  void reset() { used_ = 0; }
  // mark()/rewind(): give back what was taken since, for temporaries of a layer.
  size_t mark() const { return used_; }
  void rewind(size_t mark) { used_ = mark; }

  size_t capacity_bytes() const { return capacity_; }
  size_t used_bytes() const { return used_; }
  size_t peak_bytes() const { return peak_; }

  // What allocate() takes for such a tensor, to size the capacity.
  static size_t footprint(DType dtype, const Shape& shape);

 private:
  std::byte* data_ = nullptr;
  size_t capacity_ = 0;
  size_t used_ = 0;
  size_t peak_ = 0;
  Device device_;
};

}  // namespace spillway::tensor
