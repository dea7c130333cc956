// Layer norm and embeddings, a warp a row, or four where there are few rows: what is read stays in registers until it
// is written, rounded once, and where the next product takes e4m3 written in that too.
#include "kernels/cuda/encoder_rows.cuh"
#include "kernels/cuda/operations_encoder.h"

namespace spillway::kernels::cuda {
namespace {

using tensor::TensorView;

template <class T>
struct NormRows {
  const T* x;
  const T *tokens, *positions, *types;
  const int32_t *ids, *position, *type;
  int first_position;
  const float *weight, *bias;
  float eps;
  T* y;
  uint8_t* y8;
  const float* scale;
  int rows, width;
};

template <class T, int kVector>
__device__ __forceinline__ void add_row(const T* table, int64_t row, int width, int at, float (&v)[kVector]) {
  float more[kVector];
  load_vector<T, kVector>(table + row * width + at, more);
#pragma unroll
  for (int i = 0; i < kVector; ++i) v[i] += more[i];
}

template <class T, int kVector>
__device__ __forceinline__ void read_row(const NormRows<T>& a, int row, int at, float (&v)[kVector]) {
  if (a.x != nullptr) return load_vector<T, kVector>(a.x + int64_t(row) * a.width + at, v);
  load_vector<T, kVector>(a.tokens + int64_t(a.ids[row]) * a.width + at, v);
  if (a.types != nullptr) add_row(a.types, a.type == nullptr ? 0 : a.type[row], a.width, at, v);
  if (a.positions != nullptr) add_row(a.positions, a.first_position + a.position[row], a.width, at, v);
}

// 16 bytes at a time: float by float a warp's loads of the weights cost more than the rows.
template <int kVector>
__device__ __forceinline__ void load_floats(const float* from, float (&v)[kVector]) {
  if constexpr (kVector % 4 == 0) {
#pragma unroll
    for (int i = 0; i < kVector; i += 4) {
      const float4 four = __ldg(reinterpret_cast<const float4*>(from + i));
      v[i] = four.x, v[i + 1] = four.y, v[i + 2] = four.z, v[i + 3] = four.w;
    }
  } else {
#pragma unroll
    for (int i = 0; i < kVector; ++i) v[i] = __ldg(from + i);
  }
}

// Of all lanes of a row's kWarps warps, which are a block where they are several.
template <int kWarps>
__device__ __forceinline__ float row_sum(float value, float* shared) {
  value = warp_sum(value);
  if constexpr (kWarps == 1) return value;
  if (threadIdx.x % 32 == 0) shared[threadIdx.x / 32] = value;
  __syncthreads();
  float sum = 0;
#pragma unroll
  for (int w = 0; w < kWarps; ++w) sum += shared[w];
  return sum;
}

// kSteps * kWarps * 32 * kVector elements hold a row.
template <class T, int kVector, int kSteps, int kWarps>
__global__ void norm_rows(NormRows<T> a) {
  constexpr bool kEarly = kWarps > 1;  // few rows: the weights are read while the kernel before ends
  __shared__ float sums[2][kWarps];
  const int place = int(threadIdx.x) % (32 * kWarps),
            row = int(blockIdx.x * (blockDim.x / (32 * kWarps)) + threadIdx.x / (32 * kWarps));
  const auto at = [&](int s) { return (s * 32 * kWarps + place) * kVector; };
  float v[kSteps][kVector], weight[kEarly ? kSteps : 1][kVector], bias[kEarly ? kSteps : 1][kVector] = {};
  const auto load_weights = [&](int s, int to) {
    load_floats(a.weight + at(s), weight[to]);
    if (a.bias != nullptr) load_floats(a.bias + at(s), bias[to]);
  };
  if (kEarly && a.weight != nullptr) {
#pragma unroll
    for (int s = 0; s < kSteps; ++s) {
      if (at(s) < a.width) load_weights(s, s);
    }
  }
  take_turn();
  if (row >= a.rows) return;
  float sum = 0;
#pragma unroll
  for (int s = 0; s < kSteps; ++s) {
    if (at(s) >= a.width) continue;
    read_row<T, kVector>(a, row, at(s), v[s]);
#pragma unroll
    for (int i = 0; i < kVector; ++i) sum += v[s][i];
  }
  float mean = 0, inverse = 1;
  if (a.weight != nullptr) {
    mean = row_sum<kWarps>(sum, sums[0]) / float(a.width);
    float squares = 0;
#pragma unroll
    for (int s = 0; s < kSteps; ++s) {
      if (at(s) >= a.width) continue;
#pragma unroll
      for (int i = 0; i < kVector; ++i) squares += (v[s][i] - mean) * (v[s][i] - mean);
    }
    inverse = rsqrtf(row_sum<kWarps>(squares, sums[1]) / float(a.width) + a.eps);
  }
  const float scale = a.y8 != nullptr ? *a.scale : 1.0f;
#pragma unroll
  for (int s = 0; s < kSteps; ++s) {
    if (at(s) >= a.width) continue;
    if (a.weight != nullptr) {
      constexpr int kNone = 0;
      const int held = kEarly ? s : kNone;
      if (!kEarly) load_weights(s, kNone);
#pragma unroll
      for (int i = 0; i < kVector; ++i) v[s][i] = (v[s][i] - mean) * inverse * weight[held][i] + bias[held][i];
    }
    store_vector<T, kVector>(a.y + int64_t(row) * a.width + at(s), v[s]);
    if (a.y8 != nullptr) store_e4m3<kVector>(a.y8 + int64_t(row) * a.width + at(s), v[s], scale);
  }
}

constexpr int kFewRows = 1024;

template <class T, int kVector, int kSteps>
void launch_steps(const NormRows<T>& rows, tensor::Stream& stream) {
  const int warps = rows.rows >= 2048 ? 8 : 4;
  launch_row_kernel("norm_rows", norm_rows<T, kVector, kSteps, 1>, dim3(unsigned((rows.rows + warps - 1) / warps)),
                    32 * warps, 0, stream, rows);
}

template <class T, int kVector, int kSteps>
void launch_four(const NormRows<T>& rows, tensor::Stream& stream) {
  launch_row_kernel("norm_rows", norm_rows<T, kVector, kSteps, 4>, dim3(unsigned(rows.rows)), 128, 0, stream, rows);
}

template <class T, int kVector>
void launch(const NormRows<T>& rows, tensor::Stream& stream) {
  const int steps = (rows.width + 32 * kVector - 1) / (32 * kVector);
  if (rows.rows <= kFewRows && steps > 1 && steps <= 16) {
    if (steps <= 4) return launch_four<T, kVector, 1>(rows, stream);
    return launch_four<T, kVector, 4>(rows, stream);
  }
  if (steps <= 1) return launch_steps<T, kVector, 1>(rows, stream);
  if (steps <= 2) return launch_steps<T, kVector, 2>(rows, stream);
  if (steps <= 4) return launch_steps<T, kVector, 4>(rows, stream);
  if (steps <= 8) return launch_steps<T, kVector, 8>(rows, stream);
  if (steps <= 16) return launch_steps<T, kVector, 16>(rows, stream);
  SW_CHECK(steps <= 64, "rows of at most 8192 elements, of 2048 where they are not a multiple of 16 bytes");
  launch_steps<T, kVector, 64>(rows, stream);
}

}  // namespace

void device_norm(const DeviceNormArgs& args, tensor::Stream& stream) {
  if (args.y.shape[0] == 0) return;
  by_type(args.y.dtype, [&](auto type) {
    using T = decltype(type);
    NormRows<T> rows = {};
    rows.x = args.x.raw<T>();
    rows.tokens = args.tokens.raw<T>();
    rows.positions = args.positions.raw<T>();
    rows.types = args.types.raw<T>();
    rows.ids = args.ids.raw<int32_t>();
    rows.position = args.position.raw<int32_t>();
    rows.type = args.type.raw<int32_t>();
    rows.first_position = args.first_position;
    rows.weight = args.weight.raw<float>();
    rows.bias = args.bias.raw<float>();
    rows.eps = args.eps;
    rows.y = args.y.raw<T>();
    rows.y8 = args.y8.raw<uint8_t>();
    rows.scale = args.scale == nullptr ? nullptr : args.scale->on_device.template raw<float>();
    rows.rows = int(args.y.shape[0]);
    rows.width = int(args.y.shape[1]);
    by_width<T>(rows.width, [&](auto vector) { launch<T, decltype(vector)::value>(rows, stream); });
  });
}

}  // namespace spillway::kernels::cuda
