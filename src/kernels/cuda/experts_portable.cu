// One warp an output of an expert: its weights in registers by 8 of k a lane, against up to kItems rows at once. Blocks
// go by the slots of the tokens while these are few, by expert where several are likely to share one; both sum alike.
#include <algorithm>

#include "kernels/cuda/experts_portable.h"
#include "kernels/cuda/gemm_launch.cuh"

namespace spillway::kernels::cuda {
namespace {

constexpr int kWarps = 8;
constexpr int kItems = 4;           // rows summed at once
constexpr int kTokensAtOnce = 512;  // bounds the workspace
constexpr int kCombineThreads = 128;

enum class Stored : uint8_t { kBf16, kF16, kF8 };

// One of the two products of all slots ("items"): y[item] = W of the item's expert times x[item / share].
struct Product {
  const void* x;
  Scalar x_type;
  int64_t x_stride;
  int share;  // items with one row of x
  Weight weight;
  const int32_t* ids;  // [items]
  int items;
  bool by_expert;
  float* y;  // [items, outputs]
  int outputs;
};

__device__ __forceinline__ void load_halves(const void* values, int64_t i, float (&v)[8]) {
  const uint4 q = *reinterpret_cast<const uint4*>(static_cast<const __half*>(values) + i);
  const uint32_t words[4] = {q.x, q.y, q.z, q.w};
#pragma unroll
  for (int j = 0; j < 4; ++j) {
    const float2 pair = __half22float2(*reinterpret_cast<const __half2*>(&words[j]));
    v[2 * j] = pair.x, v[2 * j + 1] = pair.y;
  }
}

// e4m3 in float32's places: the exponents' biases are 120 apart.
__device__ __forceinline__ float from_e4m3(uint32_t byte) {
  return __uint_as_float((byte & 0x80u) << 24 | (byte & 0x7Fu) << 20) * 0x1p120f;
}

// 8 weights of an output's row from k on.
template <Stored kStored>
__device__ __forceinline__ void load_weights(const Weight& w, int expert, int row, int k, float (&v)[8]) {
  const int64_t at = (int64_t{expert} * w.n + row) * w.k + k;
  if constexpr (kStored == Stored::kBf16) {
    load_8(w.data, at, Scalar::kBf16, v);
  } else if constexpr (kStored == Stored::kF16) {
    load_halves(w.data, at, v);
  } else {
    const int groups = (w.k + 127) / 128, bands = (w.n + w.scale_rows - 1) / w.scale_rows;
    const float scale =
        static_cast<const float*>(w.scales)[(int64_t{expert} * bands + row / w.scale_rows) * groups + k / 128];
    const uint2 q = *reinterpret_cast<const uint2*>(static_cast<const uint8_t*>(w.data) + at);
#pragma unroll
    for (int i = 0; i < 8; ++i) v[i] = from_e4m3((i < 4 ? q.x : q.y) >> (8 * (i % 4)) & 0xFFu) * scale;
  }
}

__device__ __forceinline__ void load_inputs(const Product& p, int item, int k, float (&v)[8]) {
  const int64_t at = item / p.share * p.x_stride + k;
  if (p.x_type == Scalar::kF16) {
    load_halves(p.x, at, v);
  } else {
    load_8(p.x, at, p.x_type, v);
  }
}

__device__ __forceinline__ float sum_of_warp(float value) {
  for (int step = 16; step > 0; step /= 2) value += __shfl_xor_sync(~0u, value, step);
  return value;
}

// Output `row` of `expert` for `count` items. kGates: the output's gate is row `row`, its up `outputs` further.
template <Stored kStored, bool kGates>
__device__ void items_of(const Product& p, int expert, int row, const int (&items)[kItems], int count) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  float sums[kItems] = {}, ups[kItems] = {};
  for (int k = lane * 8; k < p.weight.k; k += 256) {
    float weights[8], up[8], x[8];
    load_weights<kStored>(p.weight, expert, row, k, weights);
    if constexpr (kGates) load_weights<kStored>(p.weight, expert, row + p.outputs, k, up);
#pragma unroll
    for (int j = 0; j < kItems; ++j) {
      if (j >= count) break;
      load_inputs(p, items[j], k, x);
#pragma unroll
      for (int i = 0; i < 8; ++i) {
        sums[j] += weights[i] * x[i];
        if constexpr (kGates) ups[j] += up[i] * x[i];
      }
    }
  }
#pragma unroll
  for (int j = 0; j < kItems; ++j) {
    if (j >= count) break;
    float value = sum_of_warp(sums[j]);
    if constexpr (kGates) value = silu(value) * sum_of_warp(ups[j]);
    if (lane == 0) p.y[int64_t{items[j]} * p.outputs + row] = value;
  }
}

template <Stored kStored, bool kGates>
__global__ void __launch_bounds__(kWarps * 32) experts_product_kernel(const Product p) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int row = static_cast<int>(blockIdx.x) * kWarps + static_cast<int>(threadIdx.x) / 32;
  if (row >= p.outputs) return;
  int items[kItems] = {static_cast<int>(blockIdx.y)}, count = 1;
  if (!p.by_expert) return items_of<kStored, kGates>(p, p.ids[blockIdx.y], row, items, count);
  const int expert = static_cast<int>(blockIdx.y);
  count = 0;
  for (int first = 0; first < p.items; first += 32) {
    const bool here = first + lane < p.items && p.ids[first + lane] == expert;
    for (unsigned found = __ballot_sync(~0u, here); found != 0; found &= found - 1) {
#pragma unroll
      for (int j = 0; j < kItems; ++j) {
        if (j == count) items[j] = first + __ffs(static_cast<int>(found)) - 1;
      }
      if (++count < kItems) continue;
      items_of<kStored, kGates>(p, expert, row, items, count);
      count = 0;
    }
  }
  if (count > 0) items_of<kStored, kGates>(p, expert, row, items, count);
}

