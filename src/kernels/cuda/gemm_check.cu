// Checks of the products of few rows, of the bf16 products of more and of quantised weights, against float64.
// Standalone: scripts/gpu_kernels.sh FOLDER gemm_check[:small]; "small" runs the sizes for compute-sanitizer.
#include "kernels/cuda/gemm_bf16.h"
#include "kernels/cuda/gemm_bf16_split.h"
#include "kernels/cuda/gemm_bf16_wide.h"
#include "kernels/cuda/gemm_testing.cuh"
#include "kernels/cuda/gemv_experts.h"
#include "kernels/cuda/gemv_portable.h"
#include "kernels/cuda/gemv_small_batch.h"
#include "kernels/cuda/quantize_weight.h"

namespace spillway::kernels::cuda {
namespace {

using namespace testing;  // NOLINT

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
  std::snprintf(what, sizeof(what), "%s m=%d n=%d k=%d x%s y%s%s%s epilogue %d", format_name(c.format), c.m, c.n, c.k,
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
        {format, 2, 1000, 640, kF32, kBf16, true, false, Epilogue::kSwiGlu},
        {format, 1, 1002, 640, kBf16, kBf16, true, false, Epilogue::kSwiGlu},
        {format, 1, 301, 2688, kBf16, kF32, false, false, Epilogue::kStore},
        {format, 1, 37888, 3584, kBf16, kBf16, true, false, Epilogue::kSwiGlu},
        {format, 1, 3584, 18944, kBf16, kF32, false, false, Epilogue::kAdd},
        {format, 1, 5332, 3328, kF32, kBf16, true, true, Epilogue::kSwiGlu},
        {format, 1, 530, 3072, kBf16, kBf16, true, true, Epilogue::kAdd},
        {format, 1, 1060, 5120, kBf16, kF32, false, true, Epilogue::kSwiGlu},
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

void check_bf16_product(const Case& c, uint32_t seed) {
  const RandomWeight w(WeightFormat::kBf16, c.n, c.k, seed);
  const size_t inputs = static_cast<size_t>(c.m) * c.k;
  const int columns = c.epilogue == Epilogue::kSwiGlu ? c.n / 2 : c.n;
  const size_t outputs = static_cast<size_t>(c.m) * columns;
  Buffer x(inputs * 2), x32(inputs * 4), bias(c.n * 4), y(outputs * 4);
  fill(x.data, inputs, Fill::kBf16, seed + 2);
  fill(bias.data, c.n, Fill::kF32, seed + 4);
  const auto fill_y = [&] {
    if (c.epilogue != Epilogue::kAdd) return check(cudaMemset(y.data, 0xff, outputs * 4), "poison");
    fill(y.data, outputs, c.y_type == Scalar::kF32 ? Fill::kF32 : Fill::kBf16, seed + 5);
  };
  fill_y();
  const std::vector<float> before = to_host(y.data, c.y_type, outputs);
  to_f32<<<static_cast<unsigned>((inputs + 255) / 256), 256>>>(x.as<__nv_bfloat16>(), x32.as<float>(), inputs);
  const auto expected = expected_outputs(c, reference(x32.as<float>(), w.weight, c.m), {},
                                         to_host(bias.data, Scalar::kF32, c.n), before, 0);
  Bf16Product p;
  p.m = c.m, p.x = x.data, p.x_stride = c.k, p.weight = w.weight, p.bias = c.bias ? bias.as<float>() : nullptr;
  p.epilogue = c.epilogue, p.y = y.data, p.y_type = c.y_type, p.y_stride = columns;
  const auto compare_with = [&](const char* name, int way, cudaError_t launched) {
    check(launched, name);
    check(cudaDeviceSynchronize(), name);
    char what[128];
    std::snprintf(what, sizeof(what), "bf16 %s m=%d n=%d k=%d y%s%s epilogue %d way %d", name, c.m, c.n, c.k,
                  c.y_type == Scalar::kF32 ? "32" : "16", c.bias ? " bias" : "", static_cast<int>(c.epilogue), way);
    compare(what, to_host(y.data, c.y_type, outputs), expected, c.y_type == Scalar::kF32 ? 2e-4 : 4e-3);
    fill_y();
  };
  for (const int share : {1, 2}) {
    p.share = share;
    compare_with("product", share, launch_bf16_product(p, nullptr));
  }
  if (bf16_wide_takes(p)) compare_with("wide", 0, launch_bf16_wide_product(p, nullptr));
  if (!bf16_split_takes(p)) return;
  for (const int split : {0, 1, 2, 3, 4}) {
    if (split <= c.k / 64) compare_with("split", split, launch_bf16_split_product(p, nullptr, split));
  }
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
      {format, 9, 3584, 18944, kBf16, kBf16, false, false, Epilogue::kAdd},
      {format, 32, 4608, 3584, kBf16, kBf16, false, false, Epilogue::kStore},
      {format, 33, 3584, 3584, kBf16, kBf16, false, false, Epilogue::kAdd},
      {format, 128, 4608, 3584, kBf16, kBf16, false, false, Epilogue::kStore},
      {format, 61, 392, 640, kBf16, kBf16, false, false, Epilogue::kAdd},
      {format, 128, 136, 448, kBf16, kF32, false, false, Epilogue::kAdd},
      {format, 20, 264, 2048, kBf16, kBf16, false, false, Epilogue::kStore},
  };
  uint32_t seed = 5000;
  for (const Case& c : cases)
    if (small_enough(c)) check_bf16_product(c, seed += 10);
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

int run(bool small) {
  std::setvbuf(stdout, nullptr, _IOLBF, 1 << 16);
  if (small) work_max = 20'000'000;
  check_quantized_weight(WeightFormat::kInt8);
  check_quantized_weight(WeightFormat::kInt4);
  check_all_small_batches();
  for (const auto format : {WeightFormat::kBf16, WeightFormat::kF8Block})
    for (const int tokens : {1, 3})
      if (!small || tokens > 1) check_experts(format, tokens, 900 + tokens);
  check_bf16_products();
  std::printf("failures: %d\n", failures);
  return failures == 0 ? 0 : 1;
}

}  // namespace
}  // namespace spillway::kernels::cuda

int main(int argc, char** argv) { return spillway::kernels::cuda::run(argc > 1 && std::strcmp(argv[1], "small") == 0); }
