// Checks attention_decode, attention_prefill and attention_simple against float64 on the CPU, then against each other
// at larger sizes. Standalone: nvcc -std=c++20 -O3 -I src -gencode=arch=compute_90a,code=sm_90a this file and the
// attention_*.cu beside it. Argument "small" runs the sizes meant for compute-sanitizer.
#include <string>

#include "kernels/cuda/attention_paged.h"
#include "kernels/cuda/attention_prefill_wide.h"
#include "kernels/cuda/attention_testing.cuh"

namespace spillway::kernels::cuda::testing {
namespace {

using tensor::DType;

template <typename T>
constexpr DType kTypeOf = std::is_same_v<T, float>    ? DType::kF32
                          : std::is_same_v<T, __half> ? DType::kF16
                                                      : DType::kBF16;
template <typename T>
constexpr double kBoundOf = std::is_same_v<T, float>    ? 1e-5
                            : std::is_same_v<T, __half> ? 6e-4
                                                        : 4e-3;

using Launch = cudaError_t (*)(const PagedAttention&, cudaStream_t);

template <typename T>
struct Problem {
  TestBatch batch;
  int heads, kv_heads, dim, page_tokens;
  int64_t page_stride;
  Buffer pool, queries, out;
  PagedAttention args;

  Problem(const std::vector<int>& rows, const std::vector<int>& contexts, int heads_, int kv_heads_, int dim_,
          int page_tokens_ = 64)
      : batch(rows, contexts, page_tokens_),
        heads(heads_),
        kv_heads(kv_heads_),
        dim(dim_),
        page_tokens(page_tokens_),
        page_stride(int64_t{2} * kv_heads_ * page_tokens_ * dim_ * int64_t{sizeof(T)} + 256),
        pool(size_t(batch.pages) * size_t(page_stride)),
        queries(size_t(batch.view.rows) * size_t(heads_ + 2 * kv_heads_) * size_t(dim_) * sizeof(T)),
        out(size_t(batch.view.rows) * size_t(heads_) * size_t(dim_) * sizeof(T)) {
    fill_random<T>(pool.data, pool.bytes / sizeof(T), 2.0f);
    fill_random<T>(queries.data, queries.bytes / sizeof(T), 2.0f);
    poison_unwritten<T>(pool, batch, page_stride, page_tokens, 2 * kv_heads, dim);
    args.queries = queries.data;
    args.query_stride = int64_t{heads + 2 * kv_heads} * dim;
    args.out = out.data;
    args.out_stride = int64_t{heads} * dim;
    args.heads = heads;
    args.scale = 1.0f / std::sqrt(float(dim));
    args.pages = {pool.data, page_stride, kTypeOf<T>, page_tokens, kv_heads, dim};
    args.batch = batch.view;
  }

  std::vector<T> run(Launch launch, int split = 0) {
    CHECK_CUDA(cudaMemset(out.data, 0xff, out.bytes));
    const size_t bytes = attention_workspace_bytes(heads, kv_heads, dim, batch.view.sequences, batch.view.rows_max,
                                                   batch.view.context_max, split);
    Buffer workspace(bytes);
    CHECK_CUDA(cudaMemset(workspace.data, 0, bytes));
    args.workspace = workspace.data;
    args.split_tokens = split;
    for (int i = 0; i < 2; ++i) CHECK_CUDA(launch(args, nullptr));  // twice: the counters must be back at zero
    return out.template read<T>();
  }

