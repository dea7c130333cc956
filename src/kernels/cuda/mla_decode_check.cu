// Checks mla_decode and mla_simple against float64 on the CPU, then against each other at larger sizes, and times
// mla_decode at R1's shapes. Standalone: nvcc -std=c++20 -O3 -I src -gencode=arch=compute_90a,code=sm_90a this file,
// mla_decode.cu, mla_simple.cu, attention_maps.cu. Arguments: "small" (for compute-sanitizer), "bench".
#include <string>

#include "kernels/cuda/attention_testing.cuh"
#include "kernels/cuda/mla_decode.h"

namespace spillway::kernels::cuda::testing {
namespace {

constexpr int kWidth = 576, kLora = 512;
using tensor::DType;
using Launch = cudaError_t (*)(const LatentAttention&, cudaStream_t);

template <typename T>
constexpr DType kTypeOf = std::is_same_v<T, float>    ? DType::kF32
                          : std::is_same_v<T, __half> ? DType::kF16
                                                      : DType::kBF16;
template <typename T>
constexpr double kBoundOf = std::is_same_v<T, float>    ? 1e-5
                            : std::is_same_v<T, __half> ? 6e-4
                                                        : 4e-3;

template <typename T>
struct Problem {
  TestBatch batch;
  int64_t page_stride = int64_t{64} * kWidth * sizeof(T);  // before what is computed from it
  int heads, sets;
  int64_t pool_bytes;
  Buffer pool, queries, out;
  LatentAttention args;

