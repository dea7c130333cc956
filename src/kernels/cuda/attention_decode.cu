// attention_decode of attention_paged.h: which variant of the kernel.
#include <algorithm>

#include "kernels/cuda/attention_decode_launch.cuh"

namespace spillway::kernels::cuda {
namespace {

using tensor::DType;

template <typename T, int kDim, int kStages>
cudaError_t by_rows(const PagedAttention& args, cudaStream_t stream) {
  const int rows = args.batch.rows_max * (args.heads / args.pages.kv_heads);
  if constexpr (kDim <= 128) {
    if (rows > 16) return launch_decode<T, kDim, 2, 4, kStages>(args, stream);
  }
  return launch_decode<T, kDim, 1, 4, kStages>(args, stream);
}

template <typename T>
cudaError_t by_dim(const PagedAttention& args, cudaStream_t stream) {
  switch (args.pages.dim) {
    case 64:
      return by_rows<T, 64, 6>(args, stream);
    case 96:
      return by_rows<T, 96, 3>(args, stream);
    case 128:
      return by_rows<T, 128, 3>(args, stream);
    case 256:
      return by_rows<T, 256, 3>(args, stream);
    default:
      return attention_simple(args, stream);
  }
}

}  // namespace

size_t attention_workspace_bytes(int heads, int kv_heads, int dim, int sequences, int rows_max, int context_max,
                                 int split_tokens) {
  const int rows = rows_max * (heads / kv_heads);
  size_t most = 0;
  for (const int block : {16, 32}) {
    const int units = kv_heads * ceil_div(rows, block), used = std::min(rows, block);
    const int64_t slots = decode_slots(units, sequences, context_max, split_tokens);
    most = std::max(most, counter_bytes(sequences, units) + round_up_256(size_t(slots) * used * 8) +
                              round_up_256(size_t(slots) * used * dim * 4));
  }
  return most;
}

cudaError_t attention_decode(const PagedAttention& args, cudaStream_t stream) {
  if (args.pages.page_tokens % 16 != 0 || args.split_tokens % kTileTokens != 0) return cudaErrorInvalidValue;
  if (args.batch.sequences == 0) return cudaSuccess;
  if (capability_major() < 8) return attention_simple(args, stream);
  if (args.pages.dtype == DType::kBF16) return by_dim<__nv_bfloat16>(args, stream);
  if (args.pages.dtype == DType::kF16) return by_dim<__half>(args, stream);
  return attention_simple(args, stream);
}

}  // namespace spillway::kernels::cuda
