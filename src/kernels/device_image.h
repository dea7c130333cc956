// Convolutions and pools over images of one size on a device: channels last, activations as in device_encoder.h, batch
// norm folded into weights and bias, and bias, residual and ReLU in the convolution's own kernel. CUDA only; the CPU's
// twins are in kernels/convolution.h. Tolerances as in device_encoder.h.
#pragma once

#include "kernels/convolution.h"
#include "kernels/device_encoder.h"

namespace spillway::kernels {

// Channels in memory are a multiple of this; those that the model lacks are zeros.
constexpr int kChannelStep = 8;

struct ImageBatch {
  int images = 0;
  int height = 0;
  int width = 0;
  int64_t pixels() const { return int64_t(images) * height * width; }
};

struct DeviceConvolution {
  Window window;
  int inputs = 0;  // a multiple of kChannelStep
  int outputs = 0;
  bool by_rows = false;  // a stem: windows of 7 by 2 over up to kRowChannels channels, see input_shape()
  DeviceNumbers numbers = DeviceNumbers::kFp16;
  DeviceLinear product;   // of a window of one pixel without stride, in all numbers but kFp32
  tensor::Tensor weight;  // [outputs, size * size * inputs] activations, of other windows; by rows [outputs, 8, 8, 4]
  tensor::Tensor bias;    // f32 [outputs]

  size_t bytes() const { return product.bytes() + weight.bytes() + bias.bytes(); }
};

// How a convolution wants its images: [pixels, inputs]; by rows with a border of zeros, [images, rows, columns,
// kRowChannels], so that 8 pixels of a window's row are 64 bytes that no other address interrupts.
constexpr int kRowChannels = 4;
tensor::Shape input_shape(const DeviceConvolution& convolution, ImageBatch images);

// weight f32 [outputs, size, size, inputs], bias f32 [outputs], both in host memory.
Result<DeviceConvolution> pack_device_convolution(tensor::TensorView weight, tensor::TensorView bias, Window window,
                                                  DeviceNumbers numbers, tensor::Stream& stream);

// y = relu(convolution(x) + bias + residual), each where given.
struct DeviceConvolutionArgs {
  tensor::TensorView x;  // activations of input_shape()
  ImageBatch images;
  const DeviceConvolution* convolution = nullptr;
  bool bias = true;
  bool relu = false;
  tensor::TensorView residual = {};  // like y, or empty; not y itself
  tensor::TensorView y;              // activations [pixels out, outputs]
};
void device_convolution(const DeviceConvolutionArgs& args, tensor::Stream& stream);

// x[p] = x[p] * scale + shift, f32 [channels] each: a norm that was not folded.
void device_affine(tensor::TensorView x, tensor::TensorView scale, tensor::TensorView shift, tensor::Stream& stream);

// The largest of each window, outside pixels not counting.
void device_max_pool(tensor::TensorView x, ImageBatch images, Window window, tensor::TensorView y,
                     tensor::Stream& stream);

// y activations, [pixels, padded channels] or by rows as input_shape() has it, = planes f32 [images, channels, height,
// width]; padding and border are zeros.
void device_pixels(tensor::TensorView planes, ImageBatch images, int channels, tensor::TensorView y,
                   tensor::Stream& stream);

}  // namespace spillway::kernels
