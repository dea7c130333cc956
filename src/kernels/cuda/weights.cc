// Weights on the device, in the checkpoint's own layout: row-major [N, K], sources stacked along N. float32 in fp32;
// bf16 otherwise (f16 below sm_80), but FP8 blocks stay as they are where the stacked scales line up.
#include <cstring>

#include "kernels/cpu/operations.h"
#include "kernels/cuda/layers.h"

namespace spillway::kernels::cuda {
namespace {

using tensor::DType;
using tensor::Tensor;

constexpr int64_t kBlock = 128;

// FP8 scales of stacked sources line up when each but the last has whole blocks of rows.
bool scales_align(std::span<const WeightSource> sources) {
  for (size_t i = 0; i < sources.size(); ++i) {
    const WeightSource& s = sources[i];
    if (s.weight.dtype != DType::kF8E4M3 || s.transposed || s.scales.empty() || s.block_n != kBlock ||
        s.block_k != kBlock || s.weight.shape[1] % 16 != 0)
      return false;
    if (i + 1 < sources.size() && s.weight.shape[0] % kBlock != 0) return false;
  }
  return true;
}

void convert(const float* from, DType dtype, int64_t count, std::byte* to) {
  if (dtype == DType::kF32) {
    std::memcpy(to, from, size_t(count) * sizeof(float));
    return;
  }
  auto* halves = reinterpret_cast<uint16_t*>(to);
  for (int64_t i = 0; i < count; ++i)
    halves[i] = dtype == DType::kBF16 ? tensor::float_to_bf16(from[i]) : tensor::float_to_f16(from[i]);
}

// The source as `dtype` [N, K] on the host.
Result<Tensor> as_rows(const WeightSource& source, DType dtype, tensor::Stream& stream) {
  SW_ASSIGN(const Tensor full, cpu::dequantize(source, stream));
  const int64_t rows = full.shape()[0], columns = full.shape()[1];
  Tensor out(dtype, source.transposed ? tensor::Shape{columns, rows} : full.shape());
  Tensor turned;
  const float* values = full.as<float>();
  if (source.transposed) {
    turned = Tensor(DType::kF32, out.shape());
    for (int64_t r = 0; r < rows; ++r)
      for (int64_t c = 0; c < columns; ++c) turned.as<float>()[c * rows + r] = values[r * columns + c];
    values = turned.as<float>();
  }
  const size_t size = tensor::size_of(dtype);
  stream.parallel_for(out.shape().elements(), 1 << 14, [&](int64_t begin, int64_t end, int) {
    convert(values + begin, dtype, end - begin, out.view().data + size_t(begin) * size);
  });
  return out;
}

PackedLinear make(int64_t n, int64_t k, Precision precision, bool fp8, int64_t copies, tensor::Device device) {
  PackedLinear packed;
  packed.n = n;
  packed.k = k;
  packed.precision = precision;
  const DType dtype = fp8 ? DType::kF8E4M3 : precision == Precision::kFp32 ? DType::kF32 : half_type(device);
  packed.format = fp8                    ? PackedFormat::kF8
                  : dtype == DType::kF32 ? PackedFormat::kF32
                  : dtype == DType::kF16 ? PackedFormat::kF16
                                         : PackedFormat::kBf16;
  packed.scale_block = fp8 ? int(kBlock) : 0;
  packed.data = Tensor(dtype, {copies * n, k}, device);
  if (fp8)
    packed.scales = Tensor(DType::kF32, {copies * ((n + kBlock - 1) / kBlock), (k + kBlock - 1) / kBlock}, device);
  return packed;
}

// Copies the sources to rows [row, ...) of packed.
Status fill(PackedLinear& packed, int64_t row, std::span<const WeightSource> sources, tensor::Stream& stream) {
  const DType dtype = packed.data.dtype();
  const size_t row_bytes = size_t(packed.k) * tensor::size_of(dtype);
  int64_t scale_row = row / packed.n * ((packed.n + kBlock - 1) / kBlock);
  for (const WeightSource& source : sources) {
    std::byte* to = packed.data.view().data + size_t(row) * row_bytes;
    if (source.weight.dtype == dtype && !source.transposed) {
      stream.upload(to, source.weight.data, source.weight.bytes());
    } else {
      SW_ASSIGN(const Tensor rows, as_rows(source, dtype, stream));
      stream.upload(to, rows.view().data, rows.bytes());
    }
    if (packed.format == PackedFormat::kF8) {
      float* scales = packed.scales.raw<float>() + scale_row * packed.scales.shape()[1];
      stream.upload(scales, source.scales.data, source.scales.bytes());
      scale_row += source.scales.shape[0];
    }
    row += source.weight.shape[source.transposed ? 1 : 0];
  }
  return {};
}

Result<int64_t> stacked_rows(std::span<const WeightSource> sources) {
  SW_CHECK(!sources.empty(), "no sources to pack");
  int64_t rows = 0;
  const auto columns = [](const WeightSource& s) { return s.weight.shape[s.transposed ? 0 : 1]; };
  for (const WeightSource& source : sources) {
    if (columns(source) != columns(sources[0]))
      return invalid("expected stacked weights of equal width, found " + to_string(source.weight.shape));
    rows += source.weight.shape[source.transposed ? 1 : 0];
  }
  return rows;
}

int64_t width_of(const WeightSource& source) { return source.weight.shape[source.transposed ? 0 : 1]; }

}  // namespace

Result<PackedLinear> pack_linear(std::span<const WeightSource> sources, Precision precision, tensor::Stream& stream) {
  if (precision == Precision::kInt8 || precision == Precision::kW8A8)
    return unsupported("precision int8 is not wired to CUDA yet: use bf16 or fp32");
  SW_ASSIGN(const int64_t rows, stacked_rows(sources));
  const bool fp8 = precision == Precision::kBf16 && scales_align(sources);
  PackedLinear packed = make(rows, width_of(sources[0]), precision, fp8, 1, stream.device());
  SW_TRY(fill(packed, 0, sources, stream));
  return packed;
}

Result<HeadLinear> pack_heads(tensor::TensorView full, int heads, int64_t first, int64_t rows, bool transposed,
                              Precision precision, tensor::Stream& stream) {
  const int64_t block = full.shape[0] / heads, columns = full.shape[1];
  HeadLinear packed{heads, transposed ? columns : rows, transposed ? rows : columns, {}};
  packed.weights.push_back(make(packed.n, packed.k, precision, false, heads, stream.device()));
  for (int64_t h = 0; h < heads; ++h) {
    const WeightSource source{
        .weight = full.rows(h * block + first, h * block + first + rows), .scales = {}, .transposed = transposed};
    SW_TRY(fill(packed.weights[0], h * packed.n, std::span(&source, 1), stream));
  }
  return packed;
}

Result<int64_t> add_expert(PackedExperts& experts, int index, int count, std::span<const WeightSource> gate_up,
                           const WeightSource& down, Precision precision, tensor::Stream& stream) {
  if (precision == Precision::kInt8 || precision == Precision::kW8A8)
    return unsupported("precision int8 is not wired to CUDA yet: use bf16 or fp32");
  const std::span<const WeightSource> downs(&down, 1);
  SW_ASSIGN(const int64_t rows, stacked_rows(gate_up));
  if (index == 0) {
    const bool fp8 = precision == Precision::kBf16 && scales_align(gate_up) && scales_align(downs);
    experts.count = count;
    experts.weights.resize(1);
    experts.weights[0].gate_up = make(rows, width_of(gate_up[0]), precision, fp8, count, stream.device());
    experts.weights[0].down = make(down.weight.shape[0], width_of(down), precision, fp8, count, stream.device());
  }
  ExpertWeights& packed = experts.weights[0];
  SW_TRY(fill(packed.gate_up, index * packed.gate_up.n, gate_up, stream));
  SW_TRY(fill(packed.down, index * packed.down.n, downs, stream));
  return int64_t(experts.bytes()) / count;
}

}  // namespace spillway::kernels::cuda
