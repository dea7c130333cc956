// Norms, activation, embedding and gathering of rows; contracts in kernels/elementwise.h. One block a row: each reads its
// row once and writes it once, so the floor is those bytes; in decode they are a launch's latency.
#include "kernels/cuda/layers.h"
#include "kernels/cuda/rows.cuh"

namespace spillway::kernels::cuda {
namespace {

using tensor::TensorView;

template <class In, class Out>
__global__ void norm_rows(const In* x, int64_t x_stride, const float* weight, float eps, Out* y, int64_t y_stride,
                          int width) {
  __shared__ float shared[33];
  const In* row = x + blockIdx.x * x_stride;
  Out* out = y + blockIdx.x * y_stride;
  float sum = 0;
  for (int i = threadIdx.x; i < width; i += blockDim.x) {
    const float v = to_float(row[i]);
    sum += v * v;
  }
  const float scale = 1.0f / sqrtf(block_sum(sum, shared) / width + eps);
  for (int i = threadIdx.x; i < width; i += blockDim.x) out[i] = from_float<Out>(to_float(row[i]) * scale * weight[i]);
}

template <class T>
__global__ void silu_mul_rows(const T* gate_up, T* y, int64_t width) {
  const T* row = gate_up + blockIdx.x * 2 * width;
  for (int64_t i = blockIdx.y * blockDim.x + threadIdx.x; i < width; i += gridDim.y * blockDim.x) {
    const float gate = to_float(row[i]);
    y[blockIdx.x * width + i] = from_float<T>(gate / (1.0f + expf(-gate)) * to_float(row[width + i]));
  }
}

template <class In, class Out>
__global__ void pick_rows(const In* table, const int32_t* ids, Out* y, int64_t width) {
  const In* row = table + int64_t{ids[blockIdx.x]} * width;
  for (int64_t i = threadIdx.x; i < width; i += blockDim.x) y[blockIdx.x * width + i] = from_float<Out>(to_float(row[i]));
}

template <class In, class Out>
__global__ void convert(const In* x, Out* y, int64_t count) {
  const int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (i < count) y[i] = from_float<Out>(to_float(x[i]));
}

}  // namespace

void norm_slices(const NormSlices& args, tensor::Stream& stream) {
  if (args.rows == 0) return;
  by_type(args.x_type, [&](auto in) {
    by_type(args.y_type, [&](auto out) {
      using In = decltype(in);
      using Out = decltype(out);
      norm_rows<<<unsigned(args.rows), threads_for(args.width), 0, native(stream)>>>(
          static_cast<const In*>(args.x), args.x_stride, args.weight, args.eps, static_cast<Out*>(args.y), args.y_stride,
          int(args.width));
    });
  });
  tensor::cuda::check_launch("norm_rows");
}

void rms_norm(TensorView x, TensorView weight, float eps, TensorView y, tensor::Stream& stream) {
  const int64_t width = weight.elements();
  SW_CHECK(x.shape[-1] == width && y.elements() == x.elements(), "x " + to_string(x.shape));
  norm_slices({.x = x.data,
               .x_type = x.dtype,
               .x_stride = width,
               .weight = weight.as<float>(),
               .eps = eps,
               .y = y.data,
               .y_type = y.dtype,
               .y_stride = width,
               .rows = x.elements() / width,
               .width = width},
              stream);
}

void silu_mul(TensorView gate_up, TensorView y, tensor::Stream& stream) {
  const int64_t rows = y.shape[0], width = y.shape[1];
  SW_CHECK(gate_up.shape == (tensor::Shape{rows, 2 * width}) && gate_up.dtype == y.dtype, "gate_up of another shape");
  if (rows == 0) return;
  const auto blocks = unsigned((width + 1023) / 1024);
  by_type(y.dtype, [&](auto type) {
    using T = decltype(type);
    silu_mul_rows<<<dim3(unsigned(rows), blocks), 256, 0, native(stream)>>>(gate_up.raw<const T>(), y.raw<T>(), width);
  });
  tensor::cuda::check_launch("silu_mul_rows");
}

void embedding(TensorView table, TensorView ids, TensorView y, tensor::Stream& stream) {
  const int64_t width = y.shape[-1];
  if (ids.elements() == 0) return;
  by_type(table.dtype, [&](auto in) {
    by_type(y.dtype, [&](auto out) {
      using In = decltype(in);
      using Out = decltype(out);
      pick_rows<<<unsigned(ids.elements()), threads_for(width), 0, native(stream)>>>(
          table.raw<const In>(), ids.as<int32_t>(), y.raw<Out>(), width);
    });
  });
  tensor::cuda::check_launch("pick_rows");
}

void gather_rows(TensorView x, TensorView ids, TensorView y, tensor::Stream& stream) { embedding(x, ids, y, stream); }

void widen_to_f32(TensorView x, TensorView y, tensor::Stream& stream) {
  const int64_t count = x.elements();
  if (count == 0) return;
  by_type(x.dtype, [&](auto in) {
    using In = decltype(in);
    convert<<<unsigned((count + 255) / 256), 256, 0, native(stream)>>>(x.raw<const In>(), y.as<float>(), count);
  });
  tensor::cuda::check_launch("convert");
}

}  // namespace spillway::kernels::cuda
