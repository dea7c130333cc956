// Test and benchmark of dense FP8 products of few rows: gemm_fp8_few_rows beside gemv_small_batch (activations in 16
// bits) and gemm_fp8, quantisation included. Ends with 1 when a check failed. Argument "small": checks alone.
#include <cstring>

#include "kernels/cuda/gemm_fp8_few_rows.h"
#include "kernels/cuda/gemm_fp8_testing.cuh"
#include "kernels/cuda/gemv_small_batch.h"

namespace spillway::kernels::cuda {
namespace {

using namespace testing;  // NOLINT

struct Counters : Buffer {
  Counters() : Buffer(kFewRowsCounters * 4) { check(cudaMemset(data, 0, bytes), "counters"); }
};

void check_dense(int m, int n, int k, Scalar type, bool add, uint32_t seed) {
  const Inputs x(m, k, seed);
  const Fp8Weight w(1, n, k, seed + 2);
  const size_t outputs = static_cast<size_t>(m) * n;
  Buffer y(outputs * 4), space(few_rows_workspace_bytes(kFewTokensMax));
  const Counters counters;
  if (add) fill(y.data, static_cast<int64_t>(outputs), type == Scalar::kF32 ? Fill::kF32 : Fill::kBf16, seed + 4);
  const std::vector<int> rows = spread_rows(m, 16);
  const auto before = to_host(y.data, type, outputs);
  Fp8FewRowsProduct p = dense_few_rows(m, x.x, w.weight);
  p.y = y.data, p.y_type = type, p.y_stride = n, p.add = add, p.workspace = space.data;
  p.counters = counters.as<unsigned>();
  check(launch_fp8_few_rows(p, nullptr), "few rows");
  check(cudaDeviceSynchronize(), "few rows");
  auto expected = x.expected(rows, w.weight);
  if (add) {
    for (size_t i = 0; i < expected.size(); ++i) expected[i] += before[i];
  }
  char what[96];
  std::snprintf(what, sizeof(what), "few rows m=%d n=%d k=%d%s", m, n, k, add ? " add" : "");
  compare(what, to_host(y.data, type, outputs), expected, 4e-3);
  std::vector<unsigned> left(kFewRowsCounters);
  check(cudaMemcpy(left.data(), counters.data, counters.bytes, cudaMemcpyDeviceToHost), "copy");
  for (const unsigned count : left) failures += count == 0 ? 0 : 1;
}

void time_ways(int m, int n, int k) {
  constexpr int kSets = 6;
  const Fp8Weight w(kSets, n, k, 10);
  Buffer x(static_cast<size_t>(m) * k * 2), q(static_cast<size_t>(m) * k), scales(k / 128 * 16 * 4),
      y(static_cast<size_t>(m) * n * 2), space(few_rows_workspace_bytes(kFewTokensMax));
  const Counters counters;
  fill(x.data, static_cast<int64_t>(m) * k, Fill::kBf16, 3);
  fill(y.data, static_cast<int64_t>(m) * n, Fill::kBf16, 4);
  QuantizeActivations quantize;
  quantize.m = m, quantize.k = k, quantize.x = x.data, quantize.x_stride = k;
  quantize.out = {q.data, scales.as<float>(), 16};
  const double few = time_graph(24, 7, [&](int i, cudaStream_t stream) {
    check(launch_quantize_activations(quantize, stream), "quantize");
    Fp8FewRowsProduct p = dense_few_rows(m, quantize.out, w.expert(i % kSets));
    p.y = y.data, p.y_stride = n, p.add = true, p.workspace = space.data, p.counters = counters.as<unsigned>();
    check(launch_fp8_few_rows(p, stream), "few rows");
  });
  const double tiles = time_graph(24, 7, [&](int i, cudaStream_t stream) {
    check(launch_quantize_activations(quantize, stream), "quantize");
    Fp8Product p;
    p.m = m, p.x = quantize.out, p.weight = w.expert(i % kSets), p.y = y.data, p.y_stride = n;
    check(launch_fp8_product(p, stream), "fp8");
  });
  const double streamed = m > 8 ? 0 : time_graph(24, 7, [&](int i, cudaStream_t stream) {
    SmallBatchProduct p;
    p.m = m, p.x = x.data, p.x_stride = k, p.weight = w.expert(i % kSets), p.y = y.data, p.y_stride = n;
    p.epilogue = Epilogue::kAdd;
    check(launch_small_batch(p, stream), "small batch");
  });
  std::printf("fp8 m=%-2d n=%-5d k=%-5d few rows %6.1f us (%.2f TB/s)  tiles %6.1f  streamed %6.1f\n", m, n, k,
              few * 1e6, double(n) * k / few * 1e-12, tiles * 1e6, streamed * 1e6);
}

int run(bool small) {
  std::setvbuf(stdout, nullptr, _IOLBF, 1 << 16);
  check_dense(5, 272, 512, Scalar::kBf16, true, 10);
  check_dense(1, 512, 1664, Scalar::kF32, false, 20);
  if (!small) {
    check_dense(2, 7168, 16384, Scalar::kBf16, true, 30);
    check_dense(16, 24576, 1536, Scalar::kBf16, false, 40);
    check_dense(3, 2112, 7168, Scalar::kBf16, false, 50);
    for (const auto& shape : std::initializer_list<std::pair<int, int>>{{7168, 16384},
                                                                        {24576, 1536},
                                                                        {2112, 7168},
                                                                        {7168, 18432},
                                                                        {36864, 7168},
                                                                        {4608, 3584},
                                                                        {3584, 3584},
                                                                        {37888, 3584},
                                                                        {3584, 18944}}) {
      for (const int m : {1, 2, 4, 16}) time_ways(m, shape.first, shape.second);
    }
  }
  std::printf("failures: %d\n", failures);
  return failures == 0 ? 0 : 1;
}

}  // namespace
}  // namespace spillway::kernels::cuda

int main(int argc, char** argv) { return spillway::kernels::cuda::run(argc > 1 && std::strcmp(argv[1], "small") == 0); }
