// Weights on the device, in the checkpoint's own layout: row-major [N, K], sources stacked along N. float32 in fp32 and
// tf32; bf16 otherwise (f16 below sm_80), but from sm_80 on FP8 blocks stay as they are where the stacked scales line
// up. Quantised ones are stacked in bf16 first and quantised on the device.
#include <cstring>

#include "kernels/cpu/operations.h"
#include "kernels/cuda/context.h"
#include "kernels/cuda/layers.h"
#include "kernels/cuda/quantize_weight.h"
#include "tensor/cuda/cuda.h"
#include "tensor/cuda/error.h"

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
  // Chips before sm_80 have no tf32.
  const bool no_tf32 = precision == Precision::kTf32 && tensor::cuda::device_info(device.index).capability() < 80;
  packed.precision = no_tf32 ? Precision::kFp32 : precision;
  const DType dtype = fp8 ? DType::kF8E4M3 : computes_in_f32(precision) ? DType::kF32 : half_type(device);
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

// FP8 blocks of the checkpoint stay unless other numbers are asked for, or the products are in f16.
bool keeps_fp8(Precision precision, tensor::Stream& stream) {
  return (precision == Precision::kBf16 || precision == Precision::kFp8) && half_type(stream.device()) == DType::kBF16;
}
bool is_quantised(Precision precision) {
  return precision == Precision::kInt8 || precision == Precision::kInt4 || precision == Precision::kFp8;
}

Status check_precision(Precision precision, tensor::Stream& stream) {
  if (precision == Precision::kW8A8) return unsupported("precision int8 of encoders: expected a CPU, found a GPU");
  const int capability = Context::of(stream).capability();
  if (is_quantised(precision) && capability < 80)
    return unsupported("precision: expected bf16 or fp32 on compute capability " + std::to_string(capability / 10) +
                       "." + std::to_string(capability % 10) + ", found quantised weights (8.0 and later)");
  return {};
}

// Rows [index * n, ...) of an FP8 weight from a bf16 one.
void quantise_rows(const PackedLinear& wide, PackedLinear& packed, int64_t index, tensor::Stream& stream) {
  const int64_t scales = (packed.n + kBlock - 1) / kBlock * packed.scales.shape()[1];
  QuantizeBlocks args;
  args.source = wide.data.view().data;
  args.n = int(packed.n);
  args.k = int(packed.k);
  args.data = packed.data.view().data + index * packed.n * packed.k;
  args.scales = packed.scales.raw<float>() + index * scales;
  tensor::cuda::check(launch_quantize_blocks(args, native(stream)), "quantize_blocks");
  stream.synchronize();  // the bf16 weight goes
}

PackedLinear to_fp8(const PackedLinear& wide, tensor::Stream& stream) {
  PackedLinear packed = make(wide.n, wide.k, wide.precision, true, 1, stream.device());
  quantise_rows(wide, packed, 0, stream);
  return packed;
}

// Expert `index` of an FP8 weight.
Status fill_fp8(PackedLinear& packed, int64_t index, std::span<const WeightSource> sources, tensor::Stream& stream) {
  PackedLinear wide = make(packed.n, packed.k, packed.precision, false, 1, stream.device());
  SW_TRY(fill(wide, 0, sources, stream));
  quantise_rows(wide, packed, index, stream);
  return {};
}

PackedLinear to_integers(const PackedLinear& wide, tensor::Stream& stream) {
  const bool four = wide.precision == Precision::kInt4;
  const WeightFormat format = four ? WeightFormat::kInt4 : WeightFormat::kInt8;
  PackedLinear packed;
  packed.n = wide.n;
  packed.k = wide.k;
  packed.precision = wide.precision;
  packed.format = four ? PackedFormat::kInt4 : PackedFormat::kInt8;
  packed.scale_block = int(kBlock);
  packed.data = Tensor(DType::kU8, {wide.n, weight_row_bytes(format, wide.k)}, stream.device());
  packed.scales = Tensor(DType::kF16, {groups_of_128(wide.k), wide.n}, stream.device());
  QuantizeWeight args;
  args.source = wide.data.view().data;
  args.n = int(wide.n);
  args.k = int(wide.k);
  args.format = format;
  args.data = packed.data.view().data;
  args.scales = packed.scales.view().data;
  tensor::cuda::check(launch_quantize_weight(args, native(stream)), "quantize_weight");
  stream.synchronize();  // the bf16 weight goes
  return packed;
}

int64_t width_of(const WeightSource& source) { return source.weight.shape[source.transposed ? 0 : 1]; }

}  // namespace

Result<PackedLinear> pack_linear(std::span<const WeightSource> sources, Precision precision, tensor::Stream& stream) {
  SW_ASSIGN(const int64_t rows, stacked_rows(sources));
  const int64_t width = width_of(sources[0]);
  SW_TRY(check_precision(precision, stream));
  const bool fp8 = keeps_fp8(precision, stream) && scales_align(sources);
  const bool quantises = !fp8 && is_quantised(precision) && width % kBlock == 0 && rows % 8 == 0;
  PackedLinear packed = make(rows, width, precision, fp8, 1, stream.device());
  SW_TRY(fill(packed, 0, sources, stream));
  if (!quantises) return packed;
  return precision == Precision::kFp8 ? to_fp8(packed, stream) : to_integers(packed, stream);
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
  const std::span<const WeightSource> downs(&down, 1);
  SW_ASSIGN(const int64_t rows, stacked_rows(gate_up));
  SW_TRY(check_precision(precision, stream));
  const bool stored_fp8 = keeps_fp8(precision, stream) && scales_align(gate_up) && scales_align(downs);
  const bool to_blocks = precision == Precision::kFp8 && !stored_fp8 && rows % kBlock == 0 &&
                         width_of(gate_up[0]) % kBlock == 0 && width_of(down) % kBlock == 0;
  if (index == 0) {
    const bool fp8 = stored_fp8 || to_blocks;
    experts.count = count;
    experts.weights.resize(1);
    experts.weights[0].gate_up = make(rows, width_of(gate_up[0]), precision, fp8, count, stream.device());
    experts.weights[0].down = make(down.weight.shape[0], width_of(down), precision, fp8, count, stream.device());
  }
  ExpertWeights& packed = experts.weights[0];
  if (to_blocks) {
    SW_TRY(fill_fp8(packed.gate_up, index, gate_up, stream));
    SW_TRY(fill_fp8(packed.down, index, downs, stream));
    return int64_t(experts.bytes()) / count;
  }
  SW_TRY(fill(packed.gate_up, index * packed.gate_up.n, gate_up, stream));
  SW_TRY(fill(packed.down, index * packed.down.n, downs, stream));
  return int64_t(experts.bytes()) / count;
}

}  // namespace spillway::kernels::cuda
