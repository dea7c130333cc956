// attention_prefill of attention_paged.h: which kernel.
#include "kernels/cuda/attention_device.h"
#include "kernels/cuda/attention_prefill_mma.cuh"
#include "kernels/cuda/attention_prefill_wide.h"

namespace spillway::kernels::cuda {
namespace {

using tensor::DType;

template <typename T, int kDim, int kMt>
cudaError_t launch(const PagedAttention& a, cudaStream_t stream) {
  using Block = PrefillBlock<T, kDim, kMt>;
  if (Block::kSharedBytes > shared_bytes_max()) return attention_simple(a, stream);
  PrefillParams p;
  p.queries = static_cast<const char*>(a.queries);
  p.out = static_cast<char*>(a.out);
  p.query_stride = a.query_stride;
  p.out_stride = a.out_stride;
  p.group = a.heads / a.pages.kv_heads;
  p.tiles = static_cast<int>(row_tiles_max(a.batch, p.group, Block::kRows));
  p.scale_log2e = a.scale * kLog2e;
  p.pages = a.pages;
  p.values_bytes = a.pages.values_offset() * 2;
  p.batch = a.batch;
  const auto kernel = attention_prefill_mma_kernel<T, kDim, kMt>;
  const cudaError_t error =
      cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, Block::kSharedBytes);
  if (error != cudaSuccess) return error;
  const dim3 grid(static_cast<unsigned>(a.pages.kv_heads), static_cast<unsigned>(p.tiles));
  kernel<<<grid, Block::kThreads, Block::kSharedBytes, stream>>>(p);
  return cudaGetLastError();
}

template <typename T>
cudaError_t by_dim(const PagedAttention& args, cudaStream_t stream) {
  switch (args.pages.dim) {
    case 64:
      return launch<T, 64, 2>(args, stream);
    case 96:
      return launch<T, 96, 2>(args, stream);
    case 128:
      return launch<T, 128, 2>(args, stream);
    case 256:
      return launch<T, 256, 1>(args, stream);
    default:
      return attention_simple(args, stream);
  }
}

}  // namespace

cudaError_t attention_prefill_portable(const PagedAttention& args, cudaStream_t stream) {
  if (args.batch.rows == 0) return cudaSuccess;
  if (capability_major() < 8) return attention_simple(args, stream);
  if (args.pages.dtype == DType::kBF16) return by_dim<__nv_bfloat16>(args, stream);
  if (args.pages.dtype == DType::kF16) return by_dim<__half>(args, stream);
  return attention_simple(args, stream);
}

cudaError_t attention_prefill(const PagedAttention& args, cudaStream_t stream) {
  if (args.batch.rows > 0 && wide_prefill_takes(args)) return wide_prefill(args, stream);
  return attention_prefill_portable(args, stream);
}

}  // namespace spillway::kernels::cuda
