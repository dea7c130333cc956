// Attention of Qwen2.5-1.5B and DeepSeek shapes: prefill against the peak of float32 multiply-adds that the CPU reaches
// in linear_bench, decode against the bytes of keys and values. Times are CPU time with one thread. Usage:
// attention_bench [threads]
#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <ctime>
#include <numeric>
#include <vector>

#include "kernels/attention.h"
#include "kernels/mla.h"

namespace {

using namespace spillway;  // NOLINT: a program
using kernels::head_rows;
using tensor::DType;
using tensor::Tensor;

template <class Work>
double seconds_of(const tensor::Stream& stream, Work work) {
  const clockid_t clock = stream.threads() == 1 ? CLOCK_THREAD_CPUTIME_ID : CLOCK_MONOTONIC;
  double best = 1e9;
  for (int i = 0; i < 8; ++i) {
    timespec start{}, end{};
    clock_gettime(clock, &start);
    work();
    clock_gettime(clock, &end);
    best = std::min(
        best, static_cast<double>(end.tv_sec - start.tv_sec) + 1e-9 * static_cast<double>(end.tv_nsec - start.tv_nsec));
  }
  return best;
}

Tensor filled(tensor::Shape shape) {
  Tensor t(DType::kF32, shape);
  for (int64_t i = 0; i < shape.elements(); ++i) t.as<float>()[i] = static_cast<float>(i * 7 % 31) * 0.05f - 0.75f;
  return t;
}

void report(const char* name, int rows, int context, double products, double bytes, double time) {
  fmt::print("{:<12} rows {:>4} context {:>5}  {:8.3f} ms  {:7.1f} GFLOP/s  {:6.1f} GB/s\n", name, rows, context,
             time * 1e3, 2 * products / time / 1e9, bytes / time / 1e9);
}

void grouped_query(DType dtype, int rows, int context, tensor::Stream& stream) {
  constexpr int kHeads = 12, kKvHeads = 2, kDim = 128;
  kernels::KvPagesView pages;
  pages.dtype = dtype;
  pages.kv_heads = kKvHeads;
  pages.page_stride_bytes = pages.page_bytes();
  std::vector<int32_t> ids(static_cast<size_t>(context / pages.page_tokens + 1));
  std::iota(ids.begin(), ids.end(), 0);
  const Tensor bytes = Tensor::zeros(DType::kU8, {static_cast<int64_t>(ids.size()) * pages.page_stride_bytes});
  pages.base = bytes.view().data;
  const Tensor q = filled({rows, kHeads, kDim}), kv = filled({rows, kKvHeads, kDim}),
               out = filled({rows, kHeads, kDim});
  const kernels::SequenceRows sequence{0, rows, context - rows, ids};
  kernels::AttentionArgs args;
  args.queries = head_rows(q);
  args.heads = kHeads;
  args.scale = 0.09f;
  args.pages = pages;
  args.out = out;
  const double time = seconds_of(stream, [&] {
    kernels::write_kv(head_rows(kv), head_rows(kv), {&sequence, 1}, pages, stream);
    kernels::paged_attention(args, {&sequence, 1}, stream);
  });
  const double pairs = rows * (context - rows / 2.0);
  report(dtype == DType::kF32 ? "gqa f32" : "gqa bf16", rows, context, pairs * kHeads * kDim * 2,
         static_cast<double>(context) / pages.page_tokens * static_cast<double>(pages.page_bytes()), time);
}

void latent(DType dtype, int heads, int rows, int context, tensor::Stream& stream) {
  kernels::LatentPagesView pages;
  pages.dtype = dtype;
  pages.page_stride_bytes = pages.page_bytes();
  std::vector<int32_t> ids(static_cast<size_t>(context / pages.page_tokens + 1));
  std::iota(ids.begin(), ids.end(), 0);
  const Tensor bytes = Tensor::zeros(DType::kU8, {static_cast<int64_t>(ids.size()) * pages.page_stride_bytes});
  pages.base = bytes.view().data;
  const Tensor q = filled({rows, heads, 512}), qr = filled({rows, heads, 64}), out = filled({rows, heads, 512});
  const kernels::SequenceRows sequence{0, rows, context - rows, ids};
  const double time = seconds_of(stream, [&] {
    kernels::latent_attention({head_rows(q), head_rows(qr), heads, 0.1f, pages, out}, {&sequence, 1}, stream);
  });
  const double pairs = rows * (context - rows / 2.0);
  report(dtype == DType::kF32 ? "mla f32" : "mla bf16", rows, context, pairs * heads * (576 + 512),
         static_cast<double>(context) / pages.page_tokens * static_cast<double>(pages.page_bytes()), time);
}

}  // namespace

int main(int argc, char** argv) {
  tensor::Stream stream(argc > 1 ? std::atoi(argv[1]) : 0);
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    grouped_query(dtype, 512, 512, stream);
    grouped_query(dtype, 1, 512, stream);
    grouped_query(dtype, 1, 8192, stream);
    grouped_query(dtype, 512, 4096, stream);
    latent(dtype, 16, 1, 4096, stream);
    latent(dtype, 128, 1, 4096, stream);
    latent(dtype, 16, 256, 256, stream);
  }
}