  std::vector<float> reference() {
    const std::vector<float> kv = floats(pool.template read<T>()), q = floats(queries.template read<T>());
    std::vector<float> result(size_t(batch.view.rows) * size_t(heads) * size_t(dim));
    for (int row = 0; row < batch.view.rows; ++row) {
      const int context = batch.positions[size_t(row)] + 1;
      const int32_t* table = batch.page_table.data() + batch.row_sequence[size_t(row)] * batch.view.pages_max;
      for (int h = 0; h < heads; ++h) {
        const auto key = [&](int t) {
          return kv.data() + table[t / page_tokens] * (page_stride / int64_t{sizeof(T)}) +
                 (int64_t{h / (heads / kv_heads)} * page_tokens + t % page_tokens) * dim;
        };
        std::vector<double> p, sum(size_t(dim), 0.0);
        double most = -1e300, total = 0;
        for (int t = 0; t < context; ++t) {
          double s = 0;
          for (int d = 0; d < dim; ++d)
            s += double(q[size_t(row * args.query_stride + h * dim + d)]) * double(key(t)[d]);
          p.push_back(s * double(args.scale));
          most = std::max(most, p.back());
        }
        for (double& x : p) total += x = std::exp(x - most);
        for (int t = 0; t < context; ++t) {
          const float* v = key(t) + int64_t{kv_heads} * page_tokens * dim;
          for (int d = 0; d < dim; ++d) sum[size_t(d)] += p[size_t(t)] / total * double(v[d]);
        }
        for (int d = 0; d < dim; ++d) result[size_t((row * heads + h) * dim + d)] = float(sum[size_t(d)]);
      }
    }
    return result;
  }
};

template <typename T>
void check_small(int heads, int kv_heads, int dim, std::vector<int> rows, std::vector<int> contexts,
                 int page_tokens = 64) {
  Problem<T> problem(rows, contexts, heads, kv_heads, dim, page_tokens);
  const std::vector<float> expected = problem.reference();
  char what[200];
  const auto compare = [&](const char* name, Launch launch, int split) {
    std::snprintf(what, sizeof what, "%s %zu-byte heads %d/%d dim %d rows %d seqs %d page %d split %d", name, sizeof(T),
                  heads, kv_heads, dim, problem.batch.view.rows, problem.batch.view.sequences, page_tokens, split);
    expect_below(what, relative_error(floats(problem.run(launch, split)), expected), kBoundOf<T>);
  };
  compare("simple", attention_simple, 0);
  compare("decode", attention_decode, 0);
  compare("decode", attention_decode, 64);
  compare("decode", attention_decode, 256);
  compare("prefill", attention_prefill, 0);
  compare("prefill portable", attention_prefill_portable, 0);
}

// Rows alone and in a batch have equal bits when split at fixed places.
void check_neighbours() {
  const std::vector<int> contexts = {700, 65, 1, 1300, 256};
  Problem<__nv_bfloat16> all({1, 2, 1, 2, 1}, contexts, 28, 4, 128);
  all.args.batch.rows_max = 2;
  const auto together = all.run(attention_decode, 256);
  std::vector<uint16_t> expected, got;
  const auto bits = [](const __nv_bfloat16* from, size_t n, std::vector<uint16_t>& to) {
    const uint16_t* p = reinterpret_cast<const uint16_t*>(from);
    to.insert(to.end(), p, p + n);
  };
  const Batch whole = all.args.batch;
  const size_t row_size = size_t{28} * 128;
  for (int s = 0; s < whole.sequences; ++s) {
    const std::vector<int32_t> begin = {0, all.batch.row_begin[size_t(s) + 1] - all.batch.row_begin[size_t(s)]};
    Batch& one = all.args.batch = whole;
    one.sequences = 1;
    one.rows = begin[1];
    one.row_begin = all.batch.upload(begin);
    one.contexts += s;
    one.positions += all.batch.row_begin[size_t(s)];
    one.page_table += s * whole.pages_max;
    all.args.queries =
        static_cast<const __nv_bfloat16*>(all.queries.data) + all.batch.row_begin[size_t(s)] * all.args.query_stride;
    const auto alone = all.run(attention_decode, 256);
    bits(alone.data(), size_t(begin[1]) * row_size, got);
    bits(together.data() + size_t(all.batch.row_begin[size_t(s)]) * row_size, size_t(begin[1]) * row_size, expected);
  }
  expect_equal_bits("decode split 256: alone and together", got, expected);
}

template <typename T>
void check_large(const char* name, Launch launch, int heads, int kv_heads, int dim, std::vector<int> rows,
                 std::vector<int> contexts, int split) {
  Problem<T> problem(rows, contexts, heads, kv_heads, dim);
  const std::vector<float> expected = floats(problem.run(attention_simple));
  char what[200];
  std::snprintf(what, sizeof what, "%s large heads %d/%d dim %d rows %d seqs %d context %d split %d", name, heads,
                kv_heads, dim, problem.batch.view.rows, problem.batch.view.sequences, problem.batch.view.context_max,
                split);
  expect_below(what, relative_error(floats(problem.run(launch, split)), expected), 2 * kBoundOf<T>);
}

void all_checks(bool small) {
  check_small<__nv_bfloat16>(28, 4, 128, {1, 1, 1}, {70, 1, 333});
  check_small<__nv_bfloat16>(4, 1, 64, {3, 1, 2}, {130, 17, 64});
  check_small<__nv_bfloat16>(8, 2, 128, {150, 1, 33}, {150, 300, 97});
  if (small) return;
  check_small<__half>(8, 2, 96, {1, 5, 1}, {200, 64, 65});
  check_small<__half>(4, 2, 256, {1, 2, 9}, {200, 64, 129});
  check_small<__nv_bfloat16>(28, 4, 128, {2, 2, 4, 1}, {512, 2, 700, 63});
  check_small<__half>(16, 2, 128, {8, 8, 40}, {90, 8, 515});
  check_small<float>(6, 2, 40, {4, 1, 20}, {64, 129, 33});
  check_small<__nv_bfloat16>(6, 3, 128, {4, 1, 20}, {64, 129, 33}, 32);
  check_small<__half>(6, 6, 64, {4, 1, 70}, {64, 129, 80}, 16);
  check_neighbours();
  std::vector<int> ones(96, 1), contexts;
  for (int i = 0; i < 96; ++i) contexts.push_back(random_int(1, 6000));
  check_large<__nv_bfloat16>("decode", attention_decode, 28, 4, 128, ones, contexts, 0);
  check_large<__nv_bfloat16>("decode", attention_decode, 28, 4, 128, ones, contexts, 512);
  std::vector<int> alike;  // whole units a block
  for (int i = 0; i < 140; ++i) alike.push_back(random_int(900, 1024));
  check_large<__nv_bfloat16>("decode", attention_decode, 28, 4, 128, std::vector<int>(140, 1), alike, 0);
  check_large<__half>("decode", attention_decode, 64, 8, 128, std::vector<int>(3, 4), {9000, 20, 777}, 0);
  check_large<__nv_bfloat16>("prefill", attention_prefill, 28, 4, 128, {1000, 7, 2000, 1}, {1000, 3007, 2600, 500}, 0);
  check_large<__half>("prefill", attention_prefill, 32, 8, 128, {300, 700, 64}, {300, 1700, 64}, 0);
  check_large<__nv_bfloat16>("portable", attention_prefill_portable, 28, 4, 128, {1000, 7}, {1000, 3007}, 0);
  check_large<__half>("prefill", attention_prefill, 32, 8, 64, {300, 700}, {300, 1700}, 0);
}

}  // namespace
}  // namespace spillway::kernels::cuda::testing

int main(int argc, char** argv) {
  spillway::kernels::cuda::testing::all_checks(argc > 1 && std::string(argv[1]) == "small");
  std::printf("%s\n", spillway::kernels::cuda::testing::failures ? "SOME FAILED" : "all passed");
  return spillway::kernels::cuda::testing::failures ? 1 : 0;
}
