// Test and benchmark of the FP8 block-scaled products (dense, grouped) and of the cuBLASLt wrapper. Prints every check,
// then times beside cuBLASLt; ends with 1 when a check failed.
#include <cublasLt.h>

#include "kernels/cuda/gemm_cublaslt.h"
#include "kernels/cuda/gemm_fp8.h"
#include "kernels/cuda/gemm_fp8_testing.cuh"

namespace spillway::kernels::cuda {
namespace {

using namespace testing;  // NOLINT

void check_dense(int m, int n, int k, int tile_rows, Scalar y_type, Epilogue epilogue, uint32_t seed) {
  const Inputs x(m, k, seed);
  const Fp8Weight w(1, n, k, seed + 2);
  const size_t outputs = static_cast<size_t>(m) * n;
  Buffer y(outputs * 4);
  if (epilogue == Epilogue::kAdd)
    fill(y.data, static_cast<int64_t>(outputs), y_type == Scalar::kF32 ? Fill::kF32 : Fill::kBf16, seed + 4);
  const std::vector<int> rows = spread_rows(m, 48);
  const auto before = take_rows(to_host(y.data, y_type, outputs), rows, n);
  Fp8Product p;
  p.m = m, p.x = x.x, p.weight = w.weight, p.epilogue = epilogue, p.y = y.data, p.y_type = y_type, p.y_stride = n;
  p.tile_rows = tile_rows;
  check(launch_fp8_product(p, nullptr), "fp8 product");
  check(cudaDeviceSynchronize(), "fp8 product");
  auto expected = x.expected(rows, w.weight);
  if (epilogue == Epilogue::kAdd)
    for (size_t i = 0; i < expected.size(); ++i) expected[i] += before[i];
  char what[128];
  std::snprintf(what, sizeof(what), "fp8 m=%d n=%d k=%d tile %d y%s epilogue %d", m, n, k, tile_rows,
                y_type == Scalar::kF32 ? "32" : "16", static_cast<int>(epilogue));
  compare(what, take_rows(to_host(y.data, y_type, outputs), rows, n), expected, y_type == Scalar::kF32 ? 1e-3 : 4e-3);
}

// cuBLASLt's block-scaled product in its place: the scales' layouts are right if the numbers are.
void check_library(LtProducts& lt, const Buffer& workspace, int m, int n, int k, Scalar y_type, bool add,
                   uint32_t seed) {
  const Inputs x(m, k, seed);
  const Fp8Weight w(1, n, k, seed + 2);
  const size_t outputs = static_cast<size_t>(m) * n;
  Buffer y(outputs * 4);
  if (add) fill(y.data, static_cast<int64_t>(outputs), y_type == Scalar::kF32 ? Fill::kF32 : Fill::kBf16, seed + 4);
  const std::vector<int> rows = spread_rows(m, 48);
  const auto before = take_rows(to_host(y.data, y_type, outputs), rows, n);
  DenseProduct p;
  p.compute = DenseCompute::kFp8, p.m = m, p.n = n, p.k = k, p.x = x.x.q, p.x_stride = k, p.x_scales = x.x.scales;
  p.w = w.weight.data, p.w_scales = static_cast<const float*>(w.weight.scales);
  p.y = y.data, p.y_type = y_type, p.y_stride = n, p.accumulate = add;
  char what[128];
  std::snprintf(what, sizeof(what), "fp8 cublaslt m=%d n=%d k=%d y%s%s", m, n, k, y_type == Scalar::kF32 ? "32" : "16",
                add ? " add" : "");
  const cudaError_t error = lt.run(p, workspace.data, workspace.bytes, nullptr);
  if (error == cudaErrorNotSupported) {
    std::printf("none     %s\n", what);
    return;
  }
  check(error, what);
  check(cudaDeviceSynchronize(), what);
  auto expected = x.expected(rows, w.weight);
  for (size_t i = 0; add && i < expected.size(); ++i) expected[i] += before[i];
  compare(what, take_rows(to_host(y.data, y_type, outputs), rows, n), expected, y_type == Scalar::kF32 ? 1e-3 : 4e-3);
}

void check_contiguous(int experts, int n, int k, int block_rows, uint32_t seed) {
  const std::vector<int> owners = {0, 0, experts - 1, -1, 2, 1, 1, 3};
  const int m = static_cast<int>(owners.size()) * block_rows;
  const Inputs x(m, k, seed);
  const Fp8Weight w(experts, n, k, seed + 2);
  Buffer y(static_cast<size_t>(m) * n * 2), blocks(owners.size() * 4);
  check(cudaMemcpy(blocks.data, owners.data(), owners.size() * 4, cudaMemcpyHostToDevice), "copy");
  Fp8GroupedProduct p;
  p.experts = experts, p.m = m, p.block_experts = blocks.as<int32_t>(), p.x = x.x, p.weight = w.weight;
  p.y = y.data, p.y_stride = n, p.block_rows = block_rows;
  check(launch_fp8_grouped_product(p, nullptr), "grouped");
  check(cudaDeviceSynchronize(), "grouped");
  const auto out = to_host(y.data, Scalar::kBf16, static_cast<size_t>(m) * n);
  for (size_t b = 0; b < owners.size(); ++b) {
    if (owners[b] < 0) {
      if (std::isnan(out[b * block_rows * n]) && std::isnan(out[(b + 1) * block_rows * n - 1])) continue;
      ++failures;
      std::printf("WRONG    a skipped block was written\n");
      continue;
    }
    std::vector<int> rows;
    for (int i = 0; i < block_rows; i += 5) rows.push_back(static_cast<int>(b) * block_rows + i);
    char what[96];
    std::snprintf(what, sizeof(what), "contiguous experts n=%d k=%d block %zu expert %d", n, k, b, owners[b]);
    compare(what, take_rows(out, rows, n), x.expected(rows, w.expert(owners[b])), 4e-3, b < 3);
  }
}

void check_masked(int experts, int rows_max, int n, int k, uint32_t seed) {
  const Inputs x(experts * rows_max, k, seed);
  const Fp8Weight w(experts, n, k, seed + 2);
  std::vector<int> counts(experts);
  for (int e = 0; e < experts; ++e) counts[e] = (e * 37 + static_cast<int>(seed)) % (rows_max + 1);
  counts[0] = 0, counts[1] = rows_max;
  Buffer y(static_cast<size_t>(experts) * rows_max * n * 2), device_counts(experts * 4);
  check(cudaMemcpy(device_counts.data, counts.data(), counts.size() * 4, cudaMemcpyHostToDevice), "copy");
  Fp8GroupedProduct p;
  p.experts = experts, p.m = experts * rows_max, p.rows_max = rows_max, p.counts = device_counts.as<int32_t>();
  p.x = x.x, p.weight = w.weight, p.y = y.data, p.y_stride = n;
  check(launch_fp8_grouped_product(p, nullptr), "masked");
  check(cudaDeviceSynchronize(), "masked");
  const auto out = to_host(y.data, Scalar::kBf16, static_cast<size_t>(experts) * rows_max * n);
  for (int e = 0; e < experts; ++e) {
    std::vector<int> rows;
    for (int i = 0; i < counts[e]; i += 3) rows.push_back(e * rows_max + i);
    for (int i = counts[e]; i < rows_max; ++i) {
      if (std::isnan(out[(static_cast<int64_t>(e) * rows_max + i) * n])) continue;
      ++failures;
      std::printf("WRONG    a masked row was written\n");
    }
    if (rows.empty()) continue;
    char what[96];
    std::snprintf(what, sizeof(what), "masked experts n=%d k=%d expert %d rows %d", n, k, e, counts[e]);
    compare(what, take_rows(out, rows, n), x.expected(rows, w.expert(e)), 4e-3, e < 3);
  }
}

void check_quantize(QuantizeSource source, Scalar type) {
  const int m = 37, k = 7168, wide = source == QuantizeSource::kSwiGlu ? 2 * k : k;
  Buffer x(static_cast<size_t>(m) * wide * 4), norm(k * 4), q(static_cast<size_t>(m) * k), scales(k / 128 * 40 * 4);
  fill(x.data, static_cast<int64_t>(m) * wide, type == Scalar::kF32 ? Fill::kF32 : Fill::kBf16, 31, 3.0f);
  fill(norm.data, k, Fill::kF32, 32);
  QuantizeActivations args;
  args.source = source, args.m = m, args.k = k, args.x = x.data, args.x_type = type, args.x_stride = wide;
  args.norm_weight = norm.data, args.norm_type = Scalar::kF32, args.out = {q.data, scales.as<float>(), 40};
  check(launch_quantize_activations(args, nullptr), "quantize");
  check(cudaDeviceSynchronize(), "quantize");
  const auto from = to_host(x.data, type, static_cast<size_t>(m) * wide), weight = to_host(norm.data, Scalar::kF32, k);
  std::vector<uint8_t> bytes(static_cast<size_t>(m) * k);
  check(cudaMemcpy(bytes.data(), q.data, bytes.size(), cudaMemcpyDeviceToHost), "copy");
  const auto out_scales = to_host(scales.data, Scalar::kF32, k / 128 * 40);
  std::vector<float> out(bytes.size());
  std::vector<double> expected(bytes.size());
  int64_t different = 0;
  for (int i = 0; i < m; ++i) {
    double squares = 0;
    for (int j = 0; j < k; ++j) squares += static_cast<double>(from[i * wide + j]) * from[i * wide + j];
    const double factor = 1 / std::sqrt(squares / k + 1e-6);
    for (int g = 0; g < k / 128; ++g) {
      float amax = 1e-4f;
      for (int j = g * 128; j < g * 128 + 128; ++j) {
        const double v = from[i * wide + j];
        const double value = source == QuantizeSource::kPlain ? v
                             : source == QuantizeSource::kRmsNorm
                                 ? __bfloat162float(__float2bfloat16(v * factor * weight[j]))
                                 : v / (1 + std::exp(-v)) * from[i * wide + k + j];
        expected[static_cast<size_t>(i) * k + j] = value;
        amax = std::max(amax, std::fabs(static_cast<float>(value)));
      }
      const float scale = amax / 448.0f;
      for (int j = g * 128; j < g * 128 + 128; ++j) {
        const size_t at = static_cast<size_t>(i) * k + j;
        __nv_fp8_e4m3 value;
        value.__x = bytes[at];
        out[at] = static_cast<float>(value) * out_scales[g * 40 + i];
        if (source == QuantizeSource::kPlain) {
          different += __nv_fp8_e4m3(static_cast<float>(expected[at]) / scale).__x != bytes[at];
        }
      }
    }
  }
  char what[64];
  std::snprintf(what, sizeof(what), "quantize activations, source %d x%s", static_cast<int>(source),
                type == Scalar::kF32 ? "32" : "16");
  compare(what, out, expected, 0.035);
  if (different > 0)
    ++failures, std::printf("WRONG    %lld bytes differ from the CPU's\n", static_cast<long long>(different));
}

void check_cublaslt(LtProducts& lt, const Buffer& workspace) {
  const int m = 100, n = 768, k = 512;
  Buffer x(m * k * 4), y(m * n * 4), w(n * k * 4), bias(n * 4);
  fill(x.data, m * k, Fill::kF32, 1);
  fill(w.data, n * k, Fill::kF32, 2);
  fill(bias.data, n, Fill::kF32, 3);
  DenseProduct p;
  p.compute = DenseCompute::kF32, p.m = m, p.n = n, p.k = k, p.x = x.data, p.x_stride = k, p.w = w.data;
  p.bias = bias.data, p.y = y.data, p.y_type = Scalar::kF32, p.y_stride = n;
  check(lt.run(p, workspace.data, workspace.bytes, nullptr), "cublaslt");
  check(cudaDeviceSynchronize(), "cublaslt");
  const auto xs = to_host(x.data, Scalar::kF32, m * k), ws = to_host(w.data, Scalar::kF32, n * k),
             bs = to_host(bias.data, Scalar::kF32, n);
  std::vector<double> expected(m * n);
  for (int i = 0; i < m; ++i)
    for (int j = 0; j < n; ++j) {
      double sum = bs[j];
      for (int l = 0; l < k; ++l) sum += static_cast<double>(xs[i * k + l]) * ws[j * k + l];
      expected[i * n + j] = sum;
    }
  compare("cublaslt float32 with bias", to_host(y.data, Scalar::kF32, m * n), expected, 1e-5);
  p.bias = nullptr, p.accumulate = true;
  check(lt.run(p, workspace.data, workspace.bytes, nullptr), "cublaslt");
  check(cudaDeviceSynchronize(), "cublaslt");
  for (int i = 0; i < m * n; ++i) expected[i] = 2 * expected[i] - bs[i % n];
  compare("cublaslt float32 added", to_host(y.data, Scalar::kF32, m * n), expected, 1e-5);
}

// cuBLASLt's own block-scaled product, as the peer.
class Peer {
 public:
  Peer(int m, int n, int k) {
    const auto good = [&](cublasStatus_t status) { usable_ = usable_ && status == CUBLAS_STATUS_SUCCESS; };
    const cublasOperation_t transposed = CUBLAS_OP_T;
    const void* some = workspace_.data;
    good(cublasLtCreate(&handle_));
    good(cublasLtMatmulDescCreate(&operation_, CUBLAS_COMPUTE_32F, CUDA_R_32F));
    const auto set = [&](cublasLtMatmulDescAttributes_t what, const void* value, size_t bytes) {
      good(cublasLtMatmulDescSetAttribute(operation_, what, value, bytes));
    };
    set(CUBLASLT_MATMUL_DESC_TRANSA, &transposed, sizeof(transposed));
#if CUBLAS_VERSION >= 120900
    const int32_t blocks = CUBLASLT_MATMUL_MATRIX_SCALE_BLK128x128_32F, rows = CUBLASLT_MATMUL_MATRIX_SCALE_VEC128_32F;
    set(CUBLASLT_MATMUL_DESC_A_SCALE_MODE, &blocks, sizeof(blocks));
    set(CUBLASLT_MATMUL_DESC_B_SCALE_MODE, &rows, sizeof(rows));
#else
    good(CUBLAS_STATUS_NOT_SUPPORTED);
#endif
    set(CUBLASLT_MATMUL_DESC_A_SCALE_POINTER, &some, sizeof(some));
    set(CUBLASLT_MATMUL_DESC_B_SCALE_POINTER, &some, sizeof(some));
    good(cublasLtMatrixLayoutCreate(&w_, CUDA_R_8F_E4M3, k, n, k));
    good(cublasLtMatrixLayoutCreate(&x_, CUDA_R_8F_E4M3, k, m, k));
    good(cublasLtMatrixLayoutCreate(&y_, CUDA_R_16BF, n, m, n));
    cublasLtMatmulPreference_t preference;
    good(cublasLtMatmulPreferenceCreate(&preference));
    good(cublasLtMatmulPreferenceSetAttribute(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &workspace_.bytes,
                                              8));
    int count = 0;
    cublasLtMatmulHeuristicResult_t result = {};
    good(cublasLtMatmulAlgoGetHeuristic(handle_, operation_, w_, x_, y_, y_, preference, 1, &result, &count));
    algorithm_ = result.algo;
    usable_ = usable_ && count > 0;
  }
  bool usable() const { return usable_; }
  void run(const Inputs& x, const Fp8Weight& w, const Buffer& y, cudaStream_t stream) {
    const float one = 1, zero = 0;
    cublasLtMatmulDescSetAttribute(operation_, CUBLASLT_MATMUL_DESC_A_SCALE_POINTER, &w.weight.scales, 8);
    cublasLtMatmulDescSetAttribute(operation_, CUBLASLT_MATMUL_DESC_B_SCALE_POINTER, &x.x.scales, 8);
    if (cublasLtMatmul(handle_, operation_, &one, w.weight.data, w_, x.x.q, x_, &zero, y.data, y_, y.data, y_,
                       &algorithm_, workspace_.data, workspace_.bytes, stream) != CUBLAS_STATUS_SUCCESS) {
      usable_ = false;
    }
  }

