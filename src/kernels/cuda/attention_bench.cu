// Times attention_decode and attention_prefill at the shapes of Qwen2.5-7B beside their floors. Standalone, as
// attention_decode_check.cu.
#include "kernels/cuda/attention_decode_launch.cuh"
#include "kernels/cuda/attention_prefill_wide.h"
#include "kernels/cuda/attention_testing.cuh"

namespace spillway::kernels::cuda::testing {
namespace {

constexpr double kBandwidth = 4.3e12;  // bytes a second, measured copies
constexpr double kRate = 790e12;       // bf16 FLOP/s, measured products
constexpr int kHeads = 28, kKvHeads = 4, kDim = 128;

using Bf16 = __nv_bfloat16;
using Launch = cudaError_t (*)(const PagedAttention&, cudaStream_t);

// One batch over `sets` pools, so that no launch finds its pages in the cache.
struct Setup {
  TestBatch batch;
  int64_t page_stride = int64_t{2} * kKvHeads * 64 * kDim * 2, pool_bytes;
  int sets;
  Buffer pools, queries, out, workspace;
  PagedAttention args;

  Setup(const std::vector<int>& rows, const std::vector<int>& contexts, int split)
      : batch(rows, contexts, 64),
        pool_bytes(batch.pages * page_stride),
        sets(int(std::clamp<int64_t>((int64_t{400} << 20) / pool_bytes, 2, 64))),
        pools(size_t(sets) * size_t(pool_bytes)),
        queries(size_t(batch.view.rows) * (kHeads + 2 * kKvHeads) * kDim * 2),
        out(size_t(batch.view.rows) * kHeads * kDim * 2),
        workspace(attention_workspace_bytes(kHeads, kKvHeads, kDim, batch.view.sequences, batch.view.rows_max,
                                            batch.view.context_max, split),
                  0) {
    fill_random<Bf16>(pools.data, pools.bytes / 2);
    fill_random<Bf16>(queries.data, queries.bytes / 2);
    args.queries = queries.data;
    args.query_stride = (kHeads + 2 * kKvHeads) * kDim;
    args.out = out.data;
    args.out_stride = kHeads * kDim;
    args.heads = kHeads;
    args.scale = 0.0884f;
    args.pages = {nullptr, page_stride, tensor::DType::kBF16, 64, kKvHeads, kDim};
    args.batch = batch.view;
    args.split_tokens = split;
    args.workspace = workspace.data;
  }
  double time(Launch launch, int launches) {
    return time_us(
        [&](int i, cudaStream_t stream) {
          args.pages.base = static_cast<char*>(pools.data) + (i % sets) * pool_bytes;
          CHECK_CUDA(launch(args, stream));
        },
        launches);
  }
};

void decode(const char* name, Launch launch, int sequences, int context, int rows, int split, bool ragged = false) {
  std::vector<int> contexts(size_t(sequences), context);
  if (ragged) {
    for (int& c : contexts) c = random_int(rows, 2 * context);
  }
  Setup setup(std::vector<int>(size_t(sequences), rows), contexts, split);
  const double us = setup.time(launch, std::max(setup.sets, 20));
  const double bytes = std::accumulate(contexts.begin(), contexts.end(), 0.0) * 2 * kKvHeads * kDim * 2;
  const double floor_us = bytes / kBandwidth * 1e6;
  std::printf("decode %-10s batch %4d context %5d%s rows %d split %4d: %8.2f us  floor %7.2f us  %5.2f TB/s  %5.1f%%\n",
              name, sequences, context, ragged ? "r" : " ", rows, split, us, floor_us, bytes / us * 1e-6,
              100 * floor_us / us);
  std::fflush(stdout);
}

void prefill(const char* name, Launch launch, int sequences, int rows, int context) {
  Setup setup(std::vector<int>(size_t(sequences), rows), std::vector<int>(size_t(sequences), context), 0);
  const double us = setup.time(launch, 4);
  double flops = 0;
  for (int r = 0; r < rows; ++r) flops += 4.0 * kDim * kHeads * (context - rows + r + 1) * sequences;
  std::printf("prefill %-8s sequences %d rows %5d context %5d: %9.1f us  floor %8.1f us  %6.1f TFLOP/s  %5.1f%%\n",
              name, sequences, rows, context, us, flops / kRate * 1e6, flops / us * 1e-6,
              100 * flops / kRate * 1e6 / us);
  std::fflush(stdout);
}

cudaError_t overlapping(const PagedAttention& args, cudaStream_t stream) {
  PagedAttention early = args;
  early.overlap = true;
  return attention_decode(early, stream);
}

}  // namespace

void all() {
  struct Variant {
    const char* name;
    Launch launch;
  };
  const Variant variants[] = {{"default", attention_decode},
                              {"4w3s", launch_decode<Bf16, 128, 1, 4, 3>},
                              {"4w6s", launch_decode<Bf16, 128, 1, 4, 6>},
                              {"8w3s", launch_decode<Bf16, 128, 1, 8, 3>},
                              {"2w4s", launch_decode<Bf16, 128, 1, 2, 4>}};
  for (const auto& [name, launch] : variants) {
    decode(name, launch, 1, 512, 1, 0);
    decode(name, launch, 32, 1024, 1, 0);
    decode(name, launch, 128, 1024, 1, 0);
    decode(name, launch, 128, 4096, 1, 0);
  }
  for (const int split : {0, 64, 256, 512}) {
    decode("default", attention_decode, 1, 512, 1, split);
    decode("default", attention_decode, 1, 8192, 1, split);
    decode("default", attention_decode, 8, 1024, 1, split);
    decode("default", attention_decode, 32, 1024, 1, split);
    decode("default", attention_decode, 128, 1024, 1, split);
    decode("default", attention_decode, 64, 2048, 1, split, true);
  }
  decode("overlap", overlapping, 1, 512, 1, 0);
  decode("overlap", overlapping, 32, 1024, 1, 0);
  decode("overlap", overlapping, 128, 1024, 1, 0);
  decode("default", attention_decode, 32, 1024, 2, 0);
  decode("default", attention_decode, 128, 1024, 2, 0);
  decode("default", attention_decode, 32, 1024, 4, 0);
  decode("default", attention_decode, 32, 1024, 8, 0);
  const Variant prefills[] = {{"portable", attention_prefill_portable}, {"default", attention_prefill}};
  for (const auto& [name, launch] : prefills) {
    prefill(name, launch, 1, 1024, 1024);
    prefill(name, launch, 1, 4096, 4096);
    prefill(name, launch, 4, 4096, 4096);
    prefill(name, launch, 1, 16384, 16384);
    prefill(name, launch, 1, 512, 16384);
    prefill(name, launch, 16, 64, 4096);
  }
}

}  // namespace spillway::kernels::cuda::testing

int main() {
  spillway::kernels::cuda::testing::all();
  return 0;
}
