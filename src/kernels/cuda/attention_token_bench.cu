// Times a decode step's attention (attention_token.h) at the shape of Qwen2.5-7B beside its floor: pages of 16 tokens
// as the engine's, bias, rope and the new token's page inside. Arguments: sequences and context of one case, for a
// profiler. Standalone, as attention_token_check.cu.
#include "kernels/cuda/attention_testing.cuh"
#include "kernels/cuda/attention_token.h"

namespace spillway::kernels::cuda::testing {
namespace {

constexpr double kBandwidth = 4.3e12;  // bytes a second, measured copies
constexpr int kHeads = 28, kKvHeads = 4, kDim = 128, kPageTokens = 16;

void time_case(int sequences, int context, bool ragged, int launches) {
  std::vector<int> contexts(size_t(sequences), context);
  if (ragged) {
    for (int& c : contexts) c = random_int(1, 2 * context);
  }
  const TestBatch batch(std::vector<int>(size_t(sequences), 1), contexts, kPageTokens);
  const int64_t page_stride = int64_t{2} * kKvHeads * kPageTokens * kDim * 2, pool_bytes = batch.pages * page_stride;
  // Over several pools, so that no launch finds its pages in the cache.
  const int sets = int(std::clamp<int64_t>((int64_t{400} << 20) / pool_bytes, 2, 64));
  const int64_t stride = (kHeads + 2 * kKvHeads) * kDim, longest = batch.view.context_max;
  Buffer pools(size_t(sets) * size_t(pool_bytes)), qkv(size_t(sequences * stride) * 2),
      out(size_t(sequences) * kHeads * kDim * 2), bias(size_t(stride) * 4), angles(size_t(longest) * kDim * 4);
  fill_random<__nv_bfloat16>(pools.data, pools.bytes / 2);
  fill_random<__nv_bfloat16>(qkv.data, qkv.bytes / 2);
  fill_random<float>(bias.data, bias.bytes / 4);
  fill_random<float>(angles.data, angles.bytes / 4);
  TokenAttention args;
  args.qkv = qkv.data, args.qkv_stride = stride;
  args.bias = static_cast<const float*>(bias.data), args.cos_sin = static_cast<const float*>(angles.data);
  args.out = out.data, args.out_stride = kHeads * kDim, args.heads = kHeads, args.scale = 0.0884f;
  args.pages = {nullptr, page_stride, tensor::DType::kBF16, kPageTokens, kKvHeads, kDim};
  args.batch = batch.view;
  Buffer workspace(token_attention_workspace_bytes(args), 0);
  args.workspace = workspace.data;
  const double us = time_us(
      [&](int i, cudaStream_t stream) {
        args.pages.base = static_cast<char*>(pools.data) + (i % sets) * pool_bytes;
        CHECK_CUDA(launch_token_attention(args, stream));
      },
      launches);
  const double bytes = std::accumulate(contexts.begin(), contexts.end(), 0.0) * 2 * kKvHeads * kDim * 2;
  std::printf("token attention batch %4d context %5d%s: %8.2f us  floor %7.2f us  %5.2f TB/s\n", sequences, context,
              ragged ? " ragged" : "", us, bytes / kBandwidth * 1e6, bytes / us * 1e-6);
  std::fflush(stdout);
}

void all() {
  for (const int context : {1024, 1025, 1100}) {
    for (const int sequences : {1, 8, 16, 32, 64, 128, 256}) time_case(sequences, context, false, 20);
  }
  for (const int sequences : {32, 128}) time_case(sequences, 1024, true, 20);
  time_case(16, 4096, false, 20);
  time_case(128, 4096, false, 10);
}

}  // namespace
}  // namespace spillway::kernels::cuda::testing

int main(int argc, char** argv) {
  using namespace spillway::kernels::cuda::testing;  // NOLINT
  if (argc > 2) {
    time_case(std::atoi(argv[1]), std::atoi(argv[2]), false, 4);
  } else {
    all();
  }
  return 0;
}
