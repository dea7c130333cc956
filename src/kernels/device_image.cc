#include "kernels/device_image.h"

#include "kernels/operations.h"

namespace spillway::kernels {
namespace {

const DeviceImageOperations& table(const tensor::Stream& stream) { return operations(stream.device()).device_image; }

}  // namespace

tensor::Shape input_shape(const DeviceConvolution& convolution, ImageBatch images) {
  if (!convolution.by_rows) return {images.pixels(), convolution.inputs};
  // The last window begins at 2 (out - 1) and reads 8 rows and columns, the eighth times zero.
  const auto with_border = [&](int size) { return int64_t{2} * convolution.window.output(size) + 6; };
  return {images.images, with_border(images.height), with_border(images.width), kRowChannels};
}

Result<DeviceConvolution> pack_device_convolution(tensor::TensorView weight, tensor::TensorView bias, Window window,
                                                  DeviceNumbers numbers, tensor::Stream& stream) {
  return table(stream).pack_device_convolution(weight, bias, window, numbers, stream);
}

void device_convolution(const DeviceConvolutionArgs& args, tensor::Stream& stream) {
  table(stream).device_convolution(args, stream);
}

void device_affine(tensor::TensorView x, tensor::TensorView scale, tensor::TensorView shift, tensor::Stream& stream) {
  table(stream).device_affine(x, scale, shift, stream);
}

void device_max_pool(tensor::TensorView x, ImageBatch images, Window window, tensor::TensorView y,
                     tensor::Stream& stream) {
  table(stream).device_max_pool(x, images, window, y, stream);
}

void device_pixels(tensor::TensorView planes, ImageBatch images, int channels, tensor::TensorView y,
                   tensor::Stream& stream) {
  table(stream).device_pixels(planes, images, channels, y, stream);
}

}  // namespace spillway::kernels
