// Checks mla_prefill, mla_write, mla_rope and mla_read against float64 on the CPU, and times mla_prefill at R1's shape.
// Standalone: nvcc -std=c++20 -O3 -I src -gencode=arch=compute_90a,code=sm_90a this file, attention_prefill_wide.cu,
// attention_maps.cu, mla_cache.cu, mla_simple.cu. Arguments: "small" (for compute-sanitizer), "bench".
#include <string>

#include "kernels/cuda/attention_testing.cuh"
#include "kernels/cuda/mla_prefill.h"

namespace spillway::kernels::cuda::testing {
namespace {

using T = __nv_bfloat16;
constexpr int kKeyDim = 192, kValueDim = 128, kWidth = 576, kLora = 512, kRope = 64;

// Keys and values side by side, as the product with W_UKV leaves them, with poison past the last context.
struct Problem {
  TestBatch batch;
  int heads, total;
  std::vector<int32_t> begin{0};
  Buffer keys, values, queries, out;
  RaggedAttention args;

  Problem(const std::vector<int>& rows, const std::vector<int>& contexts, int heads_)
      : batch(rows, contexts, 64),
        heads(heads_),
        total(std::accumulate(contexts.begin(), contexts.end(), 0)),
        keys(size_t(total + 70) * size_t(heads_) * kKeyDim * 2),
        values(size_t(total + 70) * size_t(heads_) * kValueDim * 2),
        queries(size_t(batch.view.rows) * size_t(heads_) * kKeyDim * 2),
        out(size_t(batch.view.rows) * size_t(heads_) * kValueDim * 2) {
    for (const int c : contexts) begin.push_back(begin.back() + c);
    fill_random<T>(keys.data, size_t(total) * size_t(heads) * kKeyDim, 2.0f);
    fill_random<T>(values.data, size_t(total) * size_t(heads) * kValueDim, 2.0f);
    fill_random<T>(queries.data, queries.bytes / 2, 2.0f);
    args.queries = queries.data;
    args.query_stride = heads * kKeyDim;
    args.keys = keys.data;
    args.key_stride = heads * kKeyDim;
    args.key_head_stride = kKeyDim;
    args.values = values.data;
    args.value_stride = heads * kValueDim;
    args.value_head_stride = kValueDim;
    args.out = out.data;
    args.out_stride = heads * kValueDim;
    args.heads = heads;
    args.scale = 1.0f / std::sqrt(192.0f);
    args.context_rows = total + 70;
    args.context_begin = batch.upload(begin);
    args.batch = batch.view;
  }
  // Some rows and heads in float64.
  double error(int samples, cudaError_t (*launch)(const RaggedAttention&, cudaStream_t)) {
    CHECK_CUDA(cudaMemset(out.data, 0xff, out.bytes));
    for (int i = 0; i < 2; ++i) CHECK_CUDA(launch(args, nullptr));
    const auto got = floats(out.read<T>()), k = floats(keys.read<T>()), v = floats(values.read<T>()),
               q = floats(queries.read<T>());
    size_t unwritten = 0;
    for (const float x : got) unwritten += std::isnan(x);
    if (unwritten) std::printf("       %zu of %zu outputs are NaN\n", unwritten, got.size());
    double wrong = unwritten ? NAN : 0, norm = 0;
    for (int i = 0; i < samples; ++i) {
      const int row =
          i < batch.view.rows ? i * std::max(1, batch.view.rows / samples) : random_int(0, batch.view.rows - 1);
      const int h = random_int(0, heads - 1), s = batch.row_sequence[size_t(row)],
                context = batch.positions[size_t(row)] + 1;
      std::vector<double> p, sum(kValueDim, 0.0);
      double most = -1e300, all = 0;
      for (int t = 0; t < context; ++t) {
        double x = 0;
        for (int d = 0; d < kKeyDim; ++d) {
          x += double(q[size_t((row * heads + h) * kKeyDim + d)]) *
               double(k[(size_t(begin[size_t(s)] + t) * heads + h) * kKeyDim + d]);
        }
        p.push_back(x * double(args.scale));
        most = std::max(most, p.back());
      }
      for (double& x : p) all += x = std::exp(x - most);
      for (int d = 0; d < kValueDim; ++d) {
        double x = 0;
        for (int t = 0; t < context; ++t)
          x += p[size_t(t)] / all * double(v[(size_t(begin[size_t(s)] + t) * heads + h) * kValueDim + d]);
        const double e = x - double(got[size_t((row * heads + h) * kValueDim + d)]);
        wrong += e * e;
        norm += x * x;
      }
    }
    return std::sqrt(wrong / norm);
  }
};

void check(int heads, const std::vector<int>& rows, const std::vector<int>& contexts, int samples) {
  Problem problem(rows, contexts, heads);
  char what[120];
  const std::pair<const char*, decltype(&mla_prefill)> paths[] = {{"", mla_prefill}, {" simple", mla_prefill_simple}};
  for (const auto& [name, launch] : paths) {
    std::snprintf(what, sizeof what, "mla_prefill%s heads %d rows %d seqs %zu context %d", name, heads,
                  problem.batch.view.rows, rows.size(), problem.batch.view.context_max);
    expect_below(what, problem.error(samples, launch), 4e-3);
  }
}

// Rows written to pages, read back, compared with a rotation in float64; nothing else in the pages may change.
void check_cache() {
  TestBatch batch({3, 130, 1}, {3, 200, 65}, 64);
  const int rows = batch.view.rows;
  const int64_t stride = 64 * kWidth * 2 + 64;
  Buffer pool(size_t(batch.pages) * size_t(stride)), latents(size_t(rows) * kLora * 2), ropes(size_t(rows) * 80 * 2);
  Buffer table(256 * kRope * 4), read_latents(268 * kLora * 2), read_ropes(268 * kRope * 2);
  fill_random<T>(pool.data, pool.bytes / 2);
  fill_random<T>(latents.data, latents.bytes / 2);
  fill_random<T>(ropes.data, ropes.bytes / 2);
  fill_random<float>(table.data, table.bytes / 4);
  LatentPages pages{pool.data, stride, tensor::DType::kBF16, 64, kLora, kRope};
  std::vector<float> expected = floats(pool.read<T>());
  const auto lat = floats(latents.read<T>()), rope = floats(ropes.read<T>()), angle = table.read<float>();
  for (int t = 0; t < rows; ++t) {
    const int position = batch.positions[size_t(t)];
    const int page = batch.page_table[size_t(batch.row_sequence[size_t(t)] * batch.view.pages_max + position / 64)];
    float* at = expected.data() + page * (stride / 2) + position % 64 * kWidth;
    for (int d = 0; d < kLora; ++d) at[d] = lat[size_t(t * kLora + d)];
    for (int i = 0; i < kRope / 2; ++i) {
      const double x = double(rope[size_t(t * 80 + 2 * i)]), y = double(rope[size_t(t * 80 + 2 * i + 1)]);
      const double c = double(angle[size_t(position * kRope + i)]),
                   s = double(angle[size_t(position * kRope + kRope / 2 + i)]);
      at[kLora + 2 * i] = float(x * c - y * s);
      at[kLora + 2 * i + 1] = float(x * s + y * c);
    }
  }
  CHECK_CUDA(
      mla_write({latents.data, kLora, ropes.data, 80, static_cast<float*>(table.data), pages, batch.view}, nullptr));
  const auto written = floats(pool.read<T>());
  expect_below("mla_write", relative_error(written, expected), 3e-3);
  const std::vector<int32_t> begin = {0, 3, 203, 268};
  LatentRead read{pages, read_latents.data, kLora, read_ropes.data, kRope, 268, batch.upload(begin), batch.view};
  CHECK_CUDA(mla_read(read, nullptr));
  const auto got = floats(read_latents.read<T>()), got_rope = floats(read_ropes.read<T>());
  std::vector<float> whole, whole_expected;
  for (int s = 0; s < 3; ++s) {
    for (int i = 0; i < batch.contexts[size_t(s)]; ++i) {
      const int page = batch.page_table[size_t(s * batch.view.pages_max + i / 64)], at = begin[size_t(s)] + i;
      const float* from = written.data() + page * (stride / 2) + i % 64 * kWidth;
      whole_expected.insert(whole_expected.end(), from, from + kWidth);
      whole.insert(whole.end(), got.begin() + at * kLora, got.begin() + (at + 1) * kLora);
      whole.insert(whole.end(), got_rope.begin() + at * kRope, got_rope.begin() + (at + 1) * kRope);
    }
  }
  expect_below("mla_read", relative_error(whole, whole_expected), 1e-9);
  const auto before = floats(ropes.read<T>());
  RopeQueries rotate{ropes.data, 80, 16, 4, 16, tensor::DType::kBF16, static_cast<float*>(table.data), batch.view};
  CHECK_CUDA(mla_rope(rotate, nullptr));
  std::vector<float> rotated = before;
  for (int t = 0; t < rows; ++t) {
    for (int i = 0; i < 32; ++i) {
      const size_t at = size_t(t * 80 + i / 8 * 16 + i % 8 * 2), a = size_t(batch.positions[size_t(t)] * 16 + i % 8);
      rotated[at] = before[at] * angle[a] - before[at + 1] * angle[a + 8];
      rotated[at + 1] = before[at] * angle[a + 8] + before[at + 1] * angle[a];
    }
  }
  expect_below("mla_rope", relative_error(floats(ropes.read<T>()), rotated), 4e-3);
}

void bench(int sequences, int rows, int context) {
  Problem problem(std::vector<int>(size_t(sequences), rows), std::vector<int>(size_t(sequences), context), 128);
  const double us = time_us([&](int, cudaStream_t stream) { CHECK_CUDA(mla_prefill(problem.args, stream)); }, 3);
  double flops = 0;
  for (int r = 0; r < rows; ++r) flops += 2.0 * (kKeyDim + kValueDim) * 128 * (context - rows + r + 1) * sequences;
  std::printf(
      "mla_prefill heads 128 sequences %d rows %5d context %5d: %9.1f us  floor %8.1f us  %6.1f TFLOP/s  %5.1f%%\n",
      sequences, rows, context, us, flops / 790e12 * 1e6, flops / us * 1e-6, 100 * flops / 790e12 * 1e6 / us);
  std::fflush(stdout);
}

}  // namespace

void run(const std::string& what) {
  if (what == "bench") {
    bench(1, 1024, 1024);
    bench(1, 4096, 4096);
    bench(4, 2048, 2048);
    bench(1, 1024, 8192);
    return;
  }
  check(4, {130, 1, 64}, {130, 70, 300}, 100);
  check_cache();
  if (what == "small") return;
  check(16, {128, 257}, {128, 257}, 200);
  check(3, {1000, 5, 77}, {1000, 900, 2077}, 200);
}

}  // namespace spillway::kernels::cuda::testing

int main(int argc, char** argv) {
  spillway::kernels::cuda::testing::run(argc > 1 ? argv[1] : "");
  std::printf("%s\n", spillway::kernels::cuda::testing::failures ? "SOME FAILED" : "all passed");
  return spillway::kernels::cuda::testing::failures ? 1 : 0;
}
