// Weights of convolutions on the device, and which kernel computes with them: windows of one pixel without stride are
// plain products of the library's, with bias, residual and ReLU in its epilogue; the rest is gathered.
#include <fmt/format.h>

#include <algorithm>

#include "kernels/cuda/operations_encoder.h"
#include "tensor/cuda/cuda.h"

namespace spillway::kernels::cuda {

using tensor::DType;
using tensor::Tensor;
using tensor::TensorView;

namespace {

bool is_stem(TensorView weight, Window window, DeviceNumbers numbers, tensor::Device device) {
  if (window.size != 7 || window.stride != 2 || window.padding != 3 || weight.elements() == 0) return false;
  if ((numbers != DeviceNumbers::kFp16 && numbers != DeviceNumbers::kBf16) ||
      tensor::cuda::device_info(device.index).capability() != 90)
    return false;
  if (weight.elements() != weight.shape[0] * 49 * kChannelStep) return false;
  for (int64_t i = 0; i < weight.elements(); ++i) {
    if (i % kChannelStep >= kRowChannels && weight.as<float>()[i] != 0) return false;
  }
  return true;
}

// [outputs, 7, 7, 8] as [outputs, 8 rows, 8 columns, 4], the eighths zeros.
Tensor stem_rows(TensorView weight) {
  const int64_t outputs = weight.shape[0];
  Tensor rows(DType::kF32, {outputs, 8 * 8 * kRowChannels});
  std::fill_n(rows.as<float>(), rows.shape().elements(), 0.0f);
  for (int64_t tap = 0; tap < outputs * 49; ++tap) {
    const int64_t row = tap % 49 / 7, column = tap % 7;
    std::copy_n(weight.as<float>() + tap * kChannelStep, kRowChannels,
                rows.as<float>() + ((tap / 49 * 8 + row) * 8 + column) * kRowChannels);
  }
  return rows;
}

}  // namespace

Result<DeviceConvolution> pack_device_convolution(TensorView weight, TensorView bias, Window window,
                                                  DeviceNumbers numbers, tensor::Stream& stream) {
  if (numbers == DeviceNumbers::kFp8)
    return unsupported("precision fp8 is for encoders: vision models on CUDA compute in fp16, bf16, tf32 or fp32");
  DeviceConvolution packed;
  packed.window = window;
  packed.outputs = int(weight.shape[0]);
  packed.inputs = int(weight.elements() / packed.outputs / (window.size * window.size));
  packed.numbers = numbers;
  if (packed.inputs % kChannelStep != 0 || packed.outputs % kChannelStep != 0) {
    return unsupported(fmt::format("convolutions on CUDA: expected multiples of {} channels, found {} to {}",
                                   kChannelStep, packed.inputs, packed.outputs));
  }
  packed.by_rows = is_stem(weight, window, numbers, stream.device());
  const Tensor stem = packed.by_rows ? stem_rows(weight) : Tensor();
  const TensorView rows =
      packed.by_rows ? stem.view() : weight.reshaped({packed.outputs, weight.elements() / packed.outputs});
  Tensor shift(DType::kF32, bias.shape);
  std::copy_n(bias.as<float>(), bias.elements(), shift.as<float>());
  packed.bias = stream.place(std::move(shift));
  const bool one_pixel = window.size == 1 && window.stride == 1 && window.padding == 0;
  if (one_pixel && numbers != DeviceNumbers::kFp32) {
    const WeightSource source{.weight = rows, .scales = {}};
    SW_ASSIGN(packed.product,
              cuda::pack_device_linear(std::span(&source, 1), bias, numbers, activation_type(numbers), stream));
    return packed;
  }
  Tensor wide(DType::kF32, rows.shape, stream.device());
  stream.upload(wide.view().data, rows.data, rows.bytes());
  packed.weight = Tensor(activation_type(numbers), rows.shape, stream.device());
  cuda::device_convert(wide, packed.weight, stream);
  stream.synchronize();  // before `wide` goes
  return packed;
}

void device_convolution(const DeviceConvolutionArgs& args, tensor::Stream& stream) {
  if (args.y.shape[0] == 0) return;
  const DeviceConvolution& convolution = *args.convolution;
  SW_CHECK(args.x.shape == input_shape(convolution, args.images),
           "x " + to_string(args.x.shape) + " for another batch of images");
  if (convolution.product.weight.empty()) return convolve_implicitly(args, stream);
  DeviceProductArgs product;
  product.x = args.x;
  product.weight = &convolution.product;
  product.bias = args.bias;
  product.activation = args.relu ? Activation::kRelu : Activation::kNone;
  product.residual = args.residual;
  product.y = args.y;
  cuda::device_product(product, stream);
}

}  // namespace spillway::kernels::cuda
