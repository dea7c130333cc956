#include "kernels/late_weight.h"

#include <utility>

#include "kernels/cpu/kernel_table.h"
#include "kernels/cpu/packing.h"
#include "kernels/cpu/panel_copy.h"

namespace spillway::kernels {

LateWeight::LateWeight(PackedFormat format, int64_t k, std::vector<const std::byte*> rows, tensor::Tensor scales,
                       std::vector<tensor::TensorView> sources)
    : format_(format), k_(k), rows_(std::move(rows)), scales_(std::move(scales)), sources_(std::move(sources)) {
  SW_CHECK(rows_.size() % cpu::kPanel == 0, "rows of " + std::to_string(rows_.size()) + " outputs");
}

const std::byte* const* LateWeight::rows(int64_t panel) const {
  const auto at = static_cast<size_t>(panel * cpu::kPanel);
  return at < rows_.size() ? rows_.data() + at : nullptr;
}

size_t LateWeight::bytes() const {
  return rows_.size() / cpu::kPanel * static_cast<size_t>(cpu::panel_bytes(format_, cpu::padded_k(k_)));
}

std::span<const std::byte> LateWeight::pack() {
  SW_CHECK(panels() == nullptr, "a weight is packed once");
  const auto count = static_cast<int64_t>(rows_.size()) / cpu::kPanel;
  const int64_t bytes = cpu::panel_bytes(format_, cpu::padded_k(k_));
  data_ = tensor::Tensor(tensor::DType::kU8, {count * bytes});
  auto* out = data_.raw<std::byte>();
  for (int64_t p = 0; p < count; ++p) cpu::copy_panel(rows(p), format_, 0, k_, out + p * bytes);
  panels_.store(out, std::memory_order_release);
  return {out, data_.bytes()};
}

size_t PackedLinear::bytes() const { return (late == nullptr ? data.bytes() : late->bytes()) + scales.bytes(); }

}  // namespace spillway::kernels
