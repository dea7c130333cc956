// Layer norm and embeddings, a warp a row: what is read stays in registers until it is written, rounded once, and where
// the next product takes e4m3 written in that too.
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

// kSteps * 32 * kVector elements hold a row.
template <class T, int kVector, int kSteps>
__global__ void norm_rows(NormRows<T> a) {
  take_turn();
  const int row = int(blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32), lane = int(threadIdx.x % 32);
  if (row >= a.rows) return;
  float v[kSteps][kVector];
  float sum = 0;
#pragma unroll
  for (int s = 0; s < kSteps; ++s) {
    const int at = (s * 32 + lane) * kVector;
    if (at >= a.width) continue;
    read_row<T, kVector>(a, row, at, v[s]);
#pragma unroll
    for (int i = 0; i < kVector; ++i) sum += v[s][i];
  }
  float mean = 0, inverse = 1;
  if (a.weight != nullptr) {
    mean = warp_sum(sum) / float(a.width);
    float squares = 0;
#pragma unroll
    for (int s = 0; s < kSteps; ++s) {
      if ((s * 32 + lane) * kVector >= a.width) continue;
#pragma unroll
      for (int i = 0; i < kVector; ++i) squares += (v[s][i] - mean) * (v[s][i] - mean);
    }
    inverse = rsqrtf(warp_sum(squares) / float(a.width) + a.eps);
  }
#pragma unroll
  for (int s = 0; s < kSteps; ++s) {
    const int at = (s * 32 + lane) * kVector;
    if (at >= a.width) continue;
    if (a.weight != nullptr) {
#pragma unroll
      for (int i = 0; i < kVector; ++i) {
        v[s][i] = (v[s][i] - mean) * inverse * a.weight[at + i];
        if (a.bias != nullptr) v[s][i] += a.bias[at + i];
      }
    }
    store_vector<T, kVector>(a.y + int64_t(row) * a.width + at, v[s]);
    if (a.y8 != nullptr) store_e4m3<kVector>(a.y8 + int64_t(row) * a.width + at, v[s], *a.scale);
  }
}

template <class T, int kVector, int kSteps>
void launch_steps(const NormRows<T>& rows, tensor::Stream& stream) {
  const int warps = rows.rows >= 2048 ? 8 : rows.rows >= 512 ? 4 : 1;
  launch_row_kernel("norm_rows", norm_rows<T, kVector, kSteps>, dim3(unsigned((rows.rows + warps - 1) / warps)),
                    32 * warps, 0, stream, rows);
}

template <class T, int kVector>
void launch(const NormRows<T>& rows, tensor::Stream& stream) {
  const int steps = (rows.width + 32 * kVector - 1) / (32 * kVector);
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
