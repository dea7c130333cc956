// Checks launch_token_attention against float64 on the CPU: bias, norm of heads, rope, the written pages, attention.
// Standalone: scripts/gpu_kernels.sh FOLDER attention_token_check[:small]; "small" runs the sizes for
// compute-sanitizer.
#include <string>

#include "kernels/cuda/attention_testing.cuh"
#include "kernels/cuda/attention_token.h"

namespace spillway::kernels::cuda::testing {
namespace {

using tensor::DType;

struct Shape {
  int heads, kv_heads, dim;
  bool bias, norms;
  std::vector<int> contexts;
};

template <typename T>
class Problem {
 public:
  explicit Problem(const Shape& shape)
      : shape_(shape),
        batch_(std::vector<int>(shape.contexts.size(), 1), shape.contexts, kPage),
        page_stride_(int64_t{2} * shape.kv_heads * kPage * shape.dim * 2 + 256),
        pool_(size_t(batch_.pages) * size_t(page_stride_)),
        qkv_(size_t(batch_.view.rows) * size_t(width()) * 2),
        out_(size_t(batch_.view.rows) * size_t(shape.heads * shape.dim) * 2),
        bias_(size_t(width()) * 4),
        norms_(size_t(2 * shape.dim) * 4),
        angles_(size_t(batch_.view.context_max) * size_t(shape.dim) * 4) {
    fill_random<T>(pool_.data, pool_.bytes / 2, 2.0f);
    fill_random<T>(qkv_.data, qkv_.bytes / 2, 2.0f);
    fill_random<float>(bias_.data, bias_.bytes / 4, 1.0f);
    fill_random<float>(norms_.data, norms_.bytes / 4, 2.0f);
    // Earlier tokens only: this step's own row is poisoned as well, the kernel writes it.
    TestBatch earlier = {std::vector<int>(shape.contexts.size(), 1), shape.contexts, kPage};
    earlier.page_table = batch_.page_table, earlier.pages = batch_.pages;
    for (int32_t& context : earlier.contexts) --context;
    poison_unwritten<T>(pool_, earlier, page_stride_, kPage, 2 * shape.kv_heads, shape.dim);
    rope_.resize(angles_.bytes / 4);
    for (int t = 0; t < batch_.view.context_max; ++t) {
      for (int i = 0; i < shape.dim / 2; ++i) {
        const double angle = t * std::pow(1e4, -2.0 * i / shape.dim);
        rope_[size_t(t * shape.dim + i)] = float(std::cos(angle));
        rope_[size_t(t * shape.dim + shape.dim / 2 + i)] = float(std::sin(angle));
      }
    }
    angles_.write(rope_);
  }

  void check() {
    const std::vector<float> before = floats(pool_.template read<T>());
    TokenAttention a;
    a.qkv = qkv_.data, a.qkv_stride = width();
    if (shape_.bias) a.bias = static_cast<const float*>(bias_.data);
    if (shape_.norms) {
      a.query_norm = static_cast<const float*>(norms_.data);
      a.key_norm = a.query_norm + shape_.dim;
    }
    a.norm_eps = 1e-6f;
    a.cos_sin = static_cast<const float*>(angles_.data);
    a.out = out_.data, a.out_stride = int64_t{shape_.heads} * shape_.dim, a.heads = shape_.heads;
    a.scale = 1.0f / std::sqrt(float(shape_.dim));
    a.pages = {pool_.data, page_stride_,    std::is_same_v<T, __half> ? DType::kF16 : DType::kBF16,
               kPage,      shape_.kv_heads, shape_.dim};
    a.batch = batch_.view;
    CHECK_CUDA(cudaMemset(out_.data, 0xff, out_.bytes));
    if (!token_attention_takes(a)) return expect_below("a shape that the kernel must take", 1, 0);
    Buffer workspace(token_attention_workspace_bytes(a), 0);
    a.workspace = workspace.data;
    for (int i = 0; i < 2; ++i) CHECK_CUDA(launch_token_attention(a, nullptr));  // twice: counters are back at zero
    compare(before);
  }

