#include "weights/weight_scope.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

namespace spillway::weights {

Result<StoredTensor> WeightScope::tensor(const std::string& name, const tensor::Shape& shape,
                                         std::span<const tensor::DType> dtypes) const {
  const std::string full = path(name);
  SW_ASSIGN(StoredTensor stored, source_->open(full, shape, dtypes));
  const tensor::TensorView& view = stored.view();
  if (!(view.shape == shape)) {
    return invalid(fmt::format("tensor '{}': expected shape {}, found {}", full, tensor::to_string(shape),
                               tensor::to_string(view.shape)));
  }
  if (std::find(dtypes.begin(), dtypes.end(), view.dtype) == dtypes.end()) {
    std::string list;
    for (const tensor::DType dtype : dtypes)
      list += fmt::format("{}{}", list.empty() ? "" : " or ", tensor::name_of(dtype));
    return invalid(fmt::format("tensor '{}': expected type {}, found {}", full, list, tensor::name_of(view.dtype)));
  }
  return stored;
}

Result<tensor::Tensor> WeightScope::f32(const std::string& name, const tensor::Shape& shape) const {
  SW_ASSIGN(const StoredTensor stored, tensor(name, shape));
  const bool aligned = reinterpret_cast<uintptr_t>(stored.view().data) % alignof(float) == 0;
  if (stored.view().dtype == tensor::DType::kF32 && stored.in_place() && aligned) {
    return tensor::Tensor::borrow(stored.view());
  }
  tensor::Tensor out(tensor::DType::kF32, shape);
  widen(stored.view(), out.as<float>());
  return out;
}

void widen(const tensor::TensorView& from, float* to) {
  const int64_t count = from.elements();
  // A checkpoint's tensors may lie at any byte.
  const auto read16 = [&](int64_t i) {
    uint16_t bits;
    std::memcpy(&bits, from.data + i * 2, 2);
    return bits;
  };
  switch (from.dtype) {
    case tensor::DType::kF32:
      std::memcpy(to, from.data, size_t(count) * sizeof(float));
      return;
    case tensor::DType::kBF16:
      for (int64_t i = 0; i < count; ++i) to[i] = tensor::bf16_to_float(read16(i));
      return;
    case tensor::DType::kF16:
      for (int64_t i = 0; i < count; ++i) to[i] = tensor::f16_to_float(read16(i));
      return;
    default:
      SW_CHECK(false, "widen takes f32, bf16 and f16");
  }
}

}  // namespace spillway::weights