  Problem(const std::vector<int>& rows, const std::vector<int>& contexts, int heads_, bool rotate = false,
          bool poison = true)
      : batch(rows, contexts, 64),
        heads(heads_),
        sets(rotate ? int(std::clamp<int64_t>((int64_t{300} << 20) / (batch.pages * page_stride), 2, 32)) : 1),
        pool_bytes(batch.pages * page_stride),
        pool(size_t(sets) * size_t(pool_bytes)),
        queries(size_t(batch.view.rows) * size_t(heads_) * kWidth * sizeof(T)),
        out(size_t(batch.view.rows) * size_t(heads_) * kLora * sizeof(T)) {
    fill_random<T>(pool.data, pool.bytes / sizeof(T), 1.0f);
    fill_random<T>(queries.data, queries.bytes / sizeof(T), 2.0f);
    if (poison) poison_unwritten<T>(pool, batch, page_stride, 64, 1, kWidth);
    args.queries = queries.data;
    args.query_stride = int64_t{heads} * kWidth;
    args.out = out.data;
    args.out_stride = int64_t{heads} * kLora;
    args.heads = heads;
    args.scale = 1.0f / std::sqrt(192.0f);
    args.pages = {pool.data, page_stride, kTypeOf<T>, 64, kLora, 64};
    args.batch = batch.view;
  }
  std::vector<T> run(Launch launch, int split = 0) {
    CHECK_CUDA(cudaMemset(out.data, 0xff, out.bytes));
    Buffer workspace(
        mla_workspace_bytes(heads, batch.view.sequences, batch.view.rows_max, batch.view.context_max, split));
    args.workspace = workspace.data;
    args.split_tokens = split;
    for (int i = 0; i < 2; ++i) CHECK_CUDA(launch(args, nullptr));
    return out.template read<T>();
  }
  std::vector<float> reference() {
    const std::vector<float> kv = floats(pool.template read<T>()), q = floats(queries.template read<T>());
    std::vector<float> result(size_t(batch.view.rows) * size_t(heads) * kLora);
    for (int row = 0; row < batch.view.rows; ++row) {
      const int context = batch.positions[size_t(row)] + 1;
      const int32_t* table = batch.page_table.data() + batch.row_sequence[size_t(row)] * batch.view.pages_max;
      for (int h = 0; h < heads; ++h) {
        const auto latent = [&](int t) { return kv.data() + (int64_t{table[t / 64]} * 64 + t % 64) * kWidth; };
        std::vector<double> p, sum(kLora, 0.0);
        double most = -1e300, total = 0;
        for (int t = 0; t < context; ++t) {
          double s = 0;
          for (int d = 0; d < kWidth; ++d)
            s += double(q[size_t((row * heads + h) * kWidth + d)]) * double(latent(t)[d]);
          p.push_back(s * double(args.scale));
          most = std::max(most, p.back());
        }
        for (double& x : p) total += x = std::exp(x - most);
        for (int t = 0; t < context; ++t) {
          for (int d = 0; d < kLora; ++d) sum[size_t(d)] += p[size_t(t)] / total * double(latent(t)[d]);
        }
        for (int d = 0; d < kLora; ++d) result[size_t((row * heads + h) * kLora + d)] = float(sum[size_t(d)]);
      }
    }
    return result;
  }
};

template <typename T>
void check(int heads, const std::vector<int>& rows, const std::vector<int>& contexts, bool large = false) {
  Problem<T> problem(rows, contexts, heads);
  const std::vector<float> expected = large ? floats(problem.run(mla_simple)) : problem.reference();
  char what[200];
  const auto compare = [&](const char* name, Launch launch, int split) {
    std::snprintf(what, sizeof what, "%s %zu-byte heads %d rows %d seqs %d context %d split %d", name, sizeof(T), heads,
                  problem.batch.view.rows, problem.batch.view.sequences, problem.batch.view.context_max, split);
    expect_below(what, relative_error(floats(problem.run(launch, split)), expected), (large ? 2 : 1) * kBoundOf<T>);
  };
  if (!large) compare("mla_simple", mla_simple, 0);
  compare("mla_decode", mla_decode, 0);
  compare("mla_decode", mla_decode, 64);
  compare("mla_decode", mla_decode, 256);
}

// Attention with W_UV, of few rows.
void check_values(int heads, const std::vector<int>& rows, const std::vector<int>& contexts) {
  using T = __nv_bfloat16;
  Problem<T> problem(rows, contexts, heads);
  const std::vector<float> sums = problem.reference();
  const size_t outputs = size_t(problem.batch.view.rows) * size_t(heads) * kLatentValueDim;
  Buffer weight(size_t(heads) * kLatentValueDim * kLora * sizeof(T)), values(outputs * sizeof(T));
  fill_random<T>(weight.data, weight.bytes / sizeof(T), 0.05f);
  CHECK_CUDA(cudaMemset(values.data, 0xff, values.bytes));
  const std::vector<float> w = floats(weight.template read<T>());
  std::vector<float> expected(outputs);
  for (size_t i = 0; i < outputs; ++i) {
    const size_t row_head = i / kLatentValueDim, at = row_head % size_t(heads) * kLatentValueDim + i % kLatentValueDim;
    double sum = 0;
    for (int d = 0; d < kLora; ++d)
      sum += double(w[at * kLora + size_t(d)]) * double(sums[row_head * kLora + size_t(d)]);
    expected[i] = float(sum);
  }
  problem.args.value_up = weight.data;
  problem.args.values = values.data;
  problem.args.values_stride = int64_t{heads} * kLatentValueDim;
  if (!mla_takes_values(problem.args, kLatentValueDim)) return;  // another chip
  problem.run(mla_decode);
  char what[200];
  std::snprintf(what, sizeof what, "mla_decode with values, heads %d rows %d seqs %d context %d", heads,
                problem.batch.view.rows, problem.batch.view.sequences, problem.batch.view.context_max);
  expect_below(what, relative_error(floats(values.template read<T>()), expected), 2 * kBoundOf<T>);
}

void bench(int heads, int sequences, int context, int rows, int split = 0) {
  Problem<__nv_bfloat16> problem(std::vector<int>(size_t(sequences), rows),
                                 std::vector<int>(size_t(sequences), context), heads, true, false);
  Buffer workspace(mla_workspace_bytes(heads, sequences, rows, context, split));
  problem.args.workspace = workspace.data;
  problem.args.split_tokens = split;
  const double us = time_us(
      [&](int i, cudaStream_t stream) {
        problem.args.pages.base = static_cast<char*>(problem.pool.data) + (i % problem.sets) * problem.pool_bytes;
        CHECK_CUDA(mla_decode(problem.args, stream));
      },
      std::max(problem.sets, 6));
  const double flops = 2.0 * heads * rows * double(context) * sequences * (kWidth + kLora);
  const double bytes = double(sequences) * context * kWidth * 2;
  const double floor_us = std::max(flops / 790e12, bytes / 4.3e12) * 1e6;
  std::printf(
      "mla_decode heads %3d batch %4d context %5d rows %d split %4d: %8.2f us  floor %8.2f us  %6.1f TFLOP/s  %5.2f "
      "TB/s  %5.1f%%\n",
      heads, sequences, context, rows, split, us, floor_us, flops / us * 1e-6, bytes / us * 1e-6, 100 * floor_us / us);
  std::fflush(stdout);
}

void all_checks(bool small) {
  check<__nv_bfloat16>(128, {1}, {64});
  check<__nv_bfloat16>(16, {1, 2, 1}, {70, 200, 1});
  check_values(16, {1, 2, 1}, {70, 200, 1});
  check_values(128, {2}, {130});
  if (small) return;
  check_values(128, {1}, {64});
  check_values(128, {2}, {2048});
  check_values(128, {2, 1}, {700, 65});
  check_values(64, {4}, {300});
  check<__nv_bfloat16>(128, {1, 1}, {300, 129});
  check<__half>(16, {4, 1, 1}, {70, 200, 1});
  check<float>(4, {2, 1}, {65, 20});
  check<__nv_bfloat16>(64, {1, 3, 2}, {64, 130, 513});
  check<__half>(128, {4, 2, 1}, {300, 129, 65});
  std::vector<int> ones(40, 1), contexts;
  for (int i = 0; i < 40; ++i) contexts.push_back(random_int(1, 3000));
  check<__nv_bfloat16>(128, ones, contexts, true);
  check<__nv_bfloat16>(16, ones, contexts, true);
  contexts.clear();
  for (int i = 0; i < 140; ++i) contexts.push_back(random_int(700, 768));
  check<__nv_bfloat16>(128, std::vector<int>(140, 1), contexts, true);
  check<__nv_bfloat16>(16, std::vector<int>(140, 1), contexts, true);
}

}  // namespace

void run(const std::string& what) {
  if (what != "bench") return all_checks(what == "small");
  for (const int sequences : {1, 8, 32, 128}) {
    for (const int context : {1024, 4096}) {
      bench(128, sequences, context, 1);
      bench(16, sequences, context, 1);
    }
  }
  for (const int context : {64, 512}) {  // what a sequence costs apart from its tokens
    bench(128, 64, context, 1);
    bench(128, 128, context, 1);
    bench(128, 256, context, 1);
  }
  bench(128, 66, 4096, 1);
  bench(128, 128, 4096, 2);
  bench(128, 128, 4096, 4);
  bench(128, 256, 2048, 1);
  bench(128, 256, 2048, 1, 512);
  bench(128, 1, 16384, 1);
  bench(128, 1, 4096, 2);
}

}  // namespace spillway::kernels::cuda::testing

int main(int argc, char** argv) {
  spillway::kernels::cuda::testing::run(argc > 1 ? argv[1] : "");
  std::printf("%s\n", spillway::kernels::cuda::testing::failures ? "SOME FAILED" : "all passed");
  return spillway::kernels::cuda::testing::failures ? 1 : 0;
}
