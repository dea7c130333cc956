#include "kernels/late_weight.h"

#include <algorithm>
#include <utility>

#include "kernels/cpu/int8_packing.h"
#include "kernels/cpu/kernel_table.h"
#include "kernels/cpu/packing.h"
#include "kernels/cpu/panel_copy.h"

namespace spillway::kernels {

LateWeight::LateWeight(Rows rows, PackedFormat format, tensor::Tensor scales, std::vector<tensor::TensorView> sources)
    : rows_(std::move(rows)), format_(format), scales_(std::move(scales)), sources_(std::move(sources)) {
  SW_CHECK(rows_.data.size() % cpu::kPanel == 0, "rows of " + std::to_string(rows_.data.size()) + " outputs");
}

const std::byte* const* LateWeight::rows(int64_t panel) const {
  const auto at = static_cast<size_t>(panel * cpu::kPanel);
  return at < rows_.data.size() ? rows_.data.data() + at : nullptr;
}

size_t LateWeight::bytes() const {
  return rows_.data.size() / cpu::kPanel * static_cast<size_t>(cpu::panel_bytes(format_, cpu::padded_k(rows_.k)));
}

void LateWeight::piece(Place place, int64_t count, std::byte* out, float* scales, Place next) const {
  cpu::NextRows fetched{.rows = rows(next.panel), .begin = next.k};
  if (fetched.rows != nullptr && fetched.rows[cpu::kPanel - 1] == nullptr) fetched.rows = nullptr;
  const std::byte* const* data = rows(place.panel);
  const int64_t end = std::min(place.k + count, rows_.k);
  if (format_ != PackedFormat::kInt8) return cpu::copy_panel(data, format_, place.k, end - place.k, out, fetched);
  cpu::PanelRows panel{.row = {}, .dtype = rows_.dtype, .full = data[cpu::kPanel - 1] != nullptr};
  for (size_t c = 0; c < cpu::kPanel; ++c) panel.row[c].data = data[c];
  cpu::pack_int8(panel, {}, place.k, end, out, scales, fetched);
}

std::span<const std::byte> LateWeight::pack() {
  SW_CHECK(panels() == nullptr, "a weight is packed once");
  const auto count = static_cast<int64_t>(rows_.data.size()) / cpu::kPanel;
  const int64_t k = cpu::padded_k(rows_.k), bytes = cpu::panel_bytes(format_, k);
  const int64_t scales = format_ == PackedFormat::kInt8 ? scales_.view().elements() / count : 0;
  data_ = tensor::Tensor(tensor::DType::kU8, {count * bytes});
  auto* out = data_.raw<std::byte>();
  for (int64_t p = 0; p < count; ++p) {
    float* panel_scales = scales > 0 ? scales_.as<float>() + p * scales : nullptr;
    piece({.panel = p, .k = 0}, k, out + p * bytes, panel_scales, {.panel = p + 1, .k = 0});
  }
  panels_.store(out, std::memory_order_release);
  return {out, data_.bytes()};
}

size_t PackedLinear::bytes() const { return (late == nullptr ? data.bytes() : late->bytes()) + scales.bytes(); }

}  // namespace spillway::kernels
