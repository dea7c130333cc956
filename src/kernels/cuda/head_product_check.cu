// Products by head, and weights to FP8 blocks, against float64. "small": for a sanitizer.
#include "kernels/cuda/gemm_cublaslt.h"
#include "kernels/cuda/gemm_testing.cuh"
#include "kernels/cuda/head_product.h"
#include "kernels/cuda/quantize_weight.h"

namespace spillway::kernels::cuda {
namespace {

using namespace testing;

__global__ void to_f32(const __nv_bfloat16* from, float* to, int rows, int k, int64_t stride) {
  const int64_t i = blockIdx.x * static_cast<int64_t>(blockDim.x) + threadIdx.x;
  if (i < static_cast<int64_t>(rows) * k) to[i] = __bfloat162float(from[i / k * stride + i % k]);
}

void check_heads(int rows, int heads, int n, int k, int x_head, int y_head, uint32_t seed) {
  const size_t inputs = static_cast<size_t>(rows) * heads * x_head,
               outputs = static_cast<size_t>(rows) * heads * y_head;
  Buffer x(inputs * 2), w(static_cast<size_t>(heads) * n * k * 2), y(outputs * 2),
      wide(static_cast<size_t>(rows) * k * 4);
  fill(x.data, static_cast<int64_t>(inputs), Fill::kBf16, seed);
  fill(w.data, int64_t{heads} * n * k, Fill::kBf16, seed + 1, 0.05f);
  const HeadRowsProduct p{rows, heads, n, k, x.data, x_head, w.data, y.data, y_head};
  check(launch_head_product(p, nullptr), "head product");
  check(cudaDeviceSynchronize(), "head product");
  const auto all = to_host(y.data, Scalar::kBf16, outputs);
  std::vector<float> out;
  std::vector<double> expected;
  for (int h = 0; h < heads; h += std::max(1, heads / 3)) {
    to_f32<<<static_cast<unsigned>((rows * k + 255) / 256), 256>>>(x.as<__nv_bfloat16>() + int64_t{h} * x_head,
                                                                   wide.as<float>(), rows, k, int64_t{heads} * x_head);
    const Weight weight{WeightFormat::kBf16, n, k, w.as<__nv_bfloat16>() + int64_t{h} * n * k, nullptr, 128};
    const auto part = reference(wide.as<float>(), weight, rows);
    expected.insert(expected.end(), part.begin(), part.end());
    for (int t = 0; t < rows; ++t) {
      const auto from = all.begin() + (int64_t{t} * heads + h) * y_head;
      out.insert(out.end(), from, from + n);
      if (y_head > n && !std::isnan(*(from + n))) {
        ++failures;
        std::printf("WRONG    written past a head's outputs\n");
      }
    }
  }
  char what[96];
  std::snprintf(what, sizeof(what), "heads rows=%d heads=%d n=%d k=%d", rows, heads, n, k);
  compare(what, out, expected, 4e-3);
}

void check_blocks(int n, int k, uint32_t seed) {
  Buffer source(static_cast<size_t>(n) * k * 2), data(static_cast<size_t>(n) * k),
      widened(static_cast<size_t>(n) * k * 2), scales(static_cast<size_t>((n + 127) / 128) * (k / 128) * 4);
  fill(source.data, int64_t{n} * k, Fill::kBf16, seed, 0.03f);
  check(launch_quantize_blocks({source.data, n, k, data.data, scales.as<float>()}, nullptr), "quantize blocks");
  const Weight weight{WeightFormat::kF8Block, n, k, data.data, scales.data, 128};
  check(launch_dequantize_weight(weight, widened.data, nullptr), "dequantize");
  const auto from = to_host(source.data, Scalar::kBf16, static_cast<size_t>(n) * k);
  const auto out = to_host(widened.data, Scalar::kBf16, static_cast<size_t>(n) * k);
  char what[96];
  std::snprintf(what, sizeof(what), "to FP8 blocks and back n=%d k=%d", n, k);
  compare(what, out, std::vector<double>(from.begin(), from.end()), 0.04);
  const auto found = to_host(scales.data, Scalar::kF32, 1);
  float largest = 0;
  for (int r = 0; r < std::min(n, 128); ++r)
    for (int c = 0; c < 128; ++c) largest = std::max(largest, std::abs(from[static_cast<size_t>(r) * k + c]));
  if (found[0] != largest / 448.0f) {
    ++failures;
    std::printf("WRONG    scale %g for a largest value of %g\n", found[0], largest);
  }
}

void time_heads(int rows, int n, int k) {
  constexpr int kHeads = 128, kSets = 4;
  const int x_head = k == 128 ? 192 : k, y_head = n == 512 ? 576 : n;
  std::vector<std::unique_ptr<Buffer>> weights;
  Buffer x(static_cast<size_t>(rows) * kHeads * x_head * 2), y(static_cast<size_t>(rows) * kHeads * y_head * 2);
  fill(x.data, int64_t{rows} * kHeads * x_head, Fill::kBf16, 1);
  const int64_t elements = int64_t{kHeads} * n * k;
  for (int i = 0; i < kSets; ++i) {
    weights.push_back(std::make_unique<Buffer>(static_cast<size_t>(elements) * 2));
    fill(weights.back()->data, elements, Fill::kBf16, i + 2, 0.05f);
  }
  const double seconds = time_graph(20, 7, [&](int i, cudaStream_t stream) {
    check(launch_head_product({rows, kHeads, n, k, x.data, x_head, weights[i % kSets]->data, y.data, y_head}, stream),
          "heads");
  });
  LtProducts lt;
  Buffer workspace(LtProducts::kWorkspaceBytes);
  const double library = time_graph(20, 7, [&](int i, cudaStream_t stream) {
    DenseProduct p;
    p.m = rows, p.n = n, p.k = k, p.batch = kHeads;
    p.x = x.data, p.x_stride = int64_t{kHeads} * x_head, p.x_batch = x_head;
    p.w = weights[i % kSets]->data, p.w_batch = int64_t{n} * k;
    p.y = y.data, p.y_stride = int64_t{kHeads} * y_head, p.y_batch = y_head;
    check(lt.run(p, workspace.data, workspace.bytes, stream), "library");
  });
  std::printf("heads rows=%-4d n=%d k=%d: %.1f us, %.2f TB/s of weight; cuBLASLt %.1f us\n", rows, n, k, seconds * 1e6,
              static_cast<double>(elements) * 2 / seconds * 1e-12, library * 1e6);
}

int run(bool small) {
  check_heads(1, 3, 64, 64, 96, 80, 1);
  check_heads(19, 4, 48, 32, 32, 48, 2);
  check_heads(70, 3, 128, 128, 128, 128, 3);
  check_blocks(200, 256, 9);
  if (!small) {
    for (const int rows : {1, 2, 33, 256}) {
      check_heads(rows, 128, 512, 128, 192, 576, 10 + rows);
      check_heads(rows, 128, 128, 512, 512, 128, 20 + rows);
    }
    check_blocks(4608, 3584, 30);
    for (const int rows : {1, 2, 8, 32, 128, 256}) {
      time_heads(rows, 512, 128);
      time_heads(rows, 128, 512);
    }
  }
  std::printf("failures: %d\n", failures);
  return failures == 0 ? 0 : 1;
}

}  // namespace
}  // namespace spillway::kernels::cuda

int main(int argc, char** argv) { return spillway::kernels::cuda::run(argc > 1 && std::strcmp(argv[1], "small") == 0); }
