// mla_decode of mla_decode.h: which kernel, its tensor maps and workspace.
#include "kernels/cuda/mla_decode_launch.cuh"
#include <cstdlib>

namespace spillway::kernels::cuda {
namespace {

using tensor::DType;

int row_blocks(int heads, int rows_max) { return ceil_div(heads * rows_max, 64); }

bool fast_shape(const LatentAttention& a) {
  return capability_major() == 9 && (a.pages.dtype == DType::kBF16 || a.pages.dtype == DType::kF16) &&
         a.pages.lora_dim == kLatent && a.pages.rope_dim == 64 && a.pages.page_tokens % kTileTokens == 0 &&
         a.pages.page_stride_bytes % 16 == 0 && (a.heads % 64 == 0 || 64 % a.heads == 0) && a.query_stride % 8 == 0 &&
         a.batch.sequences <= kMlaSequencesMax;
}

template <typename T>
cudaError_t launch_type(const LatentAttention& args, bool pair, cudaStream_t stream) {
  const char* v = getenv("SW_MLA");
  const int variant = v ? atoi(v) : 0;
  if (variant == 2) return launch_mla<T, false, false>(args, stream);
  if (variant == 3) return launch_mla<T, false, true>(args, stream);
  if (variant == 1) return pair ? launch_mla<T, true, true>(args, stream) : launch_mla<T, false, true>(args, stream);
  return pair ? launch_mla<T, true, false>(args, stream) : launch_mla<T, false, false>(args, stream);
}

}  // namespace

size_t mla_workspace_bytes(int heads, int sequences, int rows_max, int context_max, int split_tokens) {
  const int blocks = row_blocks(heads, rows_max);
  size_t most = 0;
  for (const int ranks : {1, 2}) {
    const int64_t slots = mla_slots(ceil_div(blocks, ranks), sequences, context_max, split_tokens);
    most = std::max(most, size_t(slots) * ranks * 64 * (kLatent * 4 + 8) + 512);
  }
  return most;
}

cudaError_t mla_decode(const LatentAttention& args, cudaStream_t stream) {
  if (args.split_tokens % kTileTokens != 0) return cudaErrorInvalidValue;
  if (args.batch.sequences == 0) return cudaSuccess;
  if (!fast_shape(args)) return mla_simple(args, stream);
  const bool pair = row_blocks(args.heads, args.batch.rows_max) > 1;
  return args.pages.dtype == DType::kBF16 ? launch_type<__nv_bfloat16>(args, pair, stream)
                                           : launch_type<__half>(args, pair, stream);
}

}  // namespace spillway::kernels::cuda
