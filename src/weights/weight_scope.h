// WeightScope: a dotted prefix over a WeightSource. A layer asks for its weights by their last names, with the shape
// and types it expects; the error gives the full name, and expected and found. A value, cheap to copy; borrows the
// source.
#pragma once

#include <span>
#include <string>

#include "weights/weight_source.h"

namespace spillway::weights {

class WeightScope {
 public:
  explicit WeightScope(const WeightSource& source, std::string prefix = "")
      : source_(&source), prefix_(std::move(prefix)) {}

  WeightScope scope(const std::string& name) const { return WeightScope(*source_, path(name)); }
  WeightScope scope(const std::string& name, int index) const { return scope(name + "." + std::to_string(index)); }

  std::string path(const std::string& name) const { return prefix_.empty() ? name : prefix_ + "." + name; }
  bool contains(const std::string& name) const { return source_->contains(path(name)); }

  Result<StoredTensor> tensor(const std::string& name, const tensor::Shape& shape,
                              std::span<const tensor::DType> dtypes = kFloatTypes) const;

  // The same as float32, for the small weights that stay in full precision. Read-only, and for as long as the source
  // lives: those stored as float32 are not copied.
  Result<tensor::Tensor> f32(const std::string& name, const tensor::Shape& shape) const;

 private:
  const WeightSource* source_;
  std::string prefix_;
};

// Widens bf16, f16 or f32 to float32, exactly.
void widen(const tensor::TensorView& from, float* to);

}  // namespace spillway::weights
