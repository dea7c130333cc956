// What the standalone test programs of the attention kernels share: device buffers, random paged batches with every
// unused byte poisoned, comparison by relative norm, timing by graph replay. Test code only.
#pragma once

#include <cuda_runtime.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <numeric>
#include <random>
#include <vector>

#include "kernels/cuda/attention_ptx.cuh"
#include "kernels/cuda/paging.h"

namespace spillway::kernels::cuda::testing {

inline int failures = 0;

#define CHECK_CUDA(call)                                                                           \
  do {                                                                                             \
    const cudaError_t error_ = (call);                                                             \
    if (error_ != cudaSuccess) {                                                                   \
      std::printf("FAILED %s:%d %s: %s\n", __FILE__, __LINE__, #call, cudaGetErrorString(error_)); \
      std::fflush(stdout);                                                                         \
      std::exit(2);                                                                                \
    }                                                                                              \
  } while (0)

struct Buffer {
  void* data = nullptr;
  size_t bytes = 0;
  explicit Buffer(size_t n, int fill = 0xff) : bytes(n) {
    CHECK_CUDA(cudaMalloc(&data, std::max<size_t>(n, 256)));
    CHECK_CUDA(cudaMemset(data, fill, std::max<size_t>(n, 256)));
  }
  Buffer(const Buffer&) = delete;
  ~Buffer() { cudaFree(data); }
  template <typename T>
  std::vector<T> read() const {
    std::vector<T> host(bytes / sizeof(T));
    CHECK_CUDA(cudaDeviceSynchronize());
    CHECK_CUDA(cudaMemcpy(host.data(), data, host.size() * sizeof(T), cudaMemcpyDeviceToHost));
    return host;
  }
  template <typename T>
  void write(const std::vector<T>& host) {
    CHECK_CUDA(cudaMemcpy(data, host.data(), host.size() * sizeof(T), cudaMemcpyHostToDevice));
  }
};

inline std::mt19937& generator() {
  static std::mt19937 g{std::random_device{}()};
  return g;
}
inline int random_int(int low, int high) { return std::uniform_int_distribution<int>(low, high)(generator()); }

// Uniform in [-1, 1) times `scale` by a counter-based hash.
template <typename T>
__global__ void fill_random_kernel(T* to, size_t n, uint32_t seed, float scale) {
  for (size_t i = size_t{blockIdx.x} * blockDim.x + threadIdx.x; i < n; i += size_t{gridDim.x} * blockDim.x) {
    uint64_t x = (i + 1) * 0x9e3779b97f4a7c15ull + (uint64_t{seed} << 32);
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
    x ^= x >> 31;
    to[i] = from_float<T>((static_cast<float>(x >> 40) * (2.0f / 16777216.0f) - 1.0f) * scale);
  }
}
template <typename T>
void fill_random(void* to, size_t n, float scale = 1.0f) {
  fill_random_kernel<<<1024, 256>>>(static_cast<T*>(to), n, generator()(), scale);
  CHECK_CUDA(cudaGetLastError());
}

// A ragged batch with a shuffled page table, on the host and the device.
struct TestBatch {
  Batch view;
  std::vector<int32_t> row_begin{0}, contexts, positions, row_sequence, page_table;
  int pages = 0;  // of the pool, spare ones included
  std::vector<Buffer*> owned;

  TestBatch(const std::vector<int>& rows, const std::vector<int>& contexts_, int page_tokens) {
    const int context_max = *std::max_element(contexts_.begin(), contexts_.end());
    view.pages_max = (context_max + page_tokens - 1) / page_tokens + 1;
    int used = 0;
    for (const int c : contexts_) used += (c + page_tokens - 1) / page_tokens;
    pages = used + 3;
    std::vector<int32_t> ids(static_cast<size_t>(pages));
    std::iota(ids.begin(), ids.end(), 0);
    std::shuffle(ids.begin(), ids.end(), generator());
    page_table.assign(rows.size() * static_cast<size_t>(view.pages_max), 0);
    for (size_t s = 0, at = 0; s < rows.size(); ++s) {
      contexts.push_back(contexts_[s]);
      for (int i = 0; i * page_tokens < contexts_[s]; ++i)
        page_table[s * static_cast<size_t>(view.pages_max) + static_cast<size_t>(i)] = ids[at++];
      for (int r = 0; r < rows[s]; ++r) {
        positions.push_back(contexts_[s] - rows[s] + r);
        row_sequence.push_back(static_cast<int32_t>(s));
      }
      row_begin.push_back(row_begin.back() + rows[s]);
    }
    view.rows = row_begin.back();
    view.sequences = static_cast<int>(rows.size());
    view.rows_max = *std::max_element(rows.begin(), rows.end());
    view.context_max = context_max;
    view.page_table = upload(page_table);
    view.row_begin = upload(row_begin);
    view.contexts = upload(contexts);
    view.positions = upload(positions);
    view.row_sequence = upload(row_sequence);
  }
  ~TestBatch() {
    for (Buffer* b : owned) delete b;
  }
  const int32_t* upload(const std::vector<int32_t>& host) {
    owned.push_back(new Buffer(host.size() * 4));
    owned.back()->write(host);
    return static_cast<const int32_t*>(owned.back()->data);
  }
};

// Poisons (all ones: NaN) what no sequence has written: `vectors` vectors of `dim` elements a token and page, the
// vector v of token i at (v * page_tokens + i) * dim.
template <typename T>
void poison_unwritten(Buffer& pool, const TestBatch& batch, int64_t page_stride, int page_tokens, int vectors,
                      int dim) {
  std::vector<int> written(static_cast<size_t>(batch.pages), 0);
  for (size_t s = 0; s < batch.contexts.size(); ++s) {
    for (int i = 0; i * page_tokens < batch.contexts[s]; ++i) {
      const int page = batch.page_table[s * static_cast<size_t>(batch.view.pages_max) + static_cast<size_t>(i)];
      written[static_cast<size_t>(page)] = std::min(page_tokens, batch.contexts[s] - i * page_tokens);
    }
  }
  char* base = static_cast<char*>(pool.data);
  for (int page = 0; page < batch.pages; ++page) {
    const int n = written[static_cast<size_t>(page)];
    for (int v = 0; v < vectors && n < page_tokens; ++v) {
      CHECK_CUDA(cudaMemsetAsync(base + page * page_stride + (int64_t{v} * page_tokens + n) * dim * int64_t{sizeof(T)},
                                 0xff, size_t(page_tokens - n) * size_t(dim) * sizeof(T)));
    }
    const int64_t used = int64_t{vectors} * page_tokens * dim * int64_t{sizeof(T)};
    if (page_stride > used)
      CHECK_CUDA(cudaMemsetAsync(base + page * page_stride + used, 0xff, size_t(page_stride - used)));
  }
}

template <typename T>
std::vector<float> floats(const std::vector<T>& v) {
  std::vector<float> out;
  out.reserve(v.size());
  for (const T& x : v) {
    float f;
    if constexpr (sizeof(T) == 4)
      f = static_cast<float>(x);
    else if constexpr (std::is_same_v<T, __half>)
      f = __half2float(x);
    else
      f = __bfloat162float(x);
    out.push_back(f);
  }
  return out;
}

// ||got - expected|| / ||expected||; NaN stays NaN and fails.
inline double relative_error(const std::vector<float>& got, const std::vector<float>& expected) {
  double error = 0, norm = 0;
  for (size_t i = 0; i < expected.size(); ++i) {
    const double d = double(got[i]) - double(expected[i]);
    error += d * d;
    norm += double(expected[i]) * double(expected[i]);
  }
  return std::sqrt(error / std::max(norm, 1e-300));
}
inline void expect_below(const char* what, double error, double bound) {
  const bool ok = error < bound;  // false for NaN
  if (!ok) ++failures;
  std::printf("%s %-72s error %.2e (bound %.0e)\n", ok ? "ok    " : "FAILED", what, error, bound);
  std::fflush(stdout);
}
inline void expect_equal_bits(const char* what, const std::vector<uint16_t>& a, const std::vector<uint16_t>& b) {
  size_t different = a.size() == b.size() ? 0 : 1;
  for (size_t i = 0; i < std::min(a.size(), b.size()); ++i) different += a[i] != b[i];
  if (different) ++failures;
  std::printf("%s %-72s %zu of %zu elements differ\n", different ? "FAILED" : "ok    ", what, different, b.size());
  std::fflush(stdout);
}

// Median microseconds of one call out of graph replays of `launches` calls; call(i, stream) uses input set i.
template <typename Call>
double time_us(Call call, int launches, int repeats = 11) {
  cudaStream_t stream;
  CHECK_CUDA(cudaStreamCreate(&stream));
  call(0, stream);
  CHECK_CUDA(cudaStreamSynchronize(stream));
  cudaGraph_t graph;
  cudaGraphExec_t exec;
  CHECK_CUDA(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
  for (int i = 0; i < launches; ++i) call(i, stream);
  CHECK_CUDA(cudaStreamEndCapture(stream, &graph));
  CHECK_CUDA(cudaGraphInstantiate(&exec, graph, 0));
  cudaEvent_t begin, end;
  CHECK_CUDA(cudaEventCreate(&begin));
  CHECK_CUDA(cudaEventCreate(&end));
  std::vector<float> times;
  for (int i = 0; i < repeats + 2; ++i) {
    CHECK_CUDA(cudaEventRecord(begin, stream));
    CHECK_CUDA(cudaGraphLaunch(exec, stream));
    CHECK_CUDA(cudaEventRecord(end, stream));
    CHECK_CUDA(cudaEventSynchronize(end));
    float ms = 0;
    CHECK_CUDA(cudaEventElapsedTime(&ms, begin, end));
    if (i >= 2) times.push_back(ms);
  }
  std::sort(times.begin(), times.end());
  CHECK_CUDA(cudaGraphExecDestroy(exec));
  CHECK_CUDA(cudaGraphDestroy(graph));
  CHECK_CUDA(cudaEventDestroy(begin));
  CHECK_CUDA(cudaEventDestroy(end));
  CHECK_CUDA(cudaStreamDestroy(stream));
  return double(times[times.size() / 2]) * 1000.0 / launches;
}

}  // namespace spillway::kernels::cuda::testing
