// What surrounds convolutions: the planes of a picture as pixels, and the largest of windows.
#include "kernels/cuda/encoder_rows.cuh"
#include "kernels/cuda/operations_encoder.h"

namespace spillway::kernels::cuda {
namespace {

using tensor::TensorView;

constexpr int kThreads = 256;

unsigned blocks_for(int64_t count) { return unsigned((count + kThreads - 1) / kThreads); }

// A thread makes kChannelStep channels of one pixel.
template <class T>
__global__ void gather_pixels(const float* planes, int64_t area, int channels, int steps, T* y, int64_t count) {
  take_turn();
  const int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= count) return;
  const int64_t pixel = i / steps, image = pixel / area, inside = pixel % area;
  const int first = int(i % steps) * kChannelStep;
#pragma unroll
  for (int c = 0; c < kChannelStep; ++c) {
    const int channel = first + c;
    y[i * kChannelStep + c] =
        from_float<T>(channel < channels ? planes[(image * channels + channel) * area + inside] : 0.0f);
  }
}

template <class T>
__global__ void scale_and_shift(T* x, const float* scale, const float* shift, int64_t count, int64_t channels) {
  take_turn();
  const int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  if (i < count) x[i] = from_float<T>(to_float(x[i]) * scale[i % channels] + shift[i % channels]);
}

template <class T>
__global__ void largest_of_windows(const T* x, ImageBatch images, Window window, T* y, int out_height, int out_width,
                                   int channels, int64_t count) {
  constexpr int kVector = kWide<T>;
  take_turn();
  const int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= count) return;
  const int across = channels / kVector, channel = int(i % across) * kVector;
  const int64_t pixel = i / across, image = pixel / (out_height * out_width);
  const int inside = int(pixel % (out_height * out_width));
  const int top = inside / out_width * window.stride - window.padding;
  const int left = inside % out_width * window.stride - window.padding;
  float best[kVector];
#pragma unroll
  for (int j = 0; j < kVector; ++j) best[j] = -INFINITY;
  for (int row = max(top, 0); row < min(top + window.size, images.height); ++row) {
    for (int column = max(left, 0); column < min(left + window.size, images.width); ++column) {
      float v[kVector];
      load_vector<T, kVector>(x + ((image * images.height + row) * images.width + column) * channels + channel, v);
#pragma unroll
      for (int j = 0; j < kVector; ++j) best[j] = fmaxf(best[j], v[j]);
    }
  }
  store_vector<T, kVector>(y + pixel * channels + channel, best);
}

}  // namespace

void device_pixels(TensorView planes, ImageBatch images, int channels, TensorView y, tensor::Stream& stream) {
  by_type(y.dtype, [&](auto type) {
    using T = decltype(type);
    const int steps = int(y.shape[1]) / kChannelStep;
    const int64_t count = images.pixels() * steps;
    launch_row_kernel("gather_pixels", gather_pixels<T>, blocks_for(count), kThreads, 0, stream,
                      static_cast<const float*>(planes.as<float>()), int64_t(images.height) * images.width, channels,
                      steps, y.raw<T>(), count);
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
    launch_row_kernel("largest_of_windows", largest_of_windows<T>, blocks_for(count), kThreads, 0, stream,
                      static_cast<const T*>(x.raw<T>()), images, window, y.raw<T>(), window.output(images.height),
                      window.output(images.width), int(x.shape[1]), count);
  });
}

}  // namespace spillway::kernels::cuda
