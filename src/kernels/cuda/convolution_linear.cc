// Weights of convolutions on the device, and which kernel computes with them: windows of one pixel without stride are
// plain products of the library's, with bias, residual and ReLU in its epilogue; the rest is gathered.
#include <fmt/format.h>

#include <algorithm>

#include "kernels/cuda/operations_encoder.h"

namespace spillway::kernels::cuda {

using tensor::DType;
using tensor::Tensor;
using tensor::TensorView;

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
  const TensorView rows = weight.reshaped({packed.outputs, weight.elements() / packed.outputs});
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
  SW_CHECK(args.x.shape[0] == args.images.pixels() && args.x.shape[1] == convolution.inputs,
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
