// mla_decode of mla_decode.h: which kernel, its tensor maps and workspace.
#include "kernels/cuda/mla_decode_launch.cuh"

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

bool mla_takes_values(const LatentAttention& args, int value_dim) {
  return fast_shape(args) && args.pages.dtype == DType::kBF16 && value_dim == kLatentValueDim &&
         args.batch.rows <= kValueRowsMax && args.split_tokens == 0 && processor_count() <= kValuePiecesMax;
}

cudaError_t mla_decode(const LatentAttention& args, cudaStream_t stream) {
  if (args.split_tokens % kTileTokens != 0) return cudaErrorInvalidValue;
  if (args.batch.sequences == 0) return cudaSuccess;
  if (args.value_up != nullptr && !mla_takes_values(args, kLatentValueDim)) return cudaErrorInvalidValue;
  if (!fast_shape(args)) return mla_simple(args, stream);
  const bool pair = row_blocks(args.heads, args.batch.rows_max) > 1;
  if (args.pages.dtype == DType::kBF16) {
    return pair ? launch_mla<__nv_bfloat16, true>(args, stream) : launch_mla<__nv_bfloat16, false>(args, stream);
  }
  return pair ? launch_mla<__half, true>(args, stream) : launch_mla<__half, false>(args, stream);
}

}  // namespace spillway::kernels::cuda
