#include "kernels/cpu/packing.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <string>
#include <vector>

#include "kernels/cpu/int8_packing.h"
#include "kernels/cpu/kernel_table.h"
#include "kernels/cpu/operations.h"
#include "kernels/cpu/panel_copy.h"
#include "kernels/cpu/weight_rows.h"
#include "kernels/late_weight.h"
#include "kernels/pack_store.h"

namespace spillway::kernels::cpu {

int64_t padded_k(int64_t k) { return (k + 3) / 4 * 4; }
int64_t panels_of(int64_t n) { return (n + kPanel - 1) / kPanel; }

int64_t panel_bytes(PackedFormat format, int64_t k) {
  const int64_t elements = k * kPanel;
  switch (format) {
    case PackedFormat::kF32:
      return elements * 4;
    case PackedFormat::kF16:
    case PackedFormat::kBf16:
      return elements * 2;
    case PackedFormat::kF8:
    case PackedFormat::kInt8:
    case PackedFormat::kInt4:
      break;
  }
  return elements;
}

int f8_byte(int c, int second) { return 16 * (c % 16 / 4) + 8 * (c / 16) + 2 * (c % 4) + second; }

namespace {

using tensor::DType;

// Rows that are rounded first: the panel's bytes as copy_panel() makes them of bf16 rows.
void pack_rounded(const PanelRows& rows, int64_t k, std::byte* out) {
  std::vector<float> values(static_cast<size_t>(k));
  std::vector<uint16_t> rounded(static_cast<size_t>(k * kPanel));
  const std::byte* data[kPanel] = {};
  for (int c = 0; c < kPanel && read_row(rows, c, 0, k, values.data()); ++c) {
    uint16_t* row = rounded.data() + c * k;
    kernel_table().round_to_bf16(values.data(), k, row);
    data[c] = reinterpret_cast<const std::byte*>(row);
  }
  copy_panel(data, PackedFormat::kBf16, 0, k, out);
}

void pack_converted(const PanelRows& rows, PackedFormat format, int64_t k, std::byte* out) {
  std::vector<float> values(static_cast<size_t>(k));
  for (int c = 0; c < kPanel; ++c) {
    if (!read_row(rows, c, 0, k, values.data())) continue;
    for (int64_t i = 0; i < k; ++i) {
      const float value = values[static_cast<size_t>(i)];
      if (format == PackedFormat::kF32) {
        std::memcpy(out + (i * kPanel + c) * 4, &value, 4);
      } else {
        const uint16_t bits = tensor::float_to_f16(value);
        std::memcpy(out + (i * kPanel + c) * 2, &bits, 2);
      }
    }
  }
}

// What columns are multiplied with so that inputs of very different size can share a scale: spread^kShare / (largest
// weight of the column)^(1 - kShare).
constexpr float kShare = 0.3f;
constexpr float kLeast = 1e-3f;  // of the largest: what is smaller counts as this

std::vector<float> smoothing(const StackedRows& rows, const InputSpread& spread) {
  const auto k = static_cast<size_t>(rows.k);
  std::vector<float> largest(k, 0.0f), values(k);
  for (int64_t n = spread.first_output; n < rows.n; n += kPanel) {
    const PanelRows panel = rows.panel(n);
    for (int c = 0; c < kPanel && read_row(panel, c, 0, rows.k, values.data()); ++c) {
      for (size_t i = 0; i < k; ++i) largest[i] = std::max(largest[i], std::fabs(values[i]));
    }
  }
  const float* inputs = spread.sizes.as<float>();
  const float most_input = std::max(*std::max_element(inputs, inputs + k), 1e-30f);
  const float most_weight = std::max(*std::max_element(largest.begin(), largest.end()), 1e-30f);
  std::vector<float> by(k);
  for (size_t i = 0; i < k; ++i) {
    by[i] = std::pow(std::max(inputs[i] / most_input, kLeast), kShare) /
            std::pow(std::max(largest[i] / most_weight, kLeast), 1 - kShare);
  }
  return by;
}

void pack_scales(const PanelRows& rows, int64_t blocks, float* out) {
  for (int64_t b = 0; b < blocks; ++b) {
    for (int c = 0; c < kPanel; ++c) {
      const float* scales = rows.row[static_cast<size_t>(c)].scales;
      out[b * kPanel + c] = scales == nullptr ? 0.0f : scales[b];
    }
  }
}

PackedFormat format_of(DType stored, Precision precision) {
  if (precision == Precision::kInt8 || precision == Precision::kW8A8) return PackedFormat::kInt8;
  if (stored == DType::kF8E4M3) return PackedFormat::kF8;
  if (stored == DType::kBF16 || precision == Precision::kBf16) return PackedFormat::kBf16;
  return stored == DType::kF16 ? PackedFormat::kF16 : PackedFormat::kF32;
}

// Up to so many elements f8 weights are kept as bf16, unscaled: they stay in the cache, where widening them for every
// use costs more than reading twice the bytes. The products' bits are the same.
constexpr int64_t kWidenedElements = 1 << 18;

// True when the stored bytes are already the format's elements.
bool as_stored(const WeightSource& source, PackedFormat format) {
  if (source.transposed) return false;
  const DType stored = source.weight.dtype;
  return (format == PackedFormat::kF32 && stored == DType::kF32) ||
         (format == PackedFormat::kF16 && stored == DType::kF16) ||
         (format == PackedFormat::kBf16 && stored == DType::kBF16) || format == PackedFormat::kF8;
}

// FNV-1a of each source's stored type, shape and place, or first bytes.
uint64_t hash_of(const StackedRows& rows, PackStore& store) {
  uint64_t hash = 14695981039346656037ull;
  const auto add = [&](const std::byte* bytes, size_t count) {
    for (size_t i = 0; i < count; ++i) hash = (hash ^ uint64_t(bytes[i])) * 1099511628211ull;
  };
  for (const WeightSource& source : rows.sources) {
    const int64_t shape[] = {source.weight.shape[0], source.weight.shape[1], int64_t(source.weight.dtype),
                             source.transposed};
    add(reinterpret_cast<const std::byte*>(shape), sizeof(shape));
    if (!source.spread.sizes.empty()) add(source.spread.sizes.data, source.spread.sizes.bytes());
    const auto place = store.locate(source.weight.data);
    if (place) {
      add(reinterpret_cast<const std::byte*>(&*place), sizeof(*place));
    } else {
      add(source.weight.data, std::min<size_t>(64, source.weight.bytes()));
    }
  }
  return hash;
}

// smooth: [k], or null.
void pack_panels(const StackedRows& rows, const float* smooth, PackedLinear& packed, tensor::Stream& stream) {
  const WeightSource& first = rows.sources.front();
  const int64_t bytes = panel_bytes(packed.format, padded_k(packed.k));
  const bool int8 = packed.format == PackedFormat::kInt8, scaled = packed.scale_block > 0;
  const int64_t blocks = scaled ? (packed.k + packed.scale_block - 1) / packed.scale_block : 0;
  const bool stored = as_stored(first, packed.format), w8a8 = packed.precision == Precision::kW8A8;
  const Int8Packing packing{.group = packed.scale_block, .smooth = smooth, .with_sums = w8a8};
  stream.parallel_tasks(panels_of(packed.n), [&](int64_t p, int) {
    PanelRows panel = rows.panel(p * kPanel);
    std::byte* out = packed.data.raw<std::byte>() + p * bytes;
    float* scales = scaled ? packed.scales.as<float>() + p * blocks * (w8a8 ? 2 : 1) * kPanel : nullptr;
    if (int8) return pack_int8(panel, packing, 0, packed.k, out, scales);
    if (scaled) pack_scales(panel, blocks, scales);
    if (stored) {
      const std::byte* data[kPanel];
      for (size_t c = 0; c < kPanel; ++c) data[c] = panel.row[c].data;
      return copy_panel(data, packed.format, 0, packed.k, out);
    }
    if (scaled) {
      for (WeightRow& row : panel.row) row.scales = nullptr;  // they are applied to the sums
    }
    if (packed.format == PackedFormat::kBf16) return pack_rounded(panel, packed.k, out);
    if (!panel.full || padded_k(packed.k) != packed.k) std::memset(out, 0, static_cast<size_t>(bytes));
    pack_converted(panel, packed.format, packed.k, out);
  });
}

// Whether products can have pieces of the panel from the source's rows.
bool has_pieces(const WeightSource& source, const PackedLinear& packed) {
  if (packed.precision == Precision::kInt8) return !source.transposed && source.scales.empty();
  return packed.format != PackedFormat::kF16 && as_stored(source, packed.format);
}

// Whether the sources' bytes stay where they are until the panels are made.
bool is_late(PackLater* later, const StackedRows& rows, const PackedLinear& packed) {
  if (later == nullptr) return false;
  for (const WeightSource& source : rows.sources) {
    if (!has_pieces(source, packed) || !later->take(source.weight)) return false;
  }
  return true;
}

void pack_later(PackLater& later, const PackRequest& request, const StackedRows& rows, PackedLinear& packed) {
  std::vector<const std::byte*> pointers(static_cast<size_t>(panels_of(rows.n) * kPanel));
  for (int64_t n = 0; n < rows.n; ++n) pointers[static_cast<size_t>(n)] = rows.row(n).data;
  if (packed.scale_block > 0 && packed.format != PackedFormat::kInt8) {
    const int64_t blocks = packed.scales.shape()[1];
    for (int64_t p = 0; p < panels_of(rows.n); ++p) {
      pack_scales(rows.panel(p * kPanel), blocks, packed.scales.as<float>() + p * blocks * kPanel);
    }
  }
  std::vector<tensor::TensorView> sources;
  for (const WeightSource& source : rows.sources) sources.push_back(source.weight);
  const tensor::TensorView scales = packed.scales.view();
  packed.late =
      std::make_shared<LateWeight>(LateWeight::Rows{rows.sources.front().weight.dtype, rows.k, std::move(pointers)},
                                   packed.format, std::move(packed.scales), std::move(sources));
  packed.scales = tensor::Tensor::borrow(scales);
  later.add(request, packed.late);
}

// What the store has of these sizes, in place. False when it has nothing that fits.
bool take_stored(PackStore& store, PackRequest& request, const tensor::Shape& data, const tensor::Shape& scales,
                 PackedLinear& packed) {
  const auto found = store.find(request);
  if (!found || int64_t(found->data.size()) != data.elements() ||
      found->scales.size() != size_t(scales.elements()) * sizeof(float)) {
    return false;
  }
  // Nothing writes to packed weights; the mapping would not allow it.
  const auto borrow = [](std::span<const std::byte> bytes, tensor::DType dtype, const tensor::Shape& shape) {
    return tensor::Tensor::borrow({const_cast<std::byte*>(bytes.data()), dtype, shape});
  };
  packed.data = borrow(found->data, tensor::DType::kU8, data);
  if (packed.scale_block > 0) packed.scales = borrow(found->scales, tensor::DType::kF32, scales);
  return true;
}

}  // namespace

const float* multipliers_of(const PackedLinear& weight) {
  if (weight.precision != Precision::kW8A8) return nullptr;
  const int64_t blocks = (weight.k + weight.scale_block - 1) / weight.scale_block;
  const int64_t scales = panels_of(weight.n) * blocks * 2 * kPanel;
  return weight.scales.view().elements() == scales ? nullptr : weight.scales.as<float>() + scales;
}

Result<PackedLinear> pack_linear(std::span<const WeightSource> sources, Precision precision, tensor::Stream& stream) {
  SW_ASSIGN(const StackedRows rows, stack_rows(sources));
  const WeightSource& first = sources.front();
  PackedLinear packed;
  packed.n = rows.n;
  packed.k = rows.k;
  packed.precision = precision;
  packed.format = format_of(first.weight.dtype, precision);
  if (packed.format == PackedFormat::kF8 && first.transposed) {
    return unsupported("expected a transposed weight of f32, bf16 or f16, found f8e4m3");
  }
  if (packed.format == PackedFormat::kF8 && precision == Precision::kBf16 && packed.n * packed.k <= kWidenedElements) {
    packed.format = PackedFormat::kBf16;
  }
  const int64_t panels = panels_of(packed.n);
  const bool int8 = packed.format == PackedFormat::kInt8, scaled = int8 || !first.scales.empty();
  if (scaled) packed.scale_block = int8 ? kInt8Group : first.block_k;
  const int64_t blocks = scaled ? (packed.k + packed.scale_block - 1) / packed.scale_block : 0;
  const bool smoothed = precision == Precision::kW8A8 && !first.spread.sizes.empty();
  const tensor::Shape data{panels * panel_bytes(packed.format, padded_k(packed.k))};
  const tensor::Shape scales = precision == Precision::kW8A8
                                   ? tensor::Shape{panels * blocks * 2 * kPanel + (smoothed ? packed.k : 0)}
                                   : tensor::Shape{panels, blocks, kPanel};
  PackStore* store = PackScope::store();
  PackRequest request{.n = packed.n,
                      .k = packed.k,
                      .precision = precision,
                      .format = packed.format,
                      .of = store == nullptr ? 0 : hash_of(rows, *store)};
  if (store != nullptr && take_stored(*store, request, data, scales, packed)) return packed;
  if (scaled) packed.scales = tensor::Tensor::zeros(tensor::DType::kF32, scales);
  if (PackLater* later = PackScope::later(); is_late(later, rows, packed)) {
    pack_later(*later, request, rows, packed);
    return packed;
  }
  packed.data = tensor::Tensor(tensor::DType::kU8, data);
  std::vector<float> smooth;
  if (smoothed) {
    smooth = smoothing(rows, first.spread);
    float* by = packed.scales.as<float>() + panels * blocks * 2 * kPanel;
    for (size_t i = 0; i < smooth.size(); ++i) by[i] = 1.0f / smooth[i];
  }
  pack_panels(rows, smoothed ? smooth.data() : nullptr, packed, stream);
  if (store != nullptr) store->keep(request, packed);
  return packed;
}

}  // namespace spillway::kernels::cpu