 private:
  static constexpr int kPage = 64;
  static constexpr double kBound = std::is_same_v<T, __half> ? 1e-3 : 6e-3;  // queries and keys are rounded once more

  int width() const { return (shape_.heads + 2 * shape_.kv_heads) * shape_.dim; }
  static float rounded(float v) {
    if constexpr (std::is_same_v<T, __half>) {
      return __half2float(__float2half(v));
    } else {
      return __bfloat162float(__float2bfloat16(v));
    }
  }

  // Head h of a row of the projection as attention sees it: 0 .. heads + 2 kv_heads.
  std::vector<float> head(const std::vector<float>& qkv, int sequence, int h) const {
    const int dim = shape_.dim;
    std::vector<double> v(size_t(dim), 0.0);
    const std::vector<float> bias = bias_.template read<float>(), norms = norms_.template read<float>();
    for (int i = 0; i < dim; ++i) {
      v[size_t(i)] = double(qkv[size_t(sequence * width() + h * dim + i)]) +
                     (shape_.bias ? double(bias[size_t(h * dim + i)]) : 0.0);
    }
    const bool is_value = h >= shape_.heads + shape_.kv_heads;
    if (shape_.norms && !is_value) {
      double sum = 0;
      for (const double x : v) sum += x * x;
      const double factor = 1 / std::sqrt(sum / dim + 1e-6);
      for (int i = 0; i < dim; ++i) v[size_t(i)] *= factor * double(norms[size_t((h >= shape_.heads ? dim : 0) + i)]);
    }
    std::vector<float> result;
    for (int i = 0; i < dim; ++i) {
      const int half = dim / 2, pair = i % half;
      const size_t at = size_t((shape_.contexts[size_t(sequence)] - 1) * dim + pair);
      const double cos = double(rope_[at]), sin = double(rope_[at + size_t(half)]);
      const double x = v[size_t(pair)], y = v[size_t(pair + half)];
      result.push_back(rounded(float(is_value ? v[size_t(i)] : i < half ? x * cos - y * sin : y * cos + x * sin)));
    }
    return result;
  }

  void compare(std::vector<float> pages) {
    const std::vector<float> after = floats(pool_.template read<T>()), qkv = floats(qkv_.template read<T>());
    const int dim = shape_.dim, group = shape_.heads / shape_.kv_heads;
    std::vector<float> expected, wrote, written;
    for (int s = 0; s < batch_.view.sequences; ++s) {
      const int context = shape_.contexts[size_t(s)];
      const auto place = [&](int t, int vector) {
        const int page = batch_.page_table[size_t(s * batch_.view.pages_max + t / kPage)];
        return size_t(page * (page_stride_ / 2) + (int64_t{vector} * kPage + t % kPage) * dim);
      };
      for (int vector = 0; vector < 2 * shape_.kv_heads; ++vector) {
        const std::vector<float> fresh = head(qkv, s, shape_.heads + vector);
        const size_t at = place(context - 1, vector);
        std::copy(fresh.begin(), fresh.end(), pages.begin() + ptrdiff_t(at));
        written.insert(written.end(), fresh.begin(), fresh.end());
        wrote.insert(wrote.end(), after.begin() + ptrdiff_t(at), after.begin() + ptrdiff_t(at) + dim);
      }
      for (int h = 0; h < shape_.heads; ++h) {
        const std::vector<float> query = head(qkv, s, h);
        std::vector<double> p, sum(size_t(dim), 0.0);
        double most = -1e300, total = 0;
        for (int t = 0; t < context; ++t) {
          const float* key = pages.data() + place(t, h / group);
          double score = 0;
          for (int d = 0; d < dim; ++d) score += double(query[size_t(d)]) * double(key[d]);
          p.push_back(score / std::sqrt(double(dim)));
          most = std::max(most, p.back());
        }
        for (double& x : p) total += x = std::exp(x - most);
        for (int t = 0; t < context; ++t) {
          const float* value = pages.data() + place(t, shape_.kv_heads + h / group);
          for (int d = 0; d < dim; ++d) sum[size_t(d)] += p[size_t(t)] / total * double(value[d]);
        }
        for (const double x : sum) expected.push_back(float(x));
      }
    }
    char what[160];
    std::snprintf(what, sizeof what, "heads %d/%d dim %d seqs %d context %d%s%s%s", shape_.heads, shape_.kv_heads, dim,
                  batch_.view.sequences, batch_.view.context_max, shape_.bias ? " bias" : "",
                  shape_.norms ? " norms" : "", std::is_same_v<T, __half> ? " f16" : " bf16");
    expect_below(what, relative_error(floats(out_.template read<T>()), expected), kBound);
    expect_below("  written keys and values", relative_error(wrote, written), kBound / 2);
    // Everything else in the pages is as it was.
    size_t changed = 0;
    for (size_t i = 0; i < pages.size(); ++i) {
      const bool both_nan = pages[i] != pages[i] && after[i] != after[i];
      changed += !both_nan && std::fabs(double(pages[i]) - double(after[i])) > 0.05 * (1 + std::fabs(double(pages[i])));
    }
    expect_below("  elements of pages changed otherwise", double(changed), 0.5);
  }

