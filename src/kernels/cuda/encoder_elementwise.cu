// Pointwise passes of encoders: what is not in a product's epilogue.
#include "kernels/cuda/encoder_rows.cuh"
#include "kernels/cuda/operations_encoder.h"

namespace spillway::kernels::cuda {
namespace {

using tensor::DType;
using tensor::TensorView;

constexpr int kThreads = 256;

unsigned blocks_for(int64_t count) { return unsigned((count + kThreads - 1) / kThreads); }

template <class T, int kVector>
__global__ void activate_values(T* x, int64_t count, Activation activation) {
  take_turn();
  const int64_t i = (int64_t(blockIdx.x) * kThreads + threadIdx.x) * kVector;
  if (i >= count) return;
  float v[kVector];
  load_vector<T, kVector>(x + i, v);
#pragma unroll
  for (int j = 0; j < kVector; ++j) v[j] = activated(v[j], activation);
  store_vector<T, kVector>(x + i, v);
}

template <class T, int kVector>
__global__ void add_values(T* x, const T* y, int64_t count) {
  take_turn();
  const int64_t i = (int64_t(blockIdx.x) * kThreads + threadIdx.x) * kVector;
  if (i >= count) return;
  float a[kVector], b[kVector];
  load_vector<T, kVector>(x + i, a);
  load_vector<T, kVector>(y + i, b);
#pragma unroll
  for (int j = 0; j < kVector; ++j) a[j] += b[j];
  store_vector<T, kVector>(x + i, a);
}

template <class T, class B>
__global__ void add_bias_values(T* x, const B* bias, int64_t count, int64_t width) {
  take_turn();
  const int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  if (i < count) x[i] = from_float<T>(to_float(x[i]) + to_float(bias[i % width]));
}

template <class T, int kVector>
__global__ void gate_values(const T* x, Activation activation, T* y, int64_t rows, int64_t width) {
  take_turn();
  const int64_t i = (int64_t(blockIdx.x) * kThreads + threadIdx.x) * kVector;
  if (i >= rows * width) return;
  const int64_t row = i / width, at = row * 2 * width + i % width;
  float a[kVector], b[kVector];
  load_vector<T, kVector>(x + at, a);
  load_vector<T, kVector>(x + at + width, b);
#pragma unroll
  for (int j = 0; j < kVector; ++j) a[j] = activated(a[j], activation) * b[j];
  store_vector<T, kVector>(y + i, a);
}

template <class From, class To>
__global__ void convert_values(const From* x, To* y, int64_t count) {
  take_turn();
  const int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  if (i < count) y[i] = from_float<To>(to_float(x[i]));
}

// Elements i and i + half of each head; the table's rows are cosines, then sines.
template <class T>
__global__ void rotate_pairs(T* x, int64_t stride, int heads, int half, const float* cos_sin, const int32_t* position,
                             int64_t pairs) {
  take_turn();
  const int64_t at = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  if (at >= pairs) return;
  const int i = int(at % half), head = int(at / half % heads);
  const int64_t row = at / half / heads;
  const float* turn = cos_sin + int64_t(position[row]) * 2 * half;
  T* first = x + row * stride + int64_t(head) * 2 * half + i;
  const float a = to_float(first[0]), b = to_float(first[half]), cosine = turn[i], sine = turn[half + i];
  first[0] = from_float<T>(a * cosine - b * sine);
  first[half] = from_float<T>(b * cosine + a * sine);
}

__global__ void log1p_values(float* x, int64_t count) {
  take_turn();
  const int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  if (i < count) x[i] = log1pf(x[i]);
}

// kVector 4 or 1; six parts a row, each `width` long.
template <int kVector>
__global__ void split_values(const float* x, bool weight, __nv_bfloat16* parts, int64_t rows, int64_t width) {
  take_turn();
  const int64_t i = (int64_t(blockIdx.x) * kThreads + threadIdx.x) * kVector;
  if (i >= rows * width) return;
  __nv_bfloat16* to = parts + i / width * 6 * width + i % width;
  __nv_bfloat16 split[3][kVector];  // high, middle, low
  float v[kVector];
  load_vector<float, kVector>(x + i, v);
#pragma unroll
  for (int j = 0; j < kVector; ++j) {
    split[0][j] = __float2bfloat16(v[j]);
    const float rest = v[j] - __bfloat162float(split[0][j]);
    split[1][j] = __float2bfloat16(rest);
    split[2][j] = __float2bfloat16(rest - __bfloat162float(split[1][j]));
  }
#pragma unroll
  for (int part = 0; part < 6; ++part) {
    constexpr int kInput[6] = {2, 1, 0, 1, 0, 0}, kWeight[6] = {0, 1, 2, 0, 1, 0};
    const int which = weight ? kWeight[part] : kInput[part];
#pragma unroll
    for (int j = 0; j < kVector; ++j)
      to[part * width + j] = which == 0 ? split[0][j] : which == 1 ? split[1][j] : split[2][j];
  }
}

}  // namespace

void device_activate(TensorView x, Activation activation, tensor::Stream& stream) {
  const int64_t count = x.elements();
  if (count == 0) return;
  by_type(x.dtype, [&](auto type) {
    using T = decltype(type);
    by_width<T>(count, [&](auto vector) {
      constexpr int kVector = decltype(vector)::value;
      launch_row_kernel("activate_values", activate_values<T, kVector>, blocks_for(count / kVector), kThreads, 0,
                        stream, x.raw<T>(), count, activation);
    });
  });
}

void device_add_bias(TensorView x, TensorView bias, tensor::Stream& stream) {
  const int64_t count = x.elements(), width = x.shape[1];
  if (count == 0) return;
  by_type(x.dtype, [&](auto type) {
    by_type(bias.dtype, [&](auto bias_type) {
      using T = decltype(type);
      using B = decltype(bias_type);
      launch_row_kernel("add_bias_values", add_bias_values<T, B>, blocks_for(count), kThreads, 0, stream, x.raw<T>(),
                        static_cast<const B*>(bias.raw<B>()), count, width);
    });
  });
}

void device_add(TensorView x, TensorView y, tensor::Stream& stream) {
  const int64_t count = x.elements();
  if (count == 0) return;
  by_type(x.dtype, [&](auto type) {
    using T = decltype(type);
    by_width<T>(count, [&](auto vector) {
      constexpr int kVector = decltype(vector)::value;
      launch_row_kernel("add_values", add_values<T, kVector>, blocks_for(count / kVector), kThreads, 0, stream,
                        x.raw<T>(), static_cast<const T*>(y.raw<T>()), count);
    });
  });
}

void device_gate(TensorView x, Activation activation, TensorView y, tensor::Stream& stream) {
  const int64_t rows = y.shape[0], width = y.shape[1];
  if (rows == 0) return;
  by_type(x.dtype, [&](auto type) {
    using T = decltype(type);
    by_width<T>(width, [&](auto vector) {
      constexpr int kVector = decltype(vector)::value;
      launch_row_kernel("gate_values", gate_values<T, kVector>, blocks_for(rows * width / kVector), kThreads, 0, stream,
                        static_cast<const T*>(x.raw<T>()), activation, y.raw<T>(), rows, width);
    });
  });
}

void device_rope(TensorView x, int64_t stride, int heads, int head_dim, TensorView cos_sin, TensorView position,
                 tensor::Stream& stream) {
  const int64_t pairs = x.shape[0] * heads * (head_dim / 2);
  if (pairs == 0) return;
  by_type(x.dtype, [&](auto type) {
    using T = decltype(type);
    launch_row_kernel("rotate_pairs", rotate_pairs<T>, blocks_for(pairs), kThreads, 0, stream, x.raw<T>(), stride,
                      heads, head_dim / 2, static_cast<const float*>(cos_sin.as<float>()),
                      static_cast<const int32_t*>(position.as<int32_t>()), pairs);
  });
}

void device_log1p(TensorView x, tensor::Stream& stream) {
  launch_row_kernel("log1p_values", log1p_values, blocks_for(x.elements()), kThreads, 0, stream, x.as<float>(),
                    x.elements());
}

void device_convert(TensorView x, TensorView y, tensor::Stream& stream) {
  if (x.elements() == 0) return;
  by_type(x.dtype, [&](auto from) {
    by_type(y.dtype, [&](auto to) {
      using From = decltype(from);
      using To = decltype(to);
      launch_row_kernel("convert_values", convert_values<From, To>, blocks_for(x.elements()), kThreads, 0, stream,
                        static_cast<const From*>(x.raw<From>()), y.raw<To>(), x.elements());
    });
  });
}

void split_parts(TensorView x, bool weight, void* parts, tensor::Stream& stream) {
  const int64_t rows = x.shape[0], width = x.shape[1];
  by_width<float>(width, [&](auto vector) {
    constexpr int kVector = decltype(vector)::value;
    launch_row_kernel("split_values", split_values<kVector>, blocks_for(rows * width / kVector), kThreads, 0, stream,
                      static_cast<const float*>(x.as<float>()), weight, static_cast<__nv_bfloat16*>(parts), rows,
                      width);
  });
}

}  // namespace spillway::kernels::cuda