 private:
  Buffer workspace_{size_t{64} << 20};
  bool usable_ = true;
  cublasLtHandle_t handle_ = nullptr;
  cublasLtMatmulDesc_t operation_ = nullptr;
  cublasLtMatrixLayout_t w_ = nullptr, x_ = nullptr, y_ = nullptr;
  cublasLtMatmulAlgo_t algorithm_ = {};
};

void time_dense(int m, int n, int k) {
  constexpr int kSets = 3;
  std::vector<std::unique_ptr<Inputs>> xs;
  std::vector<std::unique_ptr<Fp8Weight>> ws;
  for (int i = 0; i < kSets; ++i) {
    xs.push_back(std::make_unique<Inputs>(m, k, i + 1));
    ws.push_back(std::make_unique<Fp8Weight>(1, n, k, i + 10));
  }
  Buffer y(static_cast<size_t>(m) * n * 2);
  std::printf("fp8 m=%-5d n=%-6d k=%-6d", m, n, k);
  for (const int rows : {64, 128, 192, 256, 0}) {  // 0: the chosen one
    if (rows == 64 && m > 128) continue;
    if (rows == 128 && m > 1024) continue;
    if (rows >= 192 && m <= 128) continue;
    const double seconds = time_graph(12, 7, [&](int i, cudaStream_t stream) {
      Fp8Product p;
      p.m = m, p.x = xs[i % kSets]->x, p.weight = ws[i % kSets]->weight, p.y = y.data, p.y_stride = n,
      p.tile_rows = rows;
      check(launch_fp8_product(p, stream), "fp8");
    });
    std::printf("  tile %3d %7.1f us %5.0f TFLOP/s", rows, seconds * 1e6, 2.0 * m * n * k / seconds * 1e-12);
  }
  Peer peer(m, n, k);
  if (m >= 256 && peer.usable()) {
    const double seconds =
        time_graph(12, 7, [&](int i, cudaStream_t stream) { peer.run(*xs[i % kSets], *ws[i % kSets], y, stream); });
    if (peer.usable())
      std::printf("  cublaslt %7.1f us %5.0f TFLOP/s", seconds * 1e6, 2.0 * m * n * k / seconds * 1e-12);
  }
  std::printf("\n");
}

void time_masked(int experts, int rows_max, int rows, int n, int k) {
  const Inputs x(experts * rows_max, k, 1);
  const Fp8Weight w(experts, n, k, 2);  // gigabytes: no second set is needed
  Buffer y(static_cast<size_t>(experts) * rows_max * n * 2), counts(experts * 4);
  std::vector<int> host(experts);
  for (int e = 0; e < experts; ++e) host[e] = std::max(0, rows + (e * 7) % 9 - 4);
  check(cudaMemcpy(counts.data, host.data(), experts * 4, cudaMemcpyHostToDevice), "copy");
  const double seconds = time_graph(2, 7, [&](int, cudaStream_t stream) {
    Fp8GroupedProduct p;
    p.experts = experts, p.m = experts * rows_max, p.rows_max = rows_max, p.counts = counts.as<int32_t>();
    p.x = x.x, p.weight = w.weight, p.y = y.data, p.y_stride = n;
    check(launch_fp8_grouped_product(p, stream), "masked");
  });
  std::printf("masked experts=%d rows about %-3d n=%-5d k=%-5d %7.1f us %.2f TB/s of weight %5.0f TFLOP/s\n", experts,
              rows, n, k, seconds * 1e6, static_cast<double>(experts) * n * k / seconds * 1e-12,
              2.0 * experts * rows * n * k / seconds * 1e-12);
}

void time_contiguous(int experts, int blocks_each, int n, int k) {
  const int blocks = experts * blocks_each, m = blocks * kGroupedBlockRows;
  const Inputs x(m, k, 1);
  const Fp8Weight w(experts, n, k, 2);
  Buffer y(static_cast<size_t>(m) * n * 2), owners(blocks * 4);
  std::vector<int> host(blocks);
  for (int b = 0; b < blocks; ++b) host[b] = b / blocks_each;
  check(cudaMemcpy(owners.data, host.data(), blocks * 4, cudaMemcpyHostToDevice), "copy");
  const double seconds = time_graph(2, 5, [&](int, cudaStream_t stream) {
    Fp8GroupedProduct p;
    p.experts = experts, p.m = m, p.block_experts = owners.as<int32_t>(), p.x = x.x, p.weight = w.weight;
    p.y = y.data, p.y_stride = n;
    check(launch_fp8_grouped_product(p, stream), "contiguous");
  });
  std::printf("contiguous experts=%d rows %d n=%-5d k=%-5d %8.1f us %5.0f TFLOP/s\n", experts, m, n, k, seconds * 1e6,
              2.0 * m * n * k / seconds * 1e-12);
}

// One launch of a tile height, for a profiler.
int run_once(int m, int n, int k, int tile_rows) {
  const Inputs x(m, k, 1);
  const Fp8Weight w(1, n, k, 2);
  Buffer y(static_cast<size_t>(m) * n * 2);
  Fp8Product p;
  p.m = m, p.x = x.x, p.weight = w.weight, p.y = y.data, p.y_stride = n, p.tile_rows = tile_rows;
  for (int i = 0; i < 3; ++i) check(launch_fp8_product(p, nullptr), "fp8");
  check(cudaDeviceSynchronize(), "fp8");
  return 0;
}

// K shared among blocks, beside tiles that have all of it.
int run_few() {
  check_dense(32, 3584, 18944, 0, Scalar::kF32, Epilogue::kAdd, 40);
  check_dense(100, 4608, 3584, 0, Scalar::kBf16, Epilogue::kStore, 50);
  using Shapes = std::initializer_list<std::pair<int, int>>;
  for (const auto& [n, k] : Shapes{{4608, 3584}, {3584, 3584}, {3584, 18944}, {7168, 16384}, {2112, 7168}}) {
    for (const int m : {16, 32, 64, 128, 256}) {
      const Inputs x(m, k, 1);
      const Fp8Weight w(6, n, k, 10);
      const Buffer y(static_cast<size_t>(m) * n * 2);
      std::printf("fp8 m=%-4d n=%-6d k=%-6d", m, n, k);
      for (const int split : {1, 2, 4, 8, 0}) {
        const double seconds = time_graph(24, 7, [&](int i, cudaStream_t stream) {
          Fp8Product p;
          p.m = m, p.x = x.x, p.weight = w.expert(i % 6), p.y = y.data, p.y_stride = n, p.split = split;
          check(launch_fp8_product(p, stream), "fp8");
        });
        std::printf("  split %d %6.1f us", split, seconds * 1e6);
      }
      std::printf("\n");
    }
  }
  return failures == 0 ? 0 : 1;
}

// What serves beside the library's product, by rows: where the one takes over from the other (product_calls.cc).
int run_library() {
  LtProducts lt;
  Buffer workspace(LtProducts::kWorkspaceBytes);
  check_library(lt, workspace, 256, 7168, 2048, Scalar::kF32, true, 900);
  using Shapes = std::initializer_list<std::pair<int, int>>;
  for (const auto& [n, k] : Shapes{{7168, 2048},
                                   {4096, 7168},
                                   {7168, 16384},
                                   {24576, 1536},
                                   {2112, 7168},
                                   {4608, 3584},
                                   {3584, 3584},
                                   {37888, 3584},
                                   {3584, 18944}}) {
    for (const int m : {64, 128, 256, 512, 1024, 2048}) {
      const Inputs x(m, k, 1);
      const Fp8Weight w(3, n, k, 10);
      const Buffer y(static_cast<size_t>(m) * n * 2);
      const double own = time_graph(12, 5, [&, n = n, k = k](int i, cudaStream_t stream) {
        Fp8Product p;
        p.m = m, p.x = x.x, p.weight = w.expert(i % 3), p.y = y.data, p.y_stride = n;
        check(launch_fp8_product(p, stream), "fp8");
      });
      const double library = time_graph(12, 5, [&, n = n, k = k](int i, cudaStream_t stream) {
        const Weight weight = w.expert(i % 3);
        DenseProduct p;
        p.compute = DenseCompute::kFp8, p.m = m, p.n = n, p.k = k, p.x = x.x.q, p.x_stride = k;
        p.x_scales = x.x.scales, p.w = weight.data, p.w_scales = static_cast<const float*>(weight.scales);
        p.y = y.data, p.y_stride = n;
        check(lt.run(p, workspace.data, workspace.bytes, stream), "cublaslt");
      });
      std::printf("fp8 m=%-4d n=%-5d k=%-5d own %6.1f us  library %6.1f us\n", m, n, k, own * 1e6, library * 1e6);
    }
  }
  return failures == 0 ? 0 : 1;
}

constexpr int kShapes[][2] = {{7168, 2048}, {4096, 7168}, {7168, 16384}, {24576, 1536}, {2112, 7168},
                              {32768, 512}, {4608, 3584}, {37888, 3584}, {3584, 18944}};

// Prompts' products, plain and grouped, checked before.
int run_dense() {
  uint32_t seed = 2000;
  for (const int tile : {0, 192, 256}) {
    check_dense(4096, 7168, 2048, tile, Scalar::kBf16, Epilogue::kStore, seed += 10);
    check_dense(2500, 2112, 7168, tile, Scalar::kBf16, Epilogue::kStore, seed += 10);
    check_dense(777, 1000, 512, tile, Scalar::kBf16, Epilogue::kStore, seed += 10);
    check_dense(1300, 4096, 7168, tile, Scalar::kF32, Epilogue::kAdd, seed += 10);
  }
  check_contiguous(5, 4096, 7168, 128, seed += 10);
  for (const int m : {4096, 2048, 1024, 512, 256})
    for (const auto& shape : kShapes) time_dense(m, shape[0], shape[1]);
  time_contiguous(32, 8, 4096, 7168);
  time_contiguous(32, 8, 7168, 2048);
  return failures == 0 ? 0 : 1;
}

// For a sanitizer, which takes a hundred times as long.
int run_small() {
  for (const auto source : {QuantizeSource::kPlain, QuantizeSource::kRmsNorm, QuantizeSource::kSwiGlu}) {
    check_quantize(source, Scalar::kBf16);
  }
  for (const int tile : {64, 128, 192, 256}) check_dense(150, 272, 512, tile, Scalar::kF32, Epilogue::kAdd, 10 + tile);
  for (const int tile : {192, 256}) check_dense(290, 200, 512, tile, Scalar::kBf16, Epilogue::kStore, 12 + tile);
  check_dense(33, 272, 6144, 0, Scalar::kF32, Epilogue::kAdd, 20);      // K by eight,
  check_dense(150, 272, 3072, 0, Scalar::kBf16, Epilogue::kStore, 30);  // by four,
  check_dense(70, 136, 1664, 0, Scalar::kF32, Epilogue::kStore, 60);    // by two, unevenly
  check_contiguous(4, 256, 512, 64, 300);
  check_contiguous(4, 256, 512, 128, 310);
  check_masked(5, 64, 256, 512, 400);
  std::printf("failures: %d\n", failures);
  return failures == 0 ? 0 : 1;
}

int run(bool times) {
  std::setvbuf(stdout, nullptr, _IOLBF, 1 << 16);
  for (const auto source : {QuantizeSource::kPlain, QuantizeSource::kRmsNorm, QuantizeSource::kSwiGlu}) {
    check_quantize(source, Scalar::kBf16);
    check_quantize(source, Scalar::kF32);
  }
  LtProducts lt;
  Buffer workspace(LtProducts::kWorkspaceBytes);
  check_cublaslt(lt, workspace);
  for (const auto type : {Scalar::kBf16, Scalar::kF32}) {
    check_library(lt, workspace, 1024, 4096, 7168, type, false, 700);
    check_library(lt, workspace, 516, 2112, 1536, type, true, 800);
  }
  uint32_t seed = 100;
  for (const int tile : {64, 128, 192, 256}) {
    check_dense(1, 576, 7168, tile, Scalar::kBf16, Epilogue::kStore, seed += 10);
    check_dense(200, 2112, 1536, tile, Scalar::kF32, Epilogue::kAdd, seed += 10);
    check_dense(333, 1000, 128, tile, Scalar::kBf16, Epilogue::kAdd, seed += 10);
    check_dense(4096, 7168, 2048, tile, Scalar::kBf16, Epilogue::kStore, seed += 10);
    check_dense(2500, 4096, 7168, tile, Scalar::kF32, Epilogue::kStore, seed += 10);
  }
  check_contiguous(5, 4096, 7168, 128, seed += 10);
  check_contiguous(4, 7168, 2048, 64, seed += 10);
  check_masked(9, 64, 4096, 7168, seed += 10);
  check_masked(5, 192, 7168, 2048, seed += 10);
  std::printf("failures: %d\n", failures);
  if (!times) return failures == 0 ? 0 : 1;
  for (const auto& shape : kShapes) time_dense(4096, shape[0], shape[1]);
  for (const int m : {64, 128, 256})
    for (const auto& shape : kShapes) time_dense(m, shape[0], shape[1]);
  for (const int rows : {8, 16, 32, 64}) {
    time_masked(256, 128, rows, 4096, 7168);
    time_masked(256, 128, rows, 7168, 2048);
  }
  time_contiguous(256, 1, 4096, 7168);
  time_contiguous(256, 1, 7168, 2048);
  time_contiguous(32, 8, 4096, 7168);
  time_contiguous(32, 8, 7168, 2048);
  return failures == 0 ? 0 : 1;
}

}  // namespace
}  // namespace spillway::kernels::cuda

// Arguments: none, "check": no times, "small": few and small checks, "dense": prompts' products, "few": products of
// few rows, "library": beside the library by rows, or "once": one product alone.
int main(int argc, char** argv) {
  if (argc > 1 && std::strcmp(argv[1], "once") == 0) return spillway::kernels::cuda::run_once(4096, 4096, 7168, 256);
  if (argc > 1 && std::strcmp(argv[1], "small") == 0) return spillway::kernels::cuda::run_small();
  if (argc > 1 && std::strcmp(argv[1], "dense") == 0) return spillway::kernels::cuda::run_dense();
  if (argc > 1 && std::strcmp(argv[1], "few") == 0) return spillway::kernels::cuda::run_few();
  if (argc > 1 && std::strcmp(argv[1], "library") == 0) return spillway::kernels::cuda::run_library();
  return spillway::kernels::cuda::run(argc < 2 || std::strcmp(argv[1], "check") != 0);
}
