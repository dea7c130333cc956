// Norms, activation, embedding and gathering of rows; contracts in kernels/elementwise.h. One block a row: each reads
// its row once and writes it once, so the floor is those bytes; in decode they are a launch's latency.
#include <algorithm>

#include "kernels/cuda/layers.h"
#include "kernels/cuda/rows.cuh"

namespace spillway::kernels::cuda {
namespace {

using tensor::TensorView;

template <class In, class Out>
__global__ void norm_rows(const In* x, int64_t x_stride, const float* weight, float eps, Out* y, int64_t y_stride,
                          int width) {
  take_turn();
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

// The same for rows of whole groups of four, at most kNormGroups a thread: read once, kept in registers. In decode the
// time is one chain of a load, a sum and a store.
constexpr int kNormGroups = 2, kNormThreads = 1024;

template <class In>
__device__ void load_4(const In* from, float (&v)[4]) {
  if constexpr (sizeof(In) == 4) {
    const float4 q = *reinterpret_cast<const float4*>(from);
    v[0] = q.x, v[1] = q.y, v[2] = q.z, v[3] = q.w;
  } else {
    In h[4];
    *reinterpret_cast<uint2*>(h) = *reinterpret_cast<const uint2*>(from);
#pragma unroll
    for (int i = 0; i < 4; ++i) v[i] = to_float(h[i]);
  }
}

template <class Out>
__device__ void store_4(Out* to, const float (&v)[4]) {
  if constexpr (sizeof(Out) == 4) {
    *reinterpret_cast<float4*>(to) = make_float4(v[0], v[1], v[2], v[3]);
  } else {
    alignas(8) Out h[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) h[i] = from_float<Out>(v[i]);
    *reinterpret_cast<uint2*>(to) = *reinterpret_cast<const uint2*>(h);
  }
}

template <class In, class Out>
__global__ void __launch_bounds__(kNormThreads)
    norm_rows_4(const In* x, int64_t x_stride, const float* weight, float eps, Out* y, int64_t y_stride, int width,
                bool starts_next) {
  __shared__ float partial[32];
  const In* row = x + blockIdx.x * x_stride;
  Out* out = y + blockIdx.x * y_stride;
  float v[kNormGroups][4], w[kNormGroups][4], sum = 0;
#pragma unroll
  for (int g = 0; g < kNormGroups; ++g) {  // the weight does not wait for the kernel before
    const int i = (g * blockDim.x + threadIdx.x) * 4;
    if (i < width) load_4(weight + i, w[g]);
  }
  take_turn();
  if (starts_next) ptx::launch_dependents();
#pragma unroll
  for (int g = 0; g < kNormGroups; ++g) {
    const int i = (g * blockDim.x + threadIdx.x) * 4;
    if (i >= width) break;
    load_4(row + i, v[g]);
#pragma unroll
    for (int e = 0; e < 4; ++e) sum += v[g][e] * v[g][e];
  }
  for (int offset = 16; offset > 0; offset /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, offset);
  const int lane = threadIdx.x % 32, warps = blockDim.x / 32;
  if (lane == 0) partial[threadIdx.x / 32] = sum;
  __syncthreads();
  sum = lane < warps ? partial[lane] : 0;
  for (int offset = 16; offset > 0; offset /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, offset);
  const float scale = 1.0f / sqrtf(sum / width + eps);
#pragma unroll
  for (int g = 0; g < kNormGroups; ++g) {
    const int i = (g * blockDim.x + threadIdx.x) * 4;
    if (i >= width) break;
#pragma unroll
    for (int e = 0; e < 4; ++e) v[g][e] *= scale * w[g][e];
    store_4(out + i, v[g]);
  }
}

// The same for many rows: small blocks that keep the weight and go from row to row, so that a multiprocessor has many
// rows' chains at once. The sum has another order.
constexpr int kPromptThreads = 128, kPromptGroups = 8, kPromptRows = 256, kPromptBlocks = 5;  // a multiprocessor

template <class In, class Out>
__global__ void __launch_bounds__(kPromptThreads, kPromptBlocks)
    norm_prompt_rows(const In* x, int64_t x_stride, const float* weight, float eps, Out* y, int64_t y_stride, int width,
                     int rows) {
  __shared__ float partial[2][kPromptThreads / 32];
  float w[kPromptGroups][4] = {};
#pragma unroll
  for (int g = 0; g < kPromptGroups; ++g) {
    const int i = (g * kPromptThreads + static_cast<int>(threadIdx.x)) * 4;
    if (i < width) load_4(weight + i, w[g]);
  }
  take_turn();
  int place = 0;
  for (int r = blockIdx.x; r < rows; r += gridDim.x, place ^= 1) {
    const In* row = x + r * x_stride;
    Out* out = y + r * y_stride;
    float v[kPromptGroups][4] = {}, sum = 0;
#pragma unroll
    for (int g = 0; g < kPromptGroups; ++g) {
      const int i = (g * kPromptThreads + static_cast<int>(threadIdx.x)) * 4;
      if (i < width) load_4(row + i, v[g]);
    }
#pragma unroll
    for (int g = 0; g < kPromptGroups; ++g) {
#pragma unroll
      for (int e = 0; e < 4; ++e) sum += v[g][e] * v[g][e];
    }
    for (int offset = 16; offset > 0; offset /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, offset);
    if (threadIdx.x % 32 == 0) partial[place][threadIdx.x / 32] = sum;
    __syncthreads();  // two places: nobody writes one that another still reads
    sum = 0;
#pragma unroll
    for (int i = 0; i < kPromptThreads / 32; ++i) sum += partial[place][i];
    const float scale = 1.0f / sqrtf(sum / width + eps);
#pragma unroll
    for (int g = 0; g < kPromptGroups; ++g) {
      const int i = (g * kPromptThreads + static_cast<int>(threadIdx.x)) * 4;
      if (i >= width) break;
#pragma unroll
      for (int e = 0; e < 4; ++e) v[g][e] *= scale * w[g][e];
      store_4(out + i, v[g]);
    }
  }
}

template <class In, class Out>
bool takes_groups(const NormSlices& args) {
  const auto aligned = [](const void* p, size_t bytes) { return reinterpret_cast<uintptr_t>(p) % bytes == 0; };
  return args.width % 4 == 0 && args.width <= kNormGroups * kNormThreads * 4 && args.x_stride % 4 == 0 &&
         args.y_stride % 4 == 0 && aligned(args.x, 4 * sizeof(In)) && aligned(args.y, 4 * sizeof(Out)) &&
         aligned(args.weight, 16);
}

// Whole warps that cover the row in as few groups as there may be.
int group_threads(int64_t width) {
  const int64_t groups = width / 4, each = (groups + kNormThreads - 1) / kNormThreads;
  return int(((groups + each - 1) / each + 31) / 32 * 32);
}

template <class T>
__global__ void silu_mul_rows(const T* gate_up, T* y, int64_t width) {
  take_turn();
  const T* row = gate_up + blockIdx.x * 2 * width;
  for (int64_t i = blockIdx.y * blockDim.x + threadIdx.x; i < width; i += gridDim.y * blockDim.x) {
    const float gate = to_float(row[i]);
    y[blockIdx.x * width + i] = from_float<T>(gate / (1.0f + expf(-gate)) * to_float(row[width + i]));
  }
}

// Four at once.
template <class T>
__global__ void silu_mul_rows_4(const T* gate_up, T* y, int64_t width) {
  take_turn();
  const T* row = gate_up + blockIdx.x * 2 * width;
  for (int64_t i = (blockIdx.y * blockDim.x + threadIdx.x) * 4; i < width; i += gridDim.y * blockDim.x * 4) {
    float gate[4], up[4];
    load_4(row + i, gate);
    load_4(row + width + i, up);
#pragma unroll
    for (int e = 0; e < 4; ++e) gate[e] = __fdividef(gate[e], 1.0f + __expf(-gate[e])) * up[e];
    store_4(y + blockIdx.x * width + i, gate);
  }
}

template <class In, class Out>
__global__ void pick_rows(const In* table, const int32_t* ids, Out* y, int64_t width) {
  take_turn();
  const In* row = table + int64_t{ids[blockIdx.x]} * width;
  for (int64_t i = threadIdx.x; i < width; i += blockDim.x)
    y[blockIdx.x * width + i] = from_float<Out>(to_float(row[i]));
}

template <class In, class Out>
__global__ void convert(const In* x, Out* y, int64_t count) {
  take_turn();
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
      if (takes_groups<In, Out>(args) && args.rows >= kPromptRows && !stream.batch_invariant() &&
          args.width <= kPromptGroups * kPromptThreads * 4) {
        const auto blocks = unsigned(std::min<int64_t>(args.rows, kPromptBlocks * processor_count()));
        return launch_row_kernel("norm_prompt_rows", norm_prompt_rows<In, Out>, blocks, kPromptThreads, 0, stream,
                                 static_cast<const In*>(args.x), args.x_stride, args.weight, args.eps,
                                 static_cast<Out*>(args.y), args.y_stride, int(args.width), int(args.rows));
      }
      if (takes_groups<In, Out>(args)) {
        return launch_row_kernel("norm_rows", norm_rows_4<In, Out>, unsigned(args.rows), group_threads(args.width), 0,
                                 stream, static_cast<const In*>(args.x), args.x_stride, args.weight, args.eps,
                                 static_cast<Out*>(args.y), args.y_stride, int(args.width), args.starts_next);
      }
      launch_row_kernel("norm_rows", norm_rows<In, Out>, unsigned(args.rows), threads_for(args.width), 0, stream,
                        static_cast<const In*>(args.x), args.x_stride, args.weight, args.eps, static_cast<Out*>(args.y),
                        args.y_stride, int(args.width));
    });
  });
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
    if (width % 4 == 0 && sizeof(T) == 2) {  // float32 keeps the exact exponential
      return launch_row_kernel("silu_mul_rows", silu_mul_rows_4<T>,
                               dim3(unsigned(rows), unsigned((width + 4095) / 4096)), 256, 0, stream,
                               gate_up.raw<const T>(), y.raw<T>(), width);
    }
    launch_row_kernel("silu_mul_rows", silu_mul_rows<T>, dim3(unsigned(rows), blocks), 256, 0, stream,
                      gate_up.raw<const T>(), y.raw<T>(), width);
  });
}

void embedding(TensorView table, TensorView ids, TensorView y, tensor::Stream& stream) {
  const int64_t width = y.shape[-1];
  if (ids.elements() == 0) return;
  by_type(table.dtype, [&](auto in) {
    by_type(y.dtype, [&](auto out) {
      using In = decltype(in);
      using Out = decltype(out);
      launch_row_kernel("pick_rows", pick_rows<In, Out>, unsigned(ids.elements()), threads_for(width), 0, stream,
                        table.raw<const In>(), ids.as<int32_t>(), y.raw<Out>(), width);
    });
  });
}

void gather_rows(TensorView x, TensorView ids, TensorView y, tensor::Stream& stream) { embedding(x, ids, y, stream); }

void widen_to_f32(TensorView x, TensorView y, tensor::Stream& stream) {
  const int64_t count = x.elements();
  if (count == 0) return;
  by_type(x.dtype, [&](auto in) {
    using In = decltype(in);
    launch_row_kernel("convert", convert<In, float>, unsigned((count + 255) / 256), 256, 0, stream, x.raw<const In>(),
                      y.as<float>(), count);
  });
}

}  // namespace spillway::kernels::cuda
