#include "kernels/cpu/packing.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <string>
#include <vector>

#include "kernels/cpu/kernel_table.h"
#include "kernels/cpu/operations.h"
#include "kernels/cpu/weight_rows.h"
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

namespace {

using tensor::DType;

// Four 32-bit units of four rows, transposed in registers: out[i][c], rows of out kPanel units apart.
typedef uint32_t Units __attribute__((vector_size(16)));

void transpose_4x4(const std::byte* const* rows, int64_t at, std::byte* out) {
  Units a, b, c, d;
  std::memcpy(&a, rows[0] + at, 16);
  std::memcpy(&b, rows[1] + at, 16);
  std::memcpy(&c, rows[2] + at, 16);
  std::memcpy(&d, rows[3] + at, 16);
  const Units ab0 = __builtin_shuffle(a, b, Units{0, 4, 1, 5}), ab1 = __builtin_shuffle(a, b, Units{2, 6, 3, 7});
  const Units cd0 = __builtin_shuffle(c, d, Units{0, 4, 1, 5}), cd1 = __builtin_shuffle(c, d, Units{2, 6, 3, 7});
  const Units columns[4] = {
      __builtin_shuffle(ab0, cd0, Units{0, 1, 4, 5}), __builtin_shuffle(ab0, cd0, Units{2, 3, 6, 7}),
      __builtin_shuffle(ab1, cd1, Units{0, 1, 4, 5}), __builtin_shuffle(ab1, cd1, Units{2, 3, 6, 7})};
  for (int64_t i = 0; i < 4; ++i) std::memcpy(out + i * kPanel * 4, &columns[i], 16);
}

// A row's elements as the format has them, without scales. False when there is no such row.
void convert_row(const PanelRows& rows, int c, PackedFormat format, int64_t k, float* values, std::byte* out) {
  SW_CHECK(read_row(rows, c, 0, k, values), "a row past the last");
  for (int64_t i = 0; i < k; ++i) {
    if (format == PackedFormat::kF32) {
      std::memcpy(out + i * 4, values + i, 4);
    } else {
      const uint16_t bits =
          format == PackedFormat::kF16 ? tensor::float_to_f16(values[i]) : tensor::float_to_bf16(values[i]);
      std::memcpy(out + i * 2, &bits, 2);
    }
  }
}

// By groups of K: kInt8Group, or all of it. smooth: [k] that columns are multiplied with, or null. with_sums: behind
// the scales of each group the sums of its integers (W8A8).
struct Int8Packing {
  int64_t k = 0;
  int64_t group = 0;
  const float* smooth = nullptr;
  bool with_sums = false;
};

void pack_int8(const PanelRows& rows, const Int8Packing& p, std::byte* out, float* scales) {
  const int64_t stride = padded_k(p.group);
  std::vector<float> values(static_cast<size_t>(p.group));
  std::vector<uint8_t> bytes(static_cast<size_t>(kPanel * stride));
  for (int64_t begin = 0; begin < p.k; begin += p.group, scales += p.with_sums ? 2 * kPanel : kPanel) {
    const int64_t count = std::min<int64_t>(p.group, p.k - begin);
    if (count < stride || !rows.full) std::fill(bytes.begin(), bytes.end(), uint8_t{128});
    for (int c = 0; c < kPanel; ++c) {
      if (!read_row(rows, c, begin, count, values.data())) continue;
      for (int64_t i = 0; p.smooth != nullptr && i < count; ++i) values[static_cast<size_t>(i)] *= p.smooth[begin + i];
      uint8_t* row = bytes.data() + c * stride;
      scales[c] = kernel_table().quantize_weights(values.data(), count, row);
      if (!p.with_sums) continue;
      int32_t sum = 0;
      for (int64_t i = 0; i < count; ++i) sum += row[i] - 128;
      scales[kPanel + c] = static_cast<float>(sum);
    }
    const auto words = static_cast<int>(padded_k(count) / 4);
    std::byte* target = out + begin * kPanel;
    for (int c = 0; c < kPanel; c += 4) {
      const std::byte* four[4];
      for (int j = 0; j < 4; ++j) four[j] = reinterpret_cast<const std::byte*>(bytes.data() + (c + j) * stride);
      int i = 0;
      for (; i + 4 <= words; i += 4) transpose_4x4(four, 4 * i, target + (i * kPanel + c) * 4);
      for (; i < words; ++i) {
        for (int j = 0; j < 4; ++j) std::memcpy(target + (i * kPanel + c + j) * 4, four[j] + 4 * i, 4);
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
  const int64_t bytes = panel_bytes(packed.format, padded_k(packed.k));
  const int64_t blocks = (packed.k + packed.scale_block - 1) / packed.scale_block;
  const bool w8a8 = packed.precision == Precision::kW8A8;
  const Int8Packing packing{.k = packed.k, .group = packed.scale_block, .smooth = smooth, .with_sums = w8a8};
  stream.parallel_tasks(panels_of(packed.n), [&](int64_t p, int) {
    pack_int8(rows.panel(p * kPanel), packing, packed.data.raw<std::byte>() + p * bytes,
              packed.scales.as<float>() + p * blocks * (w8a8 ? 2 : 1) * kPanel);
  });
}

int64_t element_bytes(PackedFormat format) { return panel_bytes(format, 4) / (4 * kPanel); }

// Panels of each source's rows at `data`, in order; none has rows of two rows of scale blocks.
void add_panels(const WeightSource& source, const std::byte* data, const float* scales, PackedLinear& packed,
                int64_t& output) {
  const int64_t n = source.weight.shape[source.transposed ? 1 : 0], row = packed.k * element_bytes(packed.format);
  const int64_t block = scales == nullptr ? n : source.block_n;
  for (int64_t begin = 0; begin < n;) {
    const int64_t end = std::min({n, begin + kPanel, (begin / block + 1) * block});
    RowPanel panel{.data = data + begin * row, .scales = nullptr, .first = output + begin, .width = int(end - begin)};
    if (scales != nullptr) panel.scales = scales + begin / block * source.scales.shape[1];
    packed.rows.push_back(panel);
    begin = end;
  }
  output += n;
}

// Rows where the sources have them; false when they cannot stay there.
bool use_in_place(const StackedRows& rows, PackedLinear& packed) {
  for (const WeightSource& source : rows.sources) {
    if (!source.in_place || !as_stored(source, packed.format)) return false;
  }
  int64_t output = 0;
  for (const WeightSource& source : rows.sources) {
    add_panels(source, source.weight.data, source.scales.empty() ? nullptr : source.scales.as<float>(), packed, output);
    packed.bytes_in_place += source.weight.bytes() + (source.scales.empty() ? 0 : source.scales.bytes());
  }
  return true;
}

void copy_rows(const StackedRows& rows, PackedLinear& packed, tensor::Stream& stream) {
  const int64_t row = packed.k * element_bytes(packed.format);
  packed.data = tensor::Tensor(tensor::DType::kU8, tensor::Shape{packed.n * row});
  int64_t scale_count = 0, output = 0, scales = 0;
  for (const WeightSource& source : rows.sources) scale_count += source.scales.empty() ? 0 : source.scales.elements();
  if (scale_count > 0) packed.scales = tensor::Tensor(tensor::DType::kF32, tensor::Shape{scale_count});
  for (const WeightSource& source : rows.sources) {
    const float* own = nullptr;
    if (!source.scales.empty()) {
      own = std::copy_n(source.scales.as<float>(), source.scales.elements(), packed.scales.as<float>() + scales) -
            source.scales.elements();
      scales += source.scales.elements();
    }
    add_panels(source, packed.data.raw<std::byte>() + output * row, own, packed, output);
  }
  const bool stored = as_stored(rows.sources.front(), packed.format);
  stream.parallel_tasks(panels_of(packed.n), [&](int64_t p, int) {
    PanelRows panel = rows.panel(p * kPanel);
    std::vector<float> values(static_cast<size_t>(stored ? 0 : packed.k));
    for (int c = 0; c < std::min<int64_t>(kPanel, packed.n - p * kPanel); ++c) {
      WeightRow& from = panel.row[static_cast<size_t>(c)];
      std::byte* out = packed.data.raw<std::byte>() + (p * kPanel + c) * row;
      from.scales = nullptr;  // they are applied to x
      if (stored) {
        std::memcpy(out, from.data, static_cast<size_t>(row));
      } else {
        convert_row(panel, c, packed.format, packed.k, values.data(), out);
      }
    }
  });
}

// What the store has of these sizes, in place. False when it has nothing that fits.
bool take_stored(PackStore& store, const PackRequest& request, const tensor::Shape& data, const tensor::Shape& scales,
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
  packed.scales = borrow(found->scales, tensor::DType::kF32, scales);
  return true;
}

// Of integers: from the store, or packed now.
void pack_integers(const StackedRows& rows, PackedLinear& packed, tensor::Stream& stream) {
  packed.scale_block = kInt8Group;
  const bool w8a8 = packed.precision == Precision::kW8A8;
  const InputSpread& spread = rows.sources.front().spread;
  const bool smoothed = w8a8 && !spread.sizes.empty();
  const int64_t panels = panels_of(packed.n), blocks = (packed.k + kInt8Group - 1) / kInt8Group;
  const tensor::Shape data{panels * panel_bytes(packed.format, padded_k(packed.k))};
  const tensor::Shape scales = w8a8 ? tensor::Shape{panels * blocks * 2 * kPanel + (smoothed ? packed.k : 0)}
                                    : tensor::Shape{panels, blocks, kPanel};
  PackStore* store = PackScope::current();
  const PackRequest request{.n = packed.n,
                            .k = packed.k,
                            .precision = packed.precision,
                            .format = packed.format,
                            .of = store == nullptr ? 0 : hash_of(rows, *store)};
  if (store != nullptr && take_stored(*store, request, data, scales, packed)) return;
  packed.data = tensor::Tensor(tensor::DType::kU8, data);
  packed.scales = tensor::Tensor::zeros(tensor::DType::kF32, scales);
  std::vector<float> smooth;
  if (smoothed) {
    smooth = smoothing(rows, spread);
    float* by = packed.scales.as<float>() + panels * blocks * 2 * kPanel;
    for (size_t i = 0; i < smooth.size(); ++i) by[i] = 1.0f / smooth[i];
  }
  pack_panels(rows, smoothed ? smooth.data() : nullptr, packed, stream);
  if (store != nullptr) store->keep(request, packed);
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
  if (packed.format == PackedFormat::kInt8) {
    pack_integers(rows, packed, stream);
    return packed;
  }
  if (packed.format == PackedFormat::kF8 && first.transposed) {
    return unsupported("expected a transposed weight of f32, bf16 or f16, found f8e4m3");
  }
  if (packed.format == PackedFormat::kF8 && precision == Precision::kBf16 && packed.n * packed.k <= kWidenedElements) {
    packed.format = PackedFormat::kBf16;
  }
  if (!first.scales.empty()) packed.scale_block = first.block_k;
  if (!use_in_place(rows, packed)) copy_rows(rows, packed, stream);
  return packed;
}
}  // namespace spillway::kernels::cpu
