// What surrounds convolutions: the planes of a picture as pixels, and the largest of windows.
#include "kernels/cuda/encoder_rows.cuh"
#include "kernels/cuda/operations_encoder.h"

namespace spillway::kernels::cuda {
namespace {

using tensor::TensorView;

constexpr int kThreads = 256;

unsigned blocks_for(int64_t count) { return unsigned((count + kThreads - 1) / kThreads); }

// A thread makes a pixel of the image blockIdx.y, kChannelStep channels at a time.
template <class T>
__global__ void gather_pixels(const float* planes, int area, int channels, int steps, T* y) {
  take_turn();
  const int inside = int(blockIdx.x * kThreads + threadIdx.x);
  if (inside >= area) return;
  const float* image = planes + int64_t(blockIdx.y) * channels * area + inside;
  T* to = y + (int64_t(blockIdx.y) * area + inside) * steps * kChannelStep;
  for (int first = 0; first < steps * kChannelStep; first += kWide<T>) {
    float v[kWide<T>];
#pragma unroll
    for (int c = 0; c < kWide<T>; ++c) v[c] = first + c < channels ? __ldcs(image + int64_t(first + c) * area) : 0.0f;
    store_vector<T, kWide<T>>(to + first, v);
  }
}

// The same into rows of kRowChannels with a border of zeros, kBorder wide above and to the left: 16 bytes a thread.
template <class T>
__global__ void gather_rows(const float* planes, int height, int width, int channels, int rows, int columns, T* y) {
  constexpr int kBorder = 3, kPixels = kWide<T> / kRowChannels;
  take_turn();
  const int at = int(blockIdx.x * kThreads + threadIdx.x) * kPixels, area = height * width;
  if (at >= rows * columns) return;
  const float* image = planes + int64_t(blockIdx.y) * channels * area;
  const int row = at / columns - kBorder;
  float v[kWide<T>] = {};
#pragma unroll
  for (int p = 0; p < kPixels; ++p) {
    const int column = at % columns + p - kBorder;
    if (unsigned(row) >= unsigned(height) || unsigned(column) >= unsigned(width)) continue;
#pragma unroll
    for (int c = 0; c < kRowChannels; ++c) {
      if (c < channels) v[p * kRowChannels + c] = __ldcs(image + int64_t(c) * area + row * width + column);
    }
  }
  store_vector<T, kWide<T>>(y + (int64_t(blockIdx.y) * rows * columns + at) * kRowChannels, v);
}

template <class T>
__global__ void scale_and_shift(T* x, const float* scale, const float* shift, int64_t count, int64_t channels) {
  take_turn();
  const int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  if (i < count) x[i] = from_float<T>(to_float(x[i]) * scale[i % channels] + shift[i % channels]);
}

template <class T>
__global__ void largest_of_windows(const T* x, ImageBatch images, Window window, T* y, int out_height, int out_width,
                                   int channels, int count) {
  constexpr int kVector = kWide<T>;
  take_turn();
  const int i = int(blockIdx.x * kThreads + threadIdx.x);  // in 32 bits: a division in 64 costs more than the window
  if (i >= count) return;
  const int across = channels / kVector, channel = i % across * kVector;
  const int pixel = i / across, image = pixel / (out_height * out_width);
  const int inside = pixel % (out_height * out_width);
  const int top = inside / out_width * window.stride - window.padding;
  const int left = inside % out_width * window.stride - window.padding;
  float best[kVector];
#pragma unroll
  for (int j = 0; j < kVector; ++j) best[j] = -INFINITY;
  for (int row = max(top, 0); row < min(top + window.size, images.height); ++row) {
    for (int column = max(left, 0); column < min(left + window.size, images.width); ++column) {
      float v[kVector];
      load_vector<T, kVector>(x + ((int64_t(image) * images.height + row) * images.width + column) * channels + channel,
                              v);
#pragma unroll
      for (int j = 0; j < kVector; ++j) best[j] = fmaxf(best[j], v[j]);
    }
  }
  store_vector<T, kVector>(y + int64_t(pixel) * channels + channel, best);
}

}  // namespace

void device_pixels(TensorView planes, ImageBatch images, int channels, TensorView y, tensor::Stream& stream) {
  by_type(y.dtype, [&](auto type) {
    using T = decltype(type);
    if (y.shape.rank() == 4) {
      const int rows = int(y.shape[1]), columns = int(y.shape[2]);
      return launch_row_kernel(
          "gather_rows", gather_rows<T>,
          dim3(blocks_for(int64_t(rows) * columns * kRowChannels / kWide<T>), unsigned(images.images)), kThreads, 0,
          stream, static_cast<const float*>(planes.as<float>()), images.height, images.width, channels, rows, columns,
          y.raw<T>());
    }
    const int steps = int(y.shape[1]) / kChannelStep;
    const int area = images.height * images.width;
    launch_row_kernel("gather_pixels", gather_pixels<T>, dim3(blocks_for(area), unsigned(images.images)), kThreads, 0,
                      stream, static_cast<const float*>(planes.as<float>()), area, channels, steps, y.raw<T>());
  });
}

void device_affine(TensorView x, TensorView scale, TensorView shift, tensor::Stream& stream) {
  by_type(x.dtype, [&](auto type) {
    using T = decltype(type);
    launch_row_kernel("scale_and_shift", scale_and_shift<T>, blocks_for(x.elements()), kThreads, 0, stream, x.raw<T>(),
                      static_cast<const float*>(scale.as<float>()), static_cast<const float*>(shift.as<float>()),
                      x.elements(), x.shape[1]);
  });
}

void device_max_pool(TensorView x, ImageBatch images, Window window, TensorView y, tensor::Stream& stream) {
  by_type(x.dtype, [&](auto type) {
    using T = decltype(type);
    const int64_t count = y.elements() / kWide<T>;
    SW_CHECK(count < INT32_MAX - kThreads, "a batch of images beyond 32-bit indices");
    launch_row_kernel("largest_of_windows", largest_of_windows<T>, blocks_for(count), kThreads, 0, stream,
                      static_cast<const T*>(x.raw<T>()), images, window, y.raw<T>(), window.output(images.height),
                      window.output(images.width), int(x.shape[1]), int(count));
  });
}

}  // namespace spillway::kernels::cuda
