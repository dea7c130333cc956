// What the test and benchmark of the matrix products stand on: device buffers, random values, float64 references,
// timing by graph replays. For that program only.
#pragma once

#include <cuda_fp8.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <vector>

#include "kernels/cuda/gemm_launch.cuh"

namespace spillway::kernels::cuda::testing {

inline void check(cudaError_t error, const char* what) {
  if (error == cudaSuccess) return;
  std::printf("FAILED %s: %s\n", what, cudaGetErrorString(error));
  std::exit(1);
}

struct Buffer {
  void* data = nullptr;
  size_t bytes = 0;
  explicit Buffer(size_t size) : bytes(size) {
    check(cudaMalloc(&data, size + 256), "cudaMalloc");
    check(cudaMemset(data, 0xFF, size + 256), "poison");  // NaN in every type
  }
  ~Buffer() { cudaFree(data); }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  template <typename T>
  T* as() const {
    return static_cast<T*>(data);
  }
};

__device__ __forceinline__ uint32_t mix(uint64_t i, uint32_t seed) {
  uint64_t z = (i + 1) * 0x9E3779B97F4A7C15ull + static_cast<uint64_t>(seed) * 0xD1B54A32D192ED03ull;
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ull;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBull;
  return static_cast<uint32_t>(z >> 32);
}
// About normal: a sum of four uniforms, standard deviation 1.
__device__ __forceinline__ float normal(uint64_t i, uint32_t seed) {
  const uint32_t a = mix(2 * i, seed), b = mix(2 * i + 1, seed);
  const float sum = static_cast<float>(a & 0xFFFF) + static_cast<float>(a >> 16) + static_cast<float>(b & 0xFFFF) +
                    static_cast<float>(b >> 16);
  return (sum / 65536.0f - 2.0f) * 1.7320508f;
}

enum class Fill { kF32, kBf16, kF8, kBytes, kScaleF32, kScaleF16 };

static __global__ void fill_kernel(void* out, int64_t count, Fill fill, uint32_t seed, float size) {
  for (int64_t i = blockIdx.x * static_cast<int64_t>(blockDim.x) + threadIdx.x; i < count;
       i += static_cast<int64_t>(gridDim.x) * blockDim.x) {
    const float value = normal(i, seed) * size;
    switch (fill) {
      case Fill::kF32:
        static_cast<float*>(out)[i] = value;
        break;
      case Fill::kBf16:
        static_cast<__nv_bfloat16*>(out)[i] = __float2bfloat16(value);
        break;
      case Fill::kF8:
        static_cast<__nv_fp8_e4m3*>(out)[i] = __nv_fp8_e4m3(value * 64.0f);
        break;
      case Fill::kBytes:
        static_cast<uint8_t*>(out)[i] = static_cast<uint8_t>(mix(i, seed));
        break;
      case Fill::kScaleF32:
        static_cast<float*>(out)[i] = size * (0.5f + fabsf(value / size));
        break;
      case Fill::kScaleF16:
        static_cast<__half*>(out)[i] = __float2half(size * (0.5f + fabsf(value / size)));
        break;
    }
  }
}
inline void fill(void* out, int64_t count, Fill type, uint32_t seed, float size = 1.0f) {
  fill_kernel<<<4096, 256>>>(out, count, type, seed, size);
  check(cudaGetLastError(), "fill");
}

// A weight's value by the words of gemm_types.h and quantize_weight.h, written apart from the kernels.
static __device__ double weight_value(const Weight& w, int64_t row, int column) {
  const int groups = (w.k + 127) / 128, group = column / 128;
  if (w.format == WeightFormat::kBf16) {
    return __bfloat162float(static_cast<const __nv_bfloat16*>(w.data)[row * w.k + column]);
  }
  if (w.format == WeightFormat::kF8Block) {
    const float scale = static_cast<const float*>(w.scales)[row / w.scale_rows * groups + group];
    return static_cast<double>(static_cast<float>(static_cast<const __nv_fp8_e4m3*>(w.data)[row * w.k + column])) *
           scale;
  }
  const float scale = __half2float(static_cast<const __half*>(w.scales)[static_cast<int64_t>(group) * w.n + row]);
  if (w.format == WeightFormat::kInt8) {
    const int byte = static_cast<const uint8_t*>(w.data)[row * groups * 128 + column];
    return static_cast<double>(byte - 128) * scale;
  }
  const int order[8] = {0, 2, 4, 6, 1, 3, 5, 7}, in_group = column % 128;
  const int word = 4 * (in_group % 32 / 8) + in_group / 32;
  int nibble = 0;
  while (order[nibble] != in_group % 8) ++nibble;
  const uint8_t byte = static_cast<const uint8_t*>(w.data)[(row * groups + group) * 64 + word * 4 + nibble / 2];
  return static_cast<double>((nibble % 2 == 0 ? byte & 15 : byte >> 4) - 8) * scale;
}

// y [m, n] = x [m, k] W^T in float64; one warp an output. experts: W by blocks of rows, or null.
static __global__ void reference_kernel(const float* x, Weight w, int m, double* y) {
  const int64_t i = (blockIdx.x * static_cast<int64_t>(blockDim.x) + threadIdx.x) / 32;
  const int lane = threadIdx.x % 32;
  if (i >= static_cast<int64_t>(m) * w.n) return;
  const int64_t token = i / w.n, row = i % w.n;
  double sum = 0;
  for (int k = lane; k < w.k; k += 32) sum += static_cast<double>(x[token * w.k + k]) * weight_value(w, row, k);
  for (int step = 16; step > 0; step /= 2) sum += __shfl_xor_sync(~0u, sum, step);
  if (lane == 0) y[i] = sum;
}
inline std::vector<double> reference(const float* x, const Weight& w, int m) {
  Buffer y(static_cast<size_t>(m) * w.n * 8);
  const int64_t warps = static_cast<int64_t>(m) * w.n;
  reference_kernel<<<static_cast<unsigned>((warps + 7) / 8), 256>>>(x, w, m, y.as<double>());
  std::vector<double> host(static_cast<size_t>(warps));
  check(cudaMemcpy(host.data(), y.data, host.size() * 8, cudaMemcpyDeviceToHost), "reference");
  return host;
}

inline std::vector<float> to_host(const void* data, Scalar type, size_t count) {
  std::vector<float> out(count);
  if (type == Scalar::kF32) {
    check(cudaMemcpy(out.data(), data, count * 4, cudaMemcpyDeviceToHost), "copy");
    return out;
  }
  std::vector<uint16_t> raw(count);
  check(cudaMemcpy(raw.data(), data, count * 2, cudaMemcpyDeviceToHost), "copy");
  for (size_t i = 0; i < count; ++i) {
    const uint32_t bits = static_cast<uint32_t>(raw[i]) << 16;
    std::memcpy(&out[i], &bits, 4);
  }
  return out;
}

inline int failures = 0;

// ||out - expected|| / ||expected||; NaN fails.
inline double compare(const char* what, const std::vector<float>& out, const std::vector<double>& expected,
                      double tolerance, bool print = true) {
  double error = 0, norm = 0;
  for (size_t i = 0; i < expected.size(); ++i) {
    error += (out[i] - expected[i]) * (out[i] - expected[i]);
    norm += expected[i] * expected[i];
  }
  const double relative = std::sqrt(error / norm);
  const bool good = relative <= tolerance;
  if (!good) ++failures;
  if (print || !good) std::printf("%-8s %-70s %.2e\n", good ? "ok" : "WRONG", what, relative);
  return relative;
}

// Median seconds of one call of body, which is called `calls` times (with 0 .. calls - 1) in a graph.
inline double time_graph(int calls, int replays, const std::function<void(int, cudaStream_t)>& body) {
  cudaStream_t stream;
  check(cudaDeviceSynchronize(), "inputs");  // filled on another stream
  check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "stream");
  body(0, stream);
  check(cudaStreamSynchronize(stream), "first call");
  cudaGraph_t graph;
  cudaGraphExec_t executable;
  check(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), "capture");
  for (int i = 0; i < calls; ++i) body(i, stream);
  check(cudaStreamEndCapture(stream, &graph), "end of capture");
  check(cudaGraphInstantiate(&executable, graph, 0), "instantiate");
  cudaEvent_t begin, end;
  check(cudaEventCreate(&begin), "event");
  check(cudaEventCreate(&end), "event");
  std::vector<float> times;
  for (int i = 0; i < replays + 1; ++i) {
    check(cudaEventRecord(begin, stream), "record");
    check(cudaGraphLaunch(executable, stream), "graph");
    check(cudaEventRecord(end, stream), "record");
    check(cudaStreamSynchronize(stream), "replay");
    float ms = 0;
    check(cudaEventElapsedTime(&ms, begin, end), "elapsed");
    if (i > 0) times.push_back(ms);
  }
  std::sort(times.begin(), times.end());
  check(cudaGraphExecDestroy(executable), "destroy");
  check(cudaGraphDestroy(graph), "destroy");
  check(cudaStreamDestroy(stream), "destroy");
  return times[times.size() / 2] * 1e-3 / calls;
}

inline const char* format_name(WeightFormat format) {
  const char* names[] = {"bf16", "f8", "int8", "int4"};
  return names[static_cast<int>(format)];
}

}  // namespace spillway::kernels::cuda::testing
