// Test and benchmark of the bf16 products of prompts, beside cuBLASLt's. gemm_bf16_prefill_bench [small]: checks only.
// Prints every check against float64, then times; ends with 1 when a check failed.
#include "kernels/cuda/gemm_bf16_prefill.h"
#include "kernels/cuda/gemm_cublaslt.h"
#include "kernels/cuda/gemm_testing.cuh"

namespace spillway::kernels::cuda {
namespace {

using namespace testing;  // NOLINT

__global__ void widen(const __nv_bfloat16* from, float* to, int64_t count) {
  const int64_t i = blockIdx.x * static_cast<int64_t>(blockDim.x) + threadIdx.x;
  if (i < count) to[i] = __bfloat162float(from[i]);
}

struct Case {
  int m, n, k;
  Scalar y_type;
  Epilogue epilogue;
};

void check_case(const Case& c, uint32_t seed) {
  const int columns = c.epilogue == Epilogue::kSwiGlu ? c.n / 2 : c.n;
  const size_t inputs = static_cast<size_t>(c.m) * c.k, outputs = static_cast<size_t>(c.m) * columns;
  Buffer x(inputs * 2), x32(inputs * 4), w(static_cast<size_t>(c.n) * c.k * 2), y(outputs * 4);
  fill(x.data, static_cast<int64_t>(inputs), Fill::kBf16, seed);
  fill(w.data, static_cast<int64_t>(c.n) * c.k, Fill::kBf16, seed + 1, 0.05f);
  if (c.epilogue == Epilogue::kAdd) {
    fill(y.data, static_cast<int64_t>(outputs), c.y_type == Scalar::kF32 ? Fill::kF32 : Fill::kBf16, seed + 2);
  }
  const auto before = to_host(y.data, c.y_type, outputs);
  widen<<<static_cast<unsigned>((inputs + 255) / 256), 256>>>(x.as<__nv_bfloat16>(), x32.as<float>(),
                                                              static_cast<int64_t>(inputs));
  const Weight weight{WeightFormat::kBf16, c.n, c.k, w.data, nullptr, 128};
  const auto product = reference(x32.as<float>(), weight, c.m);
  std::vector<double> expected(outputs);
  for (size_t i = 0; i < outputs; ++i) {
    const size_t at = i / columns * c.n + i % columns;
    double v = product[at];
    if (c.epilogue == Epilogue::kSwiGlu) v = v / (1 + std::exp(-v)) * product[at + columns];
    if (c.epilogue == Epilogue::kAdd) v += before[i];
    expected[i] = v;
  }
  Bf16PromptProduct p;
  p.m = c.m, p.x = x.data, p.x_stride = c.k, p.weight = weight, p.epilogue = c.epilogue;
  p.y = y.data, p.y_type = c.y_type, p.y_stride = columns;
  check(launch_bf16_prompt_product(p, nullptr), "prompt product");
  check(cudaDeviceSynchronize(), "prompt product");
  char what[100];
  std::snprintf(what, sizeof(what), "m=%d n=%d k=%d y%s epilogue %d", c.m, c.n, c.k,
                c.y_type == Scalar::kF32 ? "32" : "16", static_cast<int>(c.epilogue));
  compare(what, to_host(y.data, c.y_type, outputs), expected, c.y_type == Scalar::kF32 ? 2e-4 : 4e-3);
}

void check_all(bool small) {
  using enum Scalar;
  const Case cases[] = {
      {300, 512, 512, kF32, Epilogue::kStore},       {257, 304, 192, kBf16, Epilogue::kSwiGlu},
      {129, 200, 64, kF32, Epilogue::kAdd},          {1, 8, 128, kBf16, Epilogue::kAdd},
      {1000, 1040, 320, kF32, Epilogue::kSwiGlu},    {700, 3584, 3584, kBf16, Epilogue::kAdd},
      {1024, 37888, 3584, kBf16, Epilogue::kSwiGlu}, {2500, 4608, 3584, kF32, Epilogue::kStore},
  };
  uint32_t seed = 100;
  for (const Case& c : cases) {
    if (!small || int64_t{c.m} * c.n * c.k < 100'000'000) check_case(c, seed += 10);
  }
  std::printf("failures: %d\n", failures);
}

// W's of the pool in turn, so that none is left in the L2 cache.
void time_shape(int m, int n, int k, bool gated) {
  const size_t w_bytes = static_cast<size_t>(n) * k * 2;
  const int calls = 8, weights = static_cast<int>(std::min<size_t>(calls, (size_t{256} << 20) / w_bytes + 2));
  Buffer x(static_cast<size_t>(m) * k * 2), w(w_bytes * weights), y(static_cast<size_t>(m) * n * 2);
  fill(x.data, static_cast<int64_t>(m) * k, Fill::kBf16, 7);
  fill(w.data, static_cast<int64_t>(n) * k * weights, Fill::kBf16, 8, 0.02f);
  const double flops = 2.0 * m * n * k;
  const auto weight = [&](int i) { return w.as<char>() + i % weights * w_bytes; };
  for (const int band : {2, 3, 4, 6, 8}) {
    const double seconds = time_graph(calls, 5, [&](int i, cudaStream_t stream) {
      Bf16PromptProduct p;
      p.m = m, p.x = x.data, p.x_stride = k, p.weight = {WeightFormat::kBf16, n, k, weight(i), nullptr, 128};
      p.epilogue = gated ? Epilogue::kSwiGlu : Epilogue::kStore;
      p.y = y.data, p.y_stride = gated ? n / 2 : n, p.band = band;
      check(launch_bf16_prompt_product(p, stream), "prompt product");
    });
    std::printf("m=%d n=%d k=%d%s band %2d: %8.1f us, %.0f TFLOP/s\n", m, n, k, gated ? " SwiGLU" : "", band,
                seconds * 1e6, flops / seconds * 1e-12);
  }
  LtProducts lt;
  Buffer workspace(LtProducts::kWorkspaceBytes);
  const double seconds = time_graph(calls, 5, [&](int i, cudaStream_t stream) {
    DenseProduct p;
    p.m = m, p.n = n, p.k = k, p.x = x.data, p.x_stride = k, p.w = weight(i), p.y = y.data, p.y_stride = n;
    check(lt.run(p, workspace.data, workspace.bytes, stream), "cuBLASLt");
  });
  std::printf("m=%d n=%d k=%d cuBLASLt, no SwiGLU: %8.1f us, %.0f TFLOP/s\n", m, n, k, seconds * 1e6,
              flops / seconds * 1e-12);
}

int run(bool small) {
  std::setvbuf(stdout, nullptr, _IOLBF, 1 << 16);
  check_all(small);
  if (!small) {
    time_shape(4096, 37888, 3584, true);
    time_shape(4096, 3584, 18944, false);
    time_shape(4096, 4608, 3584, false);
    time_shape(4096, 3584, 3584, false);
    time_shape(8192, 8192, 8192, false);
    time_shape(512, 37888, 3584, true);
    time_shape(1024, 37888, 3584, true);
  }
  return failures == 0 ? 0 : 1;
}

}  // namespace
}  // namespace spillway::kernels::cuda

int main(int argc, char** argv) { return spillway::kernels::cuda::run(argc > 1 && std::strcmp(argv[1], "small") == 0); }