struct Combine {
  int slots, hidden;
  const float *out, *weights;
  void* y;
  Scalar y_type;
  int64_t y_stride;
  bool add;
};

__global__ void __launch_bounds__(kCombineThreads) combine_items_kernel(const Combine a) {
  const int column = static_cast<int>(blockIdx.x * kCombineThreads + threadIdx.x), token = static_cast<int>(blockIdx.y);
  if (column >= a.hidden) return;
  float sum = 0;
  for (int s = 0; s < a.slots; ++s) {
    const int64_t item = int64_t{token} * a.slots + s;
    sum += a.weights[item] * a.out[item * a.hidden + column];
  }
  const int64_t at = token * a.y_stride + column;
  if (a.y_type == Scalar::kF16) {
    auto* to = static_cast<__half*>(a.y) + at;
    *to = __float2half(a.add ? __half2float(*to) + sum : sum);
  } else {
    store_one(a.y, a.y_type, at, sum, a.add);
  }
}

template <bool kGates>
cudaError_t launch_product(const Product& p, Stored stored, int experts, cudaStream_t stream) {
  const dim3 grid(static_cast<unsigned>((p.outputs + kWarps - 1) / kWarps),
                  static_cast<unsigned>(p.by_expert ? experts : p.items));
  const auto kernel = stored == Stored::kBf16  ? experts_product_kernel<Stored::kBf16, kGates>
                      : stored == Stored::kF16 ? experts_product_kernel<Stored::kF16, kGates>
                                               : experts_product_kernel<Stored::kF8, kGates>;
  kernel<<<grid, kWarps * 32, 0, stream>>>(p);
  return cudaGetLastError();
}

cudaError_t run_tokens(const ExpertsMlp& m, int first, int tokens, float* h, float* out, cudaStream_t stream) {
  const auto stored = [&](const Weight& w) {
    return w.format == WeightFormat::kF8Block ? Stored::kF8 : m.x_type == Scalar::kF16 ? Stored::kF16 : Stored::kBf16;
  };
  const int items = tokens * m.slots;
  const int64_t item = int64_t{first} * m.slots;
  Product p;
  p.x = static_cast<const char*>(m.x) + first * m.x_stride * scalar_bytes(m.x_type), p.x_type = m.x_type;
  p.x_stride = m.x_stride, p.share = m.slots, p.weight = m.gate_up, p.ids = m.ids + item, p.items = items;
  p.by_expert = items > m.experts, p.y = h, p.outputs = m.inter;
  cudaError_t error = launch_product<true>(p, stored(m.gate_up), m.experts, stream);
  if (error != cudaSuccess) return error;
  p.x = h, p.x_type = Scalar::kF32, p.x_stride = m.inter, p.share = 1, p.weight = m.down, p.y = out;
  p.outputs = m.hidden;
  if ((error = launch_product<false>(p, stored(m.down), m.experts, stream)) != cudaSuccess) return error;
  const Combine combine{m.slots,
                        m.hidden,
                        out,
                        m.weights + item,
                        static_cast<char*>(m.y) + first * m.y_stride * scalar_bytes(m.y_type),
                        m.y_type,
                        m.y_stride,
                        m.add};
  const dim3 grid(static_cast<unsigned>((m.hidden + kCombineThreads - 1) / kCombineThreads),
                  static_cast<unsigned>(tokens));
  combine_items_kernel<<<grid, kCombineThreads, 0, stream>>>(combine);
  return cudaGetLastError();
}

}  // namespace

size_t portable_experts_bytes(const ExpertsMlp& m, int tokens) {
  const size_t items = static_cast<size_t>(std::min(tokens, kTokensAtOnce)) * static_cast<size_t>(m.slots);
  return items * static_cast<size_t>(m.inter + m.hidden) * sizeof(float);
}

cudaError_t launch_experts_portable(const ExpertsMlp& m, void* workspace, size_t workspace_bytes, cudaStream_t stream) {
  const auto takes = [](const Weight& w) {
    return (w.format == WeightFormat::kBf16 && w.k % 8 == 0) || (w.format == WeightFormat::kF8Block && w.k % 16 == 0);
  };
  const bool right = m.tokens >= 1 && m.slots >= 1 && m.experts >= 1 && m.x_type != Scalar::kF32 &&
                     m.shared_gate_up.data == nullptr && takes(m.gate_up) && takes(m.down) && m.inter % 4 == 0 &&
                     workspace_bytes >= portable_experts_bytes(m, m.tokens);
  if (!right) return cudaErrorInvalidValue;
  auto* h = static_cast<float*>(workspace);
  float* out = h + int64_t{std::min(m.tokens, kTokensAtOnce)} * m.slots * m.inter;
  for (int first = 0; first < m.tokens; first += kTokensAtOnce) {
    const cudaError_t error = run_tokens(m, first, std::min(kTokensAtOnce, m.tokens - first), h, out, stream);
    if (error != cudaSuccess) return error;
  }
  return cudaSuccess;
}

}  // namespace spillway::kernels::cuda
