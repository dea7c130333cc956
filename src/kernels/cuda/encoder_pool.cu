// From the rows of sequences to one row each: pools, maxima, normalising.
#include "kernels/cuda/encoder_rows.cuh"
#include "kernels/cuda/operations_encoder.h"

namespace spillway::kernels::cuda {
namespace {

using tensor::TensorView;

constexpr int kRowLanes = 8;

// A block: 32 columns of one sequence, kRowLanes rows at a time.
template <class T, class Y>
__global__ void pool_sequences(const T* x, const int32_t* offsets, Pooling pooling, Y* y, int width) {
  take_turn();
  __shared__ float partial[kRowLanes][33];
  const int s = int(blockIdx.y), lane = int(threadIdx.x % 32), group = int(threadIdx.x / 32);
  const int column = int(blockIdx.x) * 32 + lane;
  int begin = offsets[s], end = offsets[s + 1];
  const int rows = end - begin;
  if (pooling == Pooling::kFirst) end = min(end, begin + 1);
  if (pooling == Pooling::kLast) begin = max(begin, end - 1);
  const bool largest = pooling == Pooling::kMax;
  float value = largest ? -INFINITY : 0.0f;
  if (column < width) {
    for (int row = begin + group; row < end; row += kRowLanes) {
      const float more = to_float(x[int64_t(row) * width + column]);
      value = largest ? fmaxf(value, more) : value + more;
    }
  }
  partial[group][lane] = value;
  __syncthreads();
  if (group != 0 || column >= width) return;
  for (int g = 1; g < kRowLanes; ++g) value = largest ? fmaxf(value, partial[g][lane]) : value + partial[g][lane];
  if (pooling == Pooling::kMean) value /= float(max(rows, 1));
  if (pooling == Pooling::kMeanSqrtLength) value *= rsqrtf(float(max(rows, 1)));
  y[int64_t(s) * width + column] = from_float<Y>(rows > 0 ? value : 0.0f);
}

__global__ void normalize_rows(float* x, int width) {
  take_turn();
  __shared__ float shared[33];
  float* row = x + int64_t(blockIdx.x) * width;
  float squares = 0;
  for (int i = int(threadIdx.x); i < width; i += int(blockDim.x)) squares += row[i] * row[i];
  const float scale = 1.0f / fmaxf(sqrtf(block_sum(squares, shared)), 1e-12f);
  for (int i = int(threadIdx.x); i < width; i += int(blockDim.x)) row[i] *= scale;
}

// Positive floats are ordered as their bits are.
__global__ void row_maxima(const float* logits, const int32_t* sequence, float* best, int rows, int64_t width) {
  take_turn();
  const int64_t column = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (column >= width) return;
  constexpr int kRows = 64;
  const int first = int(blockIdx.y) * kRows, last = min(first + kRows, rows);
  float value = 0;
  for (int row = first; row < last; ++row) {
    const int s = sequence[row];
    if (s < 0) break;  // padding is at the end
    value = fmaxf(value, logits[int64_t(row) * width + column]);
    const bool ends = row + 1 == last || sequence[row + 1] != s;
    if (!ends) continue;
    if (value > 0) atomicMax(reinterpret_cast<int*>(best + s * width + column), __float_as_int(value));
    value = 0;
  }
}

}  // namespace

void device_pool(TensorView x, TensorView offsets, Pooling pooling, TensorView y, tensor::Stream& stream) {
  const int width = int(x.shape[1]);
  by_type(x.dtype, [&](auto from) {
    using T = decltype(from);
    by_type(y.dtype, [&](auto to) {
      using Y = decltype(to);
      launch_row_kernel("pool_sequences", pool_sequences<T, Y>, dim3(unsigned(width + 31) / 32, unsigned(y.shape[0])),
                        32 * kRowLanes, 0, stream, static_cast<const T*>(x.raw<T>()),
                        static_cast<const int32_t*>(offsets.as<int32_t>()), pooling, y.raw<Y>(), width);
    });
  });
}

void device_normalize(TensorView x, tensor::Stream& stream) {
  launch_row_kernel("normalize_rows", normalize_rows, unsigned(x.shape[0]), 128, 0, stream, x.as<float>(),
                    int(x.shape[1]));
}

void device_row_maxima(TensorView logits, TensorView sequence, TensorView best, tensor::Stream& stream) {
  const int rows = int(logits.shape[0]);
  const int64_t width = logits.shape[1];
  launch_row_kernel("row_maxima", row_maxima, dim3(unsigned((width + 255) / 256), unsigned(rows + 63) / 64), 256, 0,
                    stream, static_cast<const float*>(logits.as<float>()),
                    static_cast<const int32_t*>(sequence.as<int32_t>()), best.as<float>(), rows, width);
}

}  // namespace spillway::kernels::cuda
