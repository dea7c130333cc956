#include "kernels/cpu/weight_rows.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <string>

#include "kernels/cpu/operations.h"

namespace spillway::kernels::cpu {
namespace {

using tensor::DType;

// Exact, without branches: the exponent is moved by a multiplication that also handles subnormals.
float widen_half(uint16_t bits) {
  const float magnitude = std::bit_cast<float>((bits & 0x7fffu) << 13) * 0x1p112f;
  const uint32_t special =
      (bits & 0x7c00) == 0x7c00 ? 0x7f800000u | (bits & 0x3ffu) << 13 : std::bit_cast<uint32_t>(magnitude);
  return std::bit_cast<float>(special | (bits & 0x8000u) << 16);
}

template <class T, class Convert>
void convert_row(const std::byte* data, int64_t stride, int64_t count, float* out, Convert convert) {
  for (int64_t i = 0; i < count; ++i) {
    T value;
    std::memcpy(&value, data + i * stride * static_cast<int64_t>(sizeof(T)), sizeof(T));
    out[i] = convert(value);
  }
}

void convert_elements(DType dtype, const std::byte* data, int64_t stride, int64_t count, float* out) {
  const auto widen_bf16 = [](uint16_t bits) { return std::bit_cast<float>(uint32_t{bits} << 16); };
  switch (dtype) {
    case DType::kF32:
      return convert_row<float>(data, stride, count, out, [](float value) { return value; });
    case DType::kBF16:
      if (stride == 1) return kernel_table().widen_row_bf16(reinterpret_cast<const uint16_t*>(data), count, out);
      return convert_row<uint16_t>(data, stride, count, out, widen_bf16);
    case DType::kF16:
      return convert_row<uint16_t>(data, stride, count, out, widen_half);
    default:
      if (stride == 1) return kernel_table().widen_row_f8(reinterpret_cast<const uint8_t*>(data), count, out);
      return convert_row<uint8_t>(data, stride, count, out, tensor::f8e4m3_to_float);
  }
}

Status check_source(const WeightSource& source, const WeightSource& first) {
  const auto& weight = source.weight;
  const DType dtype = weight.dtype;
  if (dtype != DType::kF32 && dtype != DType::kBF16 && dtype != DType::kF16 && dtype != DType::kF8E4M3) {
    return unsupported("expected a weight of f32, bf16, f16 or f8e4m3, found " + std::string(tensor::name_of(dtype)));
  }
  if (weight.shape.rank() != 2 || weight.elements() == 0) {
    return invalid("expected a weight of shape [N, K], found " + to_string(weight.shape));
  }
  const int k_at = source.transposed ? 0 : 1;
  if (dtype != first.weight.dtype || source.transposed != first.transposed ||
      weight.shape[k_at] != first.weight.shape[k_at] || source.scales.empty() != first.scales.empty()) {
    return invalid("expected stacked weights of one type and inner size, found " +
                   std::string(tensor::name_of(first.weight.dtype)) + to_string(first.weight.shape) + " and " +
                   std::string(tensor::name_of(dtype)) + to_string(weight.shape));
  }
  if (source.scales.empty()) return {};
  if (dtype != DType::kF8E4M3 || source.transposed) {
    return unsupported("expected block scales with f8e4m3 weights only, found them with " +
                       std::string(tensor::name_of(dtype)));
  }
  if (source.block_n <= 0 || source.block_k <= 0 || source.block_k % 4 != 0 || source.block_k != first.block_k) {
    return invalid("expected scale blocks of a multiple of 4 along K, found " + std::to_string(source.block_k));
  }
  const tensor::Shape expected{(weight.shape[0] + source.block_n - 1) / source.block_n,
                               (weight.shape[1] + source.block_k - 1) / source.block_k};
  if (source.scales.dtype != DType::kF32 || source.scales.shape != expected) {
    return invalid("expected scales f32" + to_string(expected) + " for a weight of " + to_string(weight.shape) +
                   ", found " + std::string(tensor::name_of(source.scales.dtype)) + to_string(source.scales.shape));
  }
  return {};
}

}  // namespace

Result<StackedRows> stack_rows(std::span<const WeightSource> sources) {
  SW_CHECK(!sources.empty(), "no weight to pack");
  StackedRows stacked;
  for (const WeightSource& source : sources) {
    SW_TRY(check_source(source, sources.front()));
    stacked.n += source.weight.shape[source.transposed ? 1 : 0];
  }
  stacked.k = sources.front().weight.shape[sources.front().transposed ? 0 : 1];
  stacked.sources.assign(sources.begin(), sources.end());
  return stacked;
}

WeightRow StackedRows::row(int64_t index) const {
  for (const WeightSource& source : sources) {
    const int64_t rows = source.weight.shape[source.transposed ? 1 : 0];
    if (index >= rows) {
      index -= rows;
      continue;
    }
    const auto size = static_cast<int64_t>(tensor::size_of(source.weight.dtype));
    WeightRow row;
    row.stride = source.transposed ? rows : 1;
    row.data = source.weight.data + index * (source.transposed ? 1 : k) * size;
    if (!source.scales.empty())
      row.scales = source.scales.as<float>() + index / source.block_n * source.scales.shape[1];
    return row;
  }
  return {};
}

PanelRows StackedRows::panel(int64_t first) const {
  PanelRows panel;
  panel.dtype = sources.front().weight.dtype;
  panel.block_k = sources.front().block_k;
  for (int c = 0; c < kPanel; ++c) panel.row[static_cast<size_t>(c)] = row(first + c);
  panel.full = panel.row.back().data != nullptr;
  return panel;
}

bool read_row(const PanelRows& rows, int c, int64_t begin, int64_t count, float* out) {
  const WeightRow& row = rows.row[static_cast<size_t>(c)];
  if (row.data == nullptr) return false;
  const auto size = static_cast<int64_t>(tensor::size_of(rows.dtype));
  convert_elements(rows.dtype, row.data + begin * row.stride * size, row.stride, count, out);
  if (row.scales == nullptr) return true;
  for (int64_t i = 0; i < count;) {
    const int64_t block = (begin + i) / rows.block_k;
    const int64_t end = std::min(count, (block + 1) * rows.block_k - begin);
    for (; i < end; ++i) out[i] *= row.scales[block];
  }
  return true;
}

Result<tensor::Tensor> dequantize(const WeightSource& source, tensor::Stream& stream) {
  SW_ASSIGN(const StackedRows rows, stack_rows(std::span(&source, 1)));
  tensor::Tensor out(tensor::DType::kF32, source.weight.shape);
  float* data = out.as<float>();
  const int64_t row = source.weight.shape[1];
  const auto size = static_cast<int64_t>(tensor::size_of(source.weight.dtype));
  stream.parallel_for(source.weight.shape[0], 16, [&](int64_t begin, int64_t end, int) {
    for (int64_t n = begin; n < end; ++n) {
      float* target = data + n * row;
      convert_elements(source.weight.dtype, source.weight.data + n * row * size, 1, row, target);
      if (source.scales.empty()) continue;
      const float* scales = source.scales.as<float>() + n / source.block_n * source.scales.shape[1];
      for (int64_t begin_k = 0; begin_k < row; begin_k += source.block_k) {
        const float scale = scales[begin_k / source.block_k];
        for (int64_t i = begin_k; i < std::min(row, begin_k + source.block_k); ++i) target[i] *= scale;
      }
    }
  });
  return out;
}

}  // namespace spillway::kernels::cpu
