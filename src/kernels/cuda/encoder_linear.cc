// Weights of encoders on the device, and which of the library's products computes with them.
#include <algorithm>
#include <cmath>

#include "kernels/cpu/operations.h"
#include "kernels/cuda/context.h"
#include "kernels/cuda/operations_encoder.h"
#include "tensor/cuda/cuda.h"
#include "tensor/cuda/error.h"

namespace spillway::kernels::cuda {
namespace {

using tensor::DType;
using tensor::Tensor;
using tensor::TensorView;

constexpr float kE4M3Max = 448;
constexpr int64_t kParts = 6;  // of a float32 operand, see split_parts

// Rounded to a plain type, in host memory.
Tensor rounded(TensorView values, DType dtype, float scale, tensor::Stream& stream) {
  Tensor out(dtype, values.shape);
  const float* from = values.as<float>();
  stream.parallel_for(values.elements(), 1 << 14, [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; ++i) {
      switch (dtype) {
        case DType::kBF16:
          out.raw<uint16_t>()[i] = tensor::float_to_bf16(from[i]);
          break;
        case DType::kF16:
          out.raw<uint16_t>()[i] = tensor::float_to_f16(from[i]);
          break;
        case DType::kF8E4M3:
          out.raw<uint8_t>()[i] = tensor::float_to_f8e4m3(from[i] * scale);
          break;
        default:
          out.raw<float>()[i] = from[i];
      }
    }
  });
  return out;
}

// All sources as float32 rows, one under another.
Result<Tensor> stack(std::span<const WeightSource> sources, tensor::Stream& stream) {
  SW_CHECK(!sources.empty(), "no sources to pack");
  int64_t rows = 0;
  for (const WeightSource& source : sources) {
    SW_CHECK(!source.transposed, "weights of encoders are [outputs, inputs]");
    if (source.weight.shape[1] != sources[0].weight.shape[1])
      return invalid("expected stacked weights of equal width, found " + to_string(source.weight.shape));
    rows += source.weight.shape[0];
  }
  Tensor all(DType::kF32, {rows, sources[0].weight.shape[1]});
  float* to = all.as<float>();
  for (const WeightSource& source : sources) {
    SW_ASSIGN(const Tensor full, cpu::dequantize(source, stream));
    to = std::copy_n(full.as<float>(), full.shape().elements(), to);
  }
  return all;
}

float largest_of(TensorView values) {
  float largest = 0;
  for (int64_t i = 0; i < values.elements(); ++i) largest = std::max(largest, std::abs(values.as<float>()[i]));
  return largest;
}

Tensor to_device(const Tensor& host, tensor::Stream& stream) {
  Tensor out(host.dtype(), host.shape(), stream.device());
  stream.upload(out.view().data, host.view().data, host.bytes());
  return out;
}

LtType lt_type(DType dtype) {
  switch (dtype) {
    case DType::kBF16:
      return LtType::kBf16;
    case DType::kF16:
      return LtType::kF16;
    case DType::kF8E4M3:
      return LtType::kE4M3;
    default:
      return LtType::kF32;
  }
}

// What the library computes after a product in these numbers; the rest is a pass of its own.
bool fuses(Activation activation, DeviceNumbers numbers) {
  if (activation == Activation::kNone || activation == Activation::kRelu || activation == Activation::kGeluTanh)
    return true;
  return activation == Activation::kGelu && numbers != DeviceNumbers::kFp32 && numbers != DeviceNumbers::kTf32;
}

}  // namespace

Result<DeviceLinear> pack_device_linear(std::span<const WeightSource> sources, TensorView bias, DeviceNumbers numbers,
                                        DType y_type, tensor::Stream& stream) {
  SW_ASSIGN(const Tensor rows, stack(sources, stream));
  DeviceLinear packed;
  packed.n = rows.shape()[0];
  packed.k = rows.shape()[1];
  packed.numbers = numbers;
  if (numbers == DeviceNumbers::kFp8 && (packed.n % 16 != 0 || packed.k % 16 != 0))
    return unsupported("precision fp8: expected weights whose sizes are multiples of 16, found " +
                       to_string(rows.shape()));
  if (numbers == DeviceNumbers::kFp32) {
    const Tensor values = to_device(rows, stream);
    packed.weight = Tensor(DType::kBF16, {packed.n, kParts * packed.k}, stream.device());
    split_parts(values, true, packed.weight.view().data, stream);
    stream.synchronize();  // before values go
  } else if (numbers == DeviceNumbers::kFp8) {
    const float largest = largest_of(rows);
    packed.scale = make_device_scale(largest > 0 ? kE4M3Max / largest : 1.0f, stream);
    packed.weight = to_device(rounded(rows, DType::kF8E4M3, packed.scale.value, stream), stream);
  } else {
    packed.weight = to_device(rounded(rows, activation_type(numbers), 1, stream), stream);
  }
  if (!bias.empty()) packed.bias = to_device(rounded(bias, y_type, 1, stream), stream);
  return packed;
}

int device_product(const DeviceProductArgs& args, tensor::Stream& stream) {
  const DeviceLinear& w = *args.weight;
  const int64_t m = args.x.shape[0];
  if (m == 0) return 0;
  SW_CHECK(args.x.shape[1] == w.k, "x " + to_string(args.x.shape) + " for inputs of " + std::to_string(w.k));
  int kernels = 1;
  const bool fused = fuses(args.activation, w.numbers);
  EpilogueProduct p;
  p.m = int(m);
  p.n = int(w.n);
  p.k = int(w.k);
  p.x = args.x.data;
  p.w = w.weight.view().data;
  p.type = w.numbers == DeviceNumbers::kTf32 ? LtType::kTf32 : lt_type(w.weight.dtype());
  if (w.numbers == DeviceNumbers::kFp32) {
    p.k = int(kParts * w.k);
    void* parts = stream.scratch(size_t(m * kParts * w.k) * 2);
    split_parts(args.x, false, parts, stream);
    p.x = parts;
    ++kernels;
  }
  p.x_stride = p.w_stride = p.k;
  p.y_type = lt_type(args.y.dtype);
  p.bias = args.bias && !w.bias.empty() ? w.bias.view().data : nullptr;
  p.bias_type = w.bias.empty() ? p.y_type : lt_type(w.bias.dtype());
  if (fused) p.activation = args.activation == Activation::kGelu ? Activation::kGeluTanh : args.activation;
  p.c = args.residual.data;
  p.y = args.y.data;
  p.y_stride = args.y_stride > 0 ? args.y_stride : w.n;
  if (w.numbers == DeviceNumbers::kFp8) {
    p.alpha = 1 / (w.scale.value * args.x_scale->value);
    if (args.y_scale != nullptr) p.y_scale = args.y_scale->on_device.as<float>();
  }
  Context& context = Context::of(stream);
  tensor::cuda::check(context.epilogue_products().run(p, context.products_workspace(), native(stream)),
                      "cuBLASLt product of an encoder");
  if (fused) return kernels;
  SW_CHECK(args.y.dtype != DType::kF8E4M3 && p.y_stride == w.n, "an activation of its own needs plain rows");
  cuda::device_activate(args.y, args.activation, stream);
  return kernels + 1;
}

}  // namespace spillway::kernels::cuda
