// Random inputs and weights in FP8 blocks, and their float64 reference, for the test and benchmark of their products.
#pragma once

#include "kernels/cuda/gemm_fp8.h"
#include "kernels/cuda/gemm_testing.cuh"

namespace spillway::kernels::cuda::testing {

static __global__ void widen_kernel(const __nv_fp8_e4m3* q, const float* scales, int64_t stride, int k, const int* rows,
                                    int count, float* out) {
  const int64_t i = blockIdx.x * static_cast<int64_t>(blockDim.x) + threadIdx.x;
  if (i >= static_cast<int64_t>(count) * k) return;
  const int row = rows[i / k], column = static_cast<int>(i % k);
  out[i] = static_cast<float>(q[static_cast<int64_t>(row) * k + column]) * scales[column / 128 * stride + row];
}

// x in FP8 with its scales, from the quantise kernel.
struct Inputs {
  int m, k;
  Buffer q, scales;
  QuantizedActivations x;
  Inputs(int rows, int columns, uint32_t seed)
      : m(rows), k(columns), q(static_cast<size_t>(rows) * columns), scales(columns / 128 * stride(rows) * 4) {
    Buffer source(static_cast<size_t>(m) * k * 2);
    fill(source.data, static_cast<int64_t>(m) * k, Fill::kBf16, seed);
    x = {q.data, scales.as<float>(), stride(m)};
    QuantizeActivations args;
    args.m = m, args.k = k, args.x = source.data, args.x_stride = k, args.out = x;
    check(launch_quantize_activations(args, nullptr), "quantize");
    check(cudaDeviceSynchronize(), "quantize");
  }
  static int64_t stride(int rows) { return (rows + 3) / 4 * 4; }
  std::vector<double> expected(const std::vector<int>& rows, const Weight& weight) const {
    Buffer ids(rows.size() * 4), wide(rows.size() * k * 4);
    check(cudaMemcpy(ids.data, rows.data(), rows.size() * 4, cudaMemcpyHostToDevice), "copy");
    const int64_t count = static_cast<int64_t>(rows.size()) * k;
    widen_kernel<<<static_cast<unsigned>((count + 255) / 256), 256>>>(q.as<__nv_fp8_e4m3>(), scales.as<float>(),
                                                                      x.scales_stride, k, ids.as<int>(),
                                                                      static_cast<int>(rows.size()), wide.as<float>());
    return reference(wide.as<float>(), weight, static_cast<int>(rows.size()));
  }
};

struct Fp8Weight {
  Buffer data, scales;
  Weight weight;
  Fp8Weight(int experts, int n, int k, uint32_t seed)
      : data(static_cast<size_t>(experts) * n * k),
        scales(static_cast<size_t>(experts) * ((n + 127) / 128) * (k / 128) * 4) {
    weight = {WeightFormat::kF8Block, n, k, data.data, scales.data, 128};
    fill(data.data, static_cast<int64_t>(data.bytes), Fill::kF8, seed);
    fill(scales.data, static_cast<int64_t>(scales.bytes / 4), Fill::kScaleF32, seed + 1, 1e-3f);
  }
  Weight expert(int e) const {
    Weight w = weight;
    w.data = data.as<char>() + static_cast<int64_t>(e) * w.n * w.k;
    w.scales = scales.as<float>() + static_cast<int64_t>(e) * ((w.n + 127) / 128) * (w.k / 128);
    return w;
  }
};

inline std::vector<int> spread_rows(int m, int count) {
  std::vector<int> rows;
  for (int i = 0; i < std::min(m, count); ++i)
    rows.push_back(static_cast<int>((static_cast<int64_t>(i) * m) / std::min(m, count)));
  if (m > 0) rows.back() = m - 1;
  return rows;
}

inline std::vector<float> take_rows(const std::vector<float>& all, const std::vector<int>& rows, int n) {
  std::vector<float> out;
  for (int row : rows)
    out.insert(out.end(), all.begin() + static_cast<int64_t>(row) * n, all.begin() + static_cast<int64_t>(row + 1) * n);
  return out;
}

}  // namespace spillway::kernels::cuda::testing