  Shape shape_;
  TestBatch batch_;
  int64_t page_stride_;
  Buffer pool_, qkv_, out_, bias_, norms_, angles_;
  std::vector<float> rope_;
};

int all_checks(bool small) {
  Problem<__nv_bfloat16>({28, 4, 128, true, false, {70, 1, 333}}).check();
  Problem<__half>({8, 2, 64, false, true, {16, 17}}).check();
  Problem<__nv_bfloat16>({28, 4, 128, true, true, {70, 1, 333, 16, 17, 48, 260}}).check();  // more than clusters
  Problem<__half>({40, 2, 64, true, false, {16, 17, 129, 64, 80, 1, 3, 200, 33}}).check();
  if (small) return failures;
  Problem<__nv_bfloat16>({28, 4, 128, true, false, {512}}).check();
  Problem<__nv_bfloat16>({32, 8, 128, false, false, {4097, 64}}).check();
  Problem<__nv_bfloat16>({16, 8, 128, false, true, {1000}}).check();
  Problem<__half>({32, 2, 128, true, true, {random_int(1, 3000), random_int(1, 300), random_int(4000, 9000)}}).check();
  Problem<__nv_bfloat16>({14, 2, 64, true, false, {random_int(1, 64), 15, random_int(900, 2000), 48}}).check();
  Problem<__nv_bfloat16>({8, 1, 128, false, false, {20000}}).check();  // several clusters a unit
  Problem<__nv_bfloat16>({28, 4, 128, true, false, {random_int(9000, 17000)}}).check();
  std::vector<int> many;
  for (int i = 0; i < 40; ++i) many.push_back(random_int(1, 2000));
  Problem<__nv_bfloat16>({28, 4, 128, true, false, many}).check();
  Problem<__half>({32, 8, 128, false, true, {random_int(1, 300), 16000, 1, 5000, random_int(1, 3000)}}).check();
  Problem<__nv_bfloat16>({24, 1, 128, true, true, std::vector<int>(150, random_int(1, 400))}).check();
  return failures;
}

}  // namespace
}  // namespace spillway::kernels::cuda::testing

int main(int argc, char** argv) {
  const bool small = argc > 1 && std::string(argv[1]) == "small";
  const int failures = spillway::kernels::cuda::testing::all_checks(small);
  std::printf("%s\n", failures ? "SOME FAILED" : "all passed");
  return failures ? 1 : 0;
}
