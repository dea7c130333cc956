// Test and benchmark of the products of few rows ("few"), of the bf16 products of more ("wide"), and of quantising
// weights and activations. Prints every check, then times; ends with 1 when a check failed.
//   nvcc -std=c++20 -O3 -gencode=arch=compute_90a,code=sm_90a -Isrc src/kernels/cuda/gemm_bench.cu
//     src/kernels/cuda/gemv_*.cu src/kernels/cuda/quantize_*.cu src/kernels/cuda/gemm_{bf16,maps}.cu -o gemm_bench
#include "kernels/cuda/gemm_bf16.h"
#include "kernels/cuda/gemm_bf16_wide.h"
#include "kernels/cuda/gemm_testing.cuh"
#include "kernels/cuda/gemv_experts.h"
#include "kernels/cuda/gemv_portable.h"
#include "kernels/cuda/gemv_small_batch.h"
#include "kernels/cuda/quantize_activations.h"
#include "kernels/cuda/quantize_weight.h"

namespace spillway::kernels::cuda {
namespace {

using namespace testing;  // NOLINT

const char* name(WeightFormat format) {
  const char* names[] = {"bf16", "f8", "int8", "int4"};
  return names[static_cast<int>(format)];
}

// A random weight in its own memory.
struct RandomWeight {
  Buffer data, scales;
  Weight weight;
  RandomWeight(WeightFormat format, int n, int k, uint32_t seed)
      : data(weight_data_bytes(format, n, k)), scales(weight_scale_bytes(format, n, k) + 16) {
    weight = {format, n, k, data.data, scales.data, 128};
    const int64_t bytes = weight_data_bytes(format, n, k);
    if (format == WeightFormat::kBf16) {
      fill(data.data, bytes / 2, Fill::kBf16, seed, 0.05f);
    } else if (format == WeightFormat::kF8Block) {
      fill(data.data, bytes, Fill::kF8, seed);
      fill(scales.data, weight_scale_bytes(format, n, k) / 4, Fill::kScaleF32, seed + 1, 1e-3f);
    } else {
      fill(data.data, bytes, Fill::kBytes, seed);
      fill(scales.data, weight_scale_bytes(format, n, k) / 2, Fill::kScaleF16, seed + 1, 1e-3f);
    }
  }
};

struct Case {
  WeightFormat format;
  int m, n, k;
  Scalar x_type, y_type;
  bool norm, bias;
  Epilogue epilogue;
};

std::vector<double> expected_outputs(const Case& c, const std::vector<double>& product, const std::vector<float>& x,
                                     const std::vector<float>& bias, const std::vector<float>& before, float eps) {
  const int columns = c.epilogue == Epilogue::kSwiGlu ? c.n / 2 : c.n;
  std::vector<double> y(static_cast<size_t>(c.m) * columns);
  for (int i = 0; i < c.m; ++i) {
    double factor = 1;
    if (c.norm) {
      double sum = 0;
      for (int j = 0; j < c.k; ++j) sum += static_cast<double>(x[i * c.k + j]) * x[i * c.k + j];
      factor = 1 / std::sqrt(sum / c.k + eps);
    }
    const auto value = [&](int j) {
      return product[static_cast<size_t>(i) * c.n + j] * factor + (c.bias ? bias[j] : 0);
    };
    for (int j = 0; j < columns; ++j) {
      double v = value(j);
      if (c.epilogue == Epilogue::kSwiGlu) v = v / (1 + std::exp(-v)) * value(j + columns);
      if (c.epilogue == Epilogue::kAdd) v += before[static_cast<size_t>(i) * columns + j];
      y[static_cast<size_t>(i) * columns + j] = v;
    }
  }
  return y;
}

__global__ void multiply_rows(float* x, const float* w, int64_t count, int k) {
  const int64_t i = blockIdx.x * static_cast<int64_t>(blockDim.x) + threadIdx.x;
  if (i < count) x[i] *= w[i % k];
}
__global__ void to_f32(const __nv_bfloat16* from, float* to, int64_t count) {
  const int64_t i = blockIdx.x * static_cast<int64_t>(blockDim.x) + threadIdx.x;
  if (i < count) to[i] = __bfloat162float(from[i]);
}

// Under a sanitizer, which takes a hundred times as long: the cases of so much work at most.
int64_t work_max = INT64_MAX;
bool small_enough(const Case& c) { return int64_t{c.m} * c.n * c.k <= work_max; }

void check_small_batch(const Case& c, uint32_t seed) {
  const RandomWeight w(c.format, c.n, c.k, seed);
  const size_t inputs = static_cast<size_t>(c.m) * c.k;
  const int columns = c.epilogue == Epilogue::kSwiGlu ? c.n / 2 : c.n;
  const size_t outputs = static_cast<size_t>(c.m) * columns;
  Buffer x(inputs * 4), x32(inputs * 4), norm(c.k * 4), bias(c.n * 4), y(outputs * 4);
  fill(x.data, inputs, c.x_type == Scalar::kF32 ? Fill::kF32 : Fill::kBf16, seed + 2);
  fill(norm.data, c.k, Fill::kF32, seed + 3);
  fill(bias.data, c.n, Fill::kF32, seed + 4);
  if (c.epilogue == Epilogue::kAdd)
    fill(y.data, outputs, c.y_type == Scalar::kF32 ? Fill::kF32 : Fill::kBf16, seed + 5);
  const std::vector<float> before = to_host(y.data, c.y_type, outputs);
  const auto blocks = static_cast<unsigned>((inputs + 255) / 256);
  if (c.x_type == Scalar::kF32) {
    check(cudaMemcpy(x32.data, x.data, inputs * 4, cudaMemcpyDeviceToDevice), "copy");
  } else {
    to_f32<<<blocks, 256>>>(x.as<__nv_bfloat16>(), x32.as<float>(), inputs);
  }
  const std::vector<float> x_host = to_host(x32.data, Scalar::kF32, inputs);
  if (c.norm) multiply_rows<<<blocks, 256>>>(x32.as<float>(), norm.as<float>(), inputs, c.k);
  const auto product = reference(x32.as<float>(), w.weight, c.m);
  const auto expected = expected_outputs(c, product, x_host, to_host(bias.data, Scalar::kF32, c.n), before, 1e-6f);
  SmallBatchProduct p;
  p.m = c.m, p.x = x.data, p.x_type = c.x_type, p.x_stride = c.k, p.weight = w.weight;
  if (c.norm) p.norm_weight = norm.data, p.norm_type = Scalar::kF32;
  if (c.bias) p.bias = bias.as<float>();
  p.epilogue = c.epilogue, p.y = y.data, p.y_type = c.y_type, p.y_stride = columns;
  check(launch_small_batch(p, nullptr), "small batch");
  check(cudaDeviceSynchronize(), "small batch");
  char what[128];
  std::snprintf(what, sizeof(what), "%s m=%d n=%d k=%d x%s y%s%s%s epilogue %d", name(c.format), c.m, c.n, c.k,
                c.x_type == Scalar::kF32 ? "32" : "16", c.y_type == Scalar::kF32 ? "32" : "16", c.norm ? " norm" : "",
                c.bias ? " bias" : "", static_cast<int>(c.epilogue));
  const double tolerance = c.epilogue == Epilogue::kSwiGlu || c.y_type != Scalar::kF32 ? 6e-3 : 4e-3;
  compare(what, to_host(y.data, c.y_type, outputs), expected, tolerance);
  if (c.epilogue != Epilogue::kAdd) {
    Buffer plain(outputs * 4);
    p.y = plain.data;
    check(launch_small_batch_portable(p, nullptr), "portable");
    compare("  portable", to_host(plain.data, c.y_type, outputs), expected, tolerance, false);
  }
  if (c.m > 1 && c.epilogue == Epilogue::kStore) {  // a row alone has the same bits
    Buffer alone(outputs * 4), together(outputs * 4);
    p.same_bits = true, p.y = together.data;
    check(launch_small_batch(p, nullptr), "the same bits");
    compare("  the same bits for every m", to_host(together.data, c.y_type, outputs), expected, tolerance, false);
    p.m = 1, p.y = alone.data;
    p.x = static_cast<const char*>(x.data) + static_cast<size_t>(c.m - 1) * c.k * scalar_bytes(c.x_type);
    check(launch_small_batch(p, nullptr), "one row");
    const auto one = to_host(alone.data, c.y_type, columns), all = to_host(together.data, c.y_type, outputs);
    if (!std::equal(one.begin(), one.end(), all.end() - columns)) {
      ++failures;
      std::printf("WRONG    %s: a row's bits depend on the others\n", what);
    }
  }
}

void check_all_small_batches() {
  uint32_t seed = 1;
  for (const auto format : {WeightFormat::kBf16, WeightFormat::kF8Block, WeightFormat::kInt8, WeightFormat::kInt4}) {
    using enum Scalar;
    const Case cases[] = {
        {format, 1, 3584, 3584, kBf16, kBf16, false, false, Epilogue::kStore},
        {format, 1, 4608, 3584, kF32, kF32, true, true, Epilogue::kStore},
        {format, 4, 3584, 18944, kBf16, kF32, false, false, Epilogue::kAdd},
        {format, 3, 37888, 3584, kBf16, kBf16, true, false, Epilogue::kSwiGlu},
        {format, 8, 576, 7168, kBf16, kBf16, false, true, Epilogue::kStore},
        {format, 13, 2112, 7168, kBf16, kBf16, false, false, Epilogue::kAdd},
        {format, 32, 1000, 1536, kF32, kF32, true, false, Epilogue::kStore},
        {format, 32, 3584, 2048, kBf16, kBf16, false, false, Epilogue::kStore},
        {format, 2, 70, 208, kF32, kF32, false, true, Epilogue::kStore},
        {format, 5, 96, 64, kBf16, kF32, false, false, Epilogue::kSwiGlu},
    };
    for (const Case& c : cases)
      if (small_enough(c)) check_small_batch(c, seed += 10);
  }
}

void check_quantized_weight(WeightFormat format) {
  const int n = 200, k = 1100;
  Buffer source(static_cast<size_t>(n) * k * 4), data(weight_data_bytes(format, n, k)),
      scales(weight_scale_bytes(format, n, k)), widened(static_cast<size_t>(n) * k * 2);
  fill(source.data, static_cast<int64_t>(n) * k, Fill::kF32, 77, 0.1f);
  QuantizeWeight q;
  q.source_type = WeightSourceType::kF32, q.source = source.data, q.n = n, q.k = k, q.format = format;
  q.data = data.data, q.scales = scales.data;
  check(launch_quantize_weight(q, nullptr), "quantize weight");
  const Weight weight{format, n, k, data.data, scales.data, 128};
  check(launch_dequantize_weight(weight, widened.data, nullptr), "dequantize");
  const auto out = to_host(widened.data, Scalar::kBf16, static_cast<size_t>(n) * k);
  const auto from = to_host(source.data, Scalar::kF32, static_cast<size_t>(n) * k);
  compare(format == WeightFormat::kInt8 ? "quantize to int8 and back" : "quantize to int4 and back", out,
          std::vector<double>(from.begin(), from.end()), format == WeightFormat::kInt8 ? 0.01 : 0.15);
  Buffer unit(static_cast<size_t>(k) * k * 4);  // the same by the reference's own reading of the layout
  std::vector<float> ones(static_cast<size_t>(k) * k);
  for (int i = 0; i < k; ++i) ones[static_cast<size_t>(i) * k + i] = 1;
  check(cudaMemcpy(unit.data, ones.data(), ones.size() * 4, cudaMemcpyHostToDevice), "copy");
  const auto read = reference(unit.as<float>(), weight, k);  // [k, n]
  std::vector<double> transposed(static_cast<size_t>(n) * k);
  for (int i = 0; i < n; ++i)
    for (int j = 0; j < k; ++j) transposed[static_cast<size_t>(i) * k + j] = read[static_cast<size_t>(j) * n + i];
  compare("  its layout", out, transposed, 2e-3);
}

void check_bf16_product(const Case& c, int share, uint32_t seed) {
  const RandomWeight w(WeightFormat::kBf16, c.n, c.k, seed);
  const size_t inputs = static_cast<size_t>(c.m) * c.k;
  const int columns = c.epilogue == Epilogue::kSwiGlu ? c.n / 2 : c.n;
  const size_t outputs = static_cast<size_t>(c.m) * columns;
  Buffer x(inputs * 2), x32(inputs * 4), bias(c.n * 4), y(outputs * 4);
  fill(x.data, inputs, Fill::kBf16, seed + 2);
  fill(bias.data, c.n, Fill::kF32, seed + 4);
  if (c.epilogue == Epilogue::kAdd)
    fill(y.data, outputs, c.y_type == Scalar::kF32 ? Fill::kF32 : Fill::kBf16, seed + 5);
  const std::vector<float> before = to_host(y.data, c.y_type, outputs);
  to_f32<<<static_cast<unsigned>((inputs + 255) / 256), 256>>>(x.as<__nv_bfloat16>(), x32.as<float>(), inputs);
  const auto expected = expected_outputs(c, reference(x32.as<float>(), w.weight, c.m), {},
                                         to_host(bias.data, Scalar::kF32, c.n), before, 0);
  Bf16Product p;
  p.m = c.m, p.x = x.data, p.x_stride = c.k, p.weight = w.weight, p.bias = c.bias ? bias.as<float>() : nullptr;
  p.epilogue = c.epilogue, p.y = y.data, p.y_type = c.y_type, p.y_stride = columns, p.share = share;
  check(launch_bf16_product(p, nullptr), "bf16");
  check(cudaDeviceSynchronize(), "bf16");
  char what[128];
  std::snprintf(what, sizeof(what), "bf16 product m=%d n=%d k=%d y%s%s epilogue %d share %d", c.m, c.n, c.k,
                c.y_type == Scalar::kF32 ? "32" : "16", c.bias ? " bias" : "", static_cast<int>(c.epilogue), share);
  compare(what, to_host(y.data, c.y_type, outputs), expected, c.y_type == Scalar::kF32 ? 2e-4 : 4e-3);
  if (share != 1 || !bf16_wide_takes(p)) return;
  check(cudaMemset(y.data, 0xff, outputs * 4), "poison");
  check(launch_bf16_wide_product(p, nullptr), "bf16 wide");
  check(cudaDeviceSynchronize(), "bf16 wide");
  std::snprintf(what, sizeof(what), "bf16 wide m=%d n=%d k=%d epilogue %d", c.m, c.n, c.k,
                static_cast<int>(c.epilogue));
  compare(what, to_host(y.data, c.y_type, outputs), expected, c.y_type == Scalar::kF32 ? 2e-4 : 4e-3);
}

void check_bf16_products() {
  using enum Scalar;
  const auto format = WeightFormat::kBf16;
  const Case cases[] = {
      {format, 32, 4608, 3584, kBf16, kBf16, false, true, Epilogue::kStore},
      {format, 128, 3584, 3584, kBf16, kBf16, false, false, Epilogue::kAdd},
      {format, 100, 3584, 18944, kBf16, kF32, false, false, Epilogue::kAdd},
      {format, 64, 37888, 3584, kBf16, kBf16, false, false, Epilogue::kSwiGlu},
      {format, 200, 37888, 3584, kBf16, kF32, false, true, Epilogue::kSwiGlu},
      {format, 128, 20000, 1536, kBf16, kF32, false, false, Epilogue::kStore},
      {format, 17, 200, 64, kBf16, kF32, false, true, Epilogue::kStore},
      {format, 40, 8000, 320, kBf16, kBf16, false, false, Epilogue::kStore},
      {format, 100, 16000, 256, kBf16, kF32, false, false, Epilogue::kAdd},
      {format, 130, 304, 192, kBf16, kBf16, false, true, Epilogue::kSwiGlu},
      {format, 128, 37888, 3584, kBf16, kBf16, false, false, Epilogue::kSwiGlu},
      {format, 33, 152064, 192, kBf16, kF32, false, false, Epilogue::kStore},
      {format, 90, 608, 256, kBf16, kBf16, false, false, Epilogue::kSwiGlu},
      {format, 10, 80000, 64, kBf16, kBf16, false, false, Epilogue::kStore},
  };
  uint32_t seed = 5000;
  for (const Case& c : cases)
    for (const int share : {1, 2})
      if (small_enough(c)) check_bf16_product(c, share, seed += 10);
}

// Both expert products of a few tokens over E stacked experts.
void check_experts(WeightFormat format, int tokens, uint32_t seed) {
  constexpr int kExperts = 6, kSlots = 4, kHidden = 1024, kInter = 384;
  const int all = tokens * kSlots;
  const RandomWeight up(format, kExperts * 2 * kInter, kHidden, seed),
      down(format, kExperts * kHidden, kInter, seed + 2);
  Buffer x(tokens * kHidden * 4), h(all * kInter * 4), y(tokens * kHidden * 4), ids(all * 4), weights(all * 4);
  fill(x.data, tokens * kHidden, Fill::kF32, seed + 4);
  fill(weights.data, all, Fill::kF32, seed + 5);
  fill(y.data, tokens * kHidden, Fill::kF32, seed + 6);
  std::vector<int32_t> chosen(all);
  for (int i = 0; i < all; ++i) chosen[i] = (i * 5 + i / kSlots + static_cast<int>(seed)) % kExperts;
  check(cudaMemcpy(ids.data, chosen.data(), all * 4, cudaMemcpyHostToDevice), "copy");
  ExpertProduct p;
  p.tokens = tokens, p.slots = kSlots, p.experts = kExperts, p.ids = ids.as<int32_t>(), p.weights = weights.as<float>();
  p.x = x.data, p.x_type = Scalar::kF32, p.x_stride = kHidden, p.weight = up.weight, p.weight.n = 2 * kInter;
  p.y = h.data, p.y_type = Scalar::kF32, p.y_stride = kInter;
  check(launch_experts_gate_up(p, nullptr), "gate up");
  const auto wide = reference(x.as<float>(), up.weight, tokens);
  std::vector<double> expected(static_cast<size_t>(all) * kInter);
  for (int s = 0; s < all; ++s) {
    for (int j = 0; j < kInter; ++j) {
      const size_t at = (static_cast<size_t>(s / kSlots) * kExperts + chosen[s]) * 2 * kInter + j;
      expected[static_cast<size_t>(s) * kInter + j] = wide[at] / (1 + std::exp(-wide[at])) * wide[at + kInter];
    }
  }
  compare("experts of few tokens, gate and up", to_host(h.data, Scalar::kF32, expected.size()), expected, 6e-3);
  const auto before = to_host(y.data, Scalar::kF32, tokens * kHidden),
             factors = to_host(weights.data, Scalar::kF32, all);
  const auto outs = reference(h.as<float>(), down.weight, all);
  p.x = h.data, p.x_stride = kInter, p.weight = down.weight, p.weight.n = kHidden;
  p.y = y.data, p.y_stride = kHidden, p.add = true;
  check(launch_experts_down(p, nullptr), "down");
  expected.assign(before.begin(), before.end());
  for (int s = 0; s < all; ++s) {
    for (int j = 0; j < kHidden; ++j) {
      expected[static_cast<size_t>(s / kSlots) * kHidden + j] +=
          factors[s] * outs[(static_cast<size_t>(s) * kExperts + chosen[s]) * kHidden + j];
    }
  }
  compare("experts of few tokens, down", to_host(y.data, Scalar::kF32, expected.size()), expected, 4e-3);
}

struct Pool {
  Buffer data{size_t{17} << 30};
  Buffer scales{size_t{1} << 30};
  WeightFormat filled = WeightFormat::kInt4;
  Pool() {
    fill(data.data, int64_t{17} << 30, Fill::kBytes, 5);
    fill(scales.data, int64_t{1} << 29, Fill::kScaleF16, 6, 1e-3f);
  }
  void prepare(WeightFormat format) {
    if (format == WeightFormat::kBf16) fill(data.data, int64_t{17} << 29, Fill::kBf16, 5, 0.02f);
    if (format == WeightFormat::kF8Block) {
      fill(data.data, int64_t{17} << 30, Fill::kF8, 5);
      fill(scales.data, int64_t{1} << 28, Fill::kScaleF32, 6, 1e-3f);
    }
  }
};

// The next weight of the pool; goes round before the end.
struct Cursor {
  const Pool& pool;
  size_t at = 0;
  Weight next(WeightFormat format, int n, int k) {
    const size_t bytes = (weight_data_bytes(format, n, k) + 255) / 256 * 256;
    if (at + bytes > pool.data.bytes) at = 0;
    const Weight weight{format, n, k, pool.data.as<char>() + at, pool.scales.as<char>() + at / 32, 128};
    at += bytes;
    return weight;
  }
};

double weight_bytes(WeightFormat format, double n, double k) {
  return static_cast<double>(weight_data_bytes(format, static_cast<int64_t>(n), static_cast<int64_t>(k))) +
         static_cast<double>(weight_scale_bytes(format, static_cast<int64_t>(n), static_cast<int64_t>(k)));
}

void time_small_batches(const Pool& pool, WeightFormat format, std::initializer_list<int> rows = {1, 2, 4, 8, 16, 32}) {
  const int shapes[][2] = {{4608, 3584}, {3584, 3584},  {37888, 3584}, {3584, 18944}, {152064, 3584},
                           {2112, 7168}, {24576, 1536}, {7168, 16384}, {4096, 7168},  {7168, 2048}};
  Buffer x(32 * 18944 * 2), y(static_cast<size_t>(32) * 152064 * 2);
  fill(x.data, 32 * 18944, Fill::kBf16, 9);
  for (const auto& shape : shapes) {
    std::printf("%-5s n=%-7d k=%-6d", name(format), shape[0], shape[1]);
    for (const int m : rows) {
      Cursor cursor{pool};
      const double seconds = time_graph(shape[0] > 30000 ? 6 : 24, 5, [&](int, cudaStream_t stream) {
        SmallBatchProduct p;
        p.m = m, p.x = x.data, p.x_stride = shape[1], p.weight = cursor.next(format, shape[0], shape[1]);
        p.y = y.data, p.y_stride = shape[0];
        check(launch_small_batch(p, stream), "small batch");
      });
      std::printf("  m%-2d %6.1f us %.2f TB/s", m, seconds * 1e6,
                  weight_bytes(format, shape[0], shape[1]) / seconds * 1e-12);
    }
    std::printf("\n");
  }
}

// R1's routed experts of one step: 8 of 256 a token.
void time_experts(const Pool& pool) {
  constexpr int kSets = 8, kSlots = 8;
  Buffer x(16 * 7168 * 2), h(128 * 2048 * 2), y(16 * 7168 * 2), weights(128 * 4), ids(kSets * 128 * 4);
  fill(x.data, 16 * 7168, Fill::kBf16, 1);
  fill(h.data, 128 * 2048, Fill::kBf16, 2);
  fill(weights.data, 128, Fill::kF32, 3);
  std::vector<int32_t> chosen(kSets * 128);
  for (size_t i = 0; i < chosen.size(); ++i) chosen[i] = static_cast<int32_t>(i * 89 % 256);
  check(cudaMemcpy(ids.data, chosen.data(), chosen.size() * 4, cudaMemcpyHostToDevice), "copy");
  for (const int tokens : {1, 2, 4}) {
    const double seconds = time_graph(16, 5, [&](int i, cudaStream_t stream) {
      ExpertProduct p;
      p.tokens = tokens, p.slots = kSlots, p.experts = 256, p.ids = ids.as<int32_t>() + i % kSets * 128,
      p.weights = weights.as<float>();
      p.x = x.data, p.x_stride = 7168, p.y = h.data, p.y_stride = 2048;
      p.weight = {WeightFormat::kF8Block, 4096, 7168, pool.data.data, pool.scales.data, 128};
      check(launch_experts_gate_up(p, stream), "gate up");
      p.x = h.data, p.x_stride = 2048, p.y = y.data, p.y_stride = 7168;
      p.weight = {WeightFormat::kF8Block, 7168, 2048, pool.data.as<char>() + (size_t{8} << 30), pool.scales.data, 128};
      check(launch_experts_down(p, stream), "down");
    });
    const double bytes = static_cast<double>(tokens) * kSlots * 3 * 2048 * 7168;
    std::printf("R1 experts of %d tokens: %.1f us, %.2f TB/s\n", tokens, seconds * 1e6, bytes / seconds * 1e-12);
  }
}

void time_bf16_products(const Pool& pool) {
  const int shapes[][2] = {{4608, 3584}, {3584, 3584}, {37888, 3584}, {3584, 18944}, {152064, 3584}};
  Buffer x(256 * 18944 * 2), y(static_cast<size_t>(256) * 152064 * 2);
  fill(x.data, 256 * 18944, Fill::kBf16, 9);
  for (const auto& shape : shapes) {
    for (const int share : {1, 2}) {
      std::printf("bf16 product %s n=%-7d k=%-6d", share == 1 ? "share 1" : "share 2 or wide", shape[0], shape[1]);
      for (const int m : {16, 32, 64, 128, 256}) {
        Cursor cursor{pool};
        const double seconds = time_graph(shape[0] > 30000 ? 6 : 24, 5, [&](int, cudaStream_t stream) {
          Bf16Product p;
          p.m = m, p.x = x.data, p.x_stride = shape[1], p.weight = cursor.next(WeightFormat::kBf16, shape[0], shape[1]);
          p.y = y.data, p.y_stride = shape[0], p.share = share;
          const bool wide = share == 2 && m <= 128 && shape[0] > 30000;
          check(wide ? launch_bf16_wide_product(p, stream) : launch_bf16_product(p, stream), "bf16 product");
        });
        std::printf("  m%-3d %6.1f us %.2f TB/s", m, seconds * 1e6, 2.0 * shape[0] * shape[1] / seconds * 1e-12);
      }
      std::printf("\n");
    }
  }
}

// Qwen2.5-7B's products of one decode step, chained as in the model (without attention), in one graph.
void time_model(const Pool& pool, WeightFormat format, int m, bool overlap, bool wide = false, int blocks = 0) {
  Buffer x(static_cast<size_t>(m) * 3584 * 2), qkv(static_cast<size_t>(m) * 4608 * 2),
      h(static_cast<size_t>(m) * 18944 * 2), logits(static_cast<size_t>(m) * 152064 * 4), norm(3584 * 2);
  fill(x.data, m * 3584, Fill::kBf16, 3);
  fill(qkv.data, m * 4608, Fill::kBf16, 4);
  fill(norm.data, 3584, Fill::kBf16, 5);
  double bytes = 0;
  const double seconds = time_graph(1, 9, [&](int, cudaStream_t stream) {
    Cursor cursor{pool};
    bytes = 0;
    const auto product = [&](const Buffer& from, int64_t stride, int n, int k, const Buffer& to, int columns,
                             Epilogue epilogue, bool normed, Scalar y_type) {
      bytes += weight_bytes(format, n, k);
      if (wide) {
        Bf16Product p;
        p.m = m, p.x = from.data, p.x_stride = stride, p.weight = cursor.next(format, n, k);
        p.y = to.data, p.y_stride = columns, p.y_type = y_type, p.epilogue = epilogue;
        check(launch_bf16_product(p, stream), "model");
        return;
      }
      SmallBatchProduct p;
      p.m = m, p.x = from.data, p.x_stride = stride, p.weight = cursor.next(format, n, k);
      if (normed) p.norm_weight = norm.data;
      p.y = to.data, p.y_stride = columns, p.y_type = y_type, p.epilogue = epilogue, p.overlap = overlap;
      p.blocks = blocks;
      check(launch_small_batch(p, stream), "model");
    };
    for (int layer = 0; layer < 28; ++layer) {
      product(x, 3584, 4608, 3584, qkv, 4608, Epilogue::kStore, true, Scalar::kBf16);
      product(qkv, 4608, 3584, 3584, x, 3584, Epilogue::kAdd, false, Scalar::kBf16);
      product(x, 3584, 37888, 3584, h, 18944, Epilogue::kSwiGlu, true, Scalar::kBf16);
      product(h, 18944, 3584, 18944, x, 3584, Epilogue::kAdd, false, Scalar::kBf16);
    }
    product(x, 3584, 152064, 3584, logits, 152064, Epilogue::kStore, true, Scalar::kF32);
  });
  std::printf("Qwen2.5-7B %-5s %s m=%-3d overlap %d: %.3f ms, %.2f TB/s, %.0f tok/s without attention (blocks %d)\n",
              name(format), wide ? "wide" : "few ", m, overlap, seconds * 1e3, bytes / seconds * 1e-12, m / seconds,
              blocks);
}

__global__ void read_kernel(const uint4* data, int64_t count, uint32_t* out) {
  uint32_t sum = 0;
  const int64_t step = static_cast<int64_t>(gridDim.x) * blockDim.x;
  for (int64_t i = blockIdx.x * static_cast<int64_t>(blockDim.x) + threadIdx.x; i < count; i += 8 * step) {
#pragma unroll
    for (int j = 0; j < 8; ++j) {
      if (i + j * step < count) {
        const uint4 q = __ldcs(data + i + j * step);
        sum += q.x ^ q.y ^ q.z ^ q.w;
      }
    }
  }
  if (sum == 0x12345678) *out = sum;
}

void time_ceiling(const Pool& pool) {
  Buffer out(16);
  const double seconds = time_graph(1, 5, [&](int, cudaStream_t stream) {
    read_kernel<<<132 * 4, 512, 0, stream>>>(pool.data.as<uint4>(), int64_t{8} << 26, out.as<uint32_t>());
  });
  std::printf("ceiling: plain reads of 8 GiB %.2f TB/s\n", static_cast<double>(int64_t{8} << 30) / seconds * 1e-12);
}

void run_few() {
  check_quantized_weight(WeightFormat::kInt8);
  check_quantized_weight(WeightFormat::kInt4);
  check_all_small_batches();
  for (const auto format : {WeightFormat::kBf16, WeightFormat::kF8Block})
    for (const int tokens : {1, 3}) check_experts(format, tokens, 900 + tokens);
  std::printf("failures: %d\n", failures);
  Pool pool;
  time_ceiling(pool);
  for (const auto format : {WeightFormat::kInt4, WeightFormat::kInt8, WeightFormat::kF8Block, WeightFormat::kBf16}) {
    pool.prepare(format);
    for (const int m : {1, 8, 32}) time_model(pool, format, m, true);
    time_model(pool, format, 1, false);
    if (format == WeightFormat::kF8Block) time_experts(pool);
    time_small_batches(pool, format);
  }
}

// One token's step only.
int run_token() {
  Pool pool;
  time_ceiling(pool);
  for (const auto format : {WeightFormat::kInt4, WeightFormat::kInt8, WeightFormat::kF8Block, WeightFormat::kBf16}) {
    pool.prepare(format);
    for (const int blocks : {0, 1, 2}) time_model(pool, format, 1, true, false, blocks);
    for (const int m : {2, 4}) time_model(pool, format, m, true);
    time_small_batches(pool, format, {1});
  }
  return 0;
}

void run_wide() {
  check_bf16_products();
  std::printf("failures: %d\n", failures);
  Pool pool;
  pool.prepare(WeightFormat::kBf16);
  for (const int m : {16, 32, 64, 128, 256}) time_model(pool, WeightFormat::kBf16, m, true, true);
  time_bf16_products(pool);
}

int run_small() {
  work_max = 20'000'000;
  check_quantized_weight(WeightFormat::kInt8);
  check_quantized_weight(WeightFormat::kInt4);
  check_all_small_batches();
  for (const auto format : {WeightFormat::kBf16, WeightFormat::kF8Block}) check_experts(format, 3, 903);
  check_bf16_products();
  std::printf("failures: %d\n", failures);
  return failures == 0 ? 0 : 1;
}

int run(const char* part) {
  std::setvbuf(stdout, nullptr, _IOLBF, 1 << 16);
  if (std::strcmp(part, "small") == 0) return run_small();
  if (std::strcmp(part, "token") == 0) return run_token();
  if (std::strcmp(part, "wide") != 0) run_few();
  if (std::strcmp(part, "few") != 0) run_wide();
  return failures == 0 ? 0 : 1;
}

}  // namespace
}  // namespace spillway::kernels::cuda

int main(int argc, char** argv) { return spillway::kernels::cuda::run(argc > 1 ? argv[1] : "all"); }
