// Convolution and pooling over images of any sizes, channels last: the pixels of an image are rows of a matrix, image
// after image. A convolution is a product whose rows are gathered patch by patch, never the whole matrix of patches.
// float32; a pixel's bits depend on its own patch only.
#pragma once

#include <span>

#include "kernels/linear.h"

namespace spillway::kernels {

// Where an image's pixels are: rows [first, first + height * width) in row-major order.
struct ImageRows {
  int64_t first = 0;
  int height = 0;
  int width = 0;
  int64_t pixels() const { return int64_t(height) * width; }
};

// A square window over an image.
struct Window {
  int size = 1;
  int stride = 1;
  int padding = 0;
  int output(int extent) const { return (extent + 2 * padding - size) / stride + 1; }
};

struct ConvolutionArgs {
  tensor::TensorView x;  // f32 [pixels, channels]
  std::span<const ImageRows> images;
  Window window;
  const PackedLinear* weight = nullptr;  // [channels out, size * size * channels]: K runs over row, column, channel
  LinearOptions epilogue;                // bias; accumulate: y holds the residual; activation
  tensor::TensorView y;                  // f32 [pixels out, channels out]
  std::span<const ImageRows> outputs;    // as window.output() says
};
void convolution(const ConvolutionArgs& args, tensor::Stream& stream);

// y = the largest of each window, outside pixels not counting.
void max_pool(tensor::TensorView x, std::span<const ImageRows> images, Window window, tensor::TensorView y,
              std::span<const ImageRows> outputs, tensor::Stream& stream);

}  // namespace spillway::kernels
