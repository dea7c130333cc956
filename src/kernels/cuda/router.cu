// The router of few tokens in one launch: logits = x W^T and each token's choice of experts.
//
// Floor: the weight's bytes, 3.7 MB at R1's shape, 0.9 us. A block takes two experts, four warps share K; all of a
// warp's weights are under way before the kernel waits for its inputs. The block that ends last routes, a warp a token.
#include "kernels/cuda/layers.h"
#include "kernels/cuda/routing_warp.cuh"
#include "kernels/cuda/rows.cuh"

namespace spillway::kernels::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kTokensMax = kThreads / 32;
constexpr int kExpertsOfBlock = 2;
constexpr int kSlices = kThreads / 32 / kExpertsOfBlock;  // of K
constexpr int kChunksMax = 8;                             // of 8 values a lane and slice: K up to 8,192

struct Router {
  const __nv_bfloat16* x;  // [tokens, hidden]
  const __nv_bfloat16* w;  // [experts, hidden]
  const float* bias;
  float* logits;  // [tokens, experts]
  int32_t* ids;
  float* weights;
  unsigned* arrived;  // zero before and after
  RoutingOptions options;
  int tokens, experts, hidden;
};

template <int kPer>
__global__ void __launch_bounds__(kThreads) router_kernel(const Router a) {
  __shared__ float parts[kThreads / 32][kTokensMax];
  __shared__ bool last;
  const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
  const int expert = static_cast<int>(blockIdx.x) * kExpertsOfBlock + warp / kSlices;
  const int slice = a.hidden / kSlices, chunks = slice / 256, from = warp % kSlices * slice + lane * 8;
  uint4 w[kChunksMax];
#pragma unroll
  for (int c = 0; c < kChunksMax; ++c) {
    if (c < chunks) {
      w[c] = __ldg(reinterpret_cast<const uint4*>(a.w + int64_t{expert} * a.hidden + from + c * 256));
    }
  }
  take_turn();
  for (int t = 0; t < a.tokens; ++t) {
    float sum = 0;
#pragma unroll
    for (int c = 0; c < kChunksMax; ++c) {
      if (c < chunks) {
        sum = dot_8(w[c], *reinterpret_cast<const uint4*>(a.x + int64_t{t} * a.hidden + from + c * 256), sum);
      }
    }
    for (int step = 16; step > 0; step /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, step);
    if (lane == 0) parts[warp][t] = sum;
  }
  __syncthreads();
  const int t = static_cast<int>(threadIdx.x) / kExpertsOfBlock, e = static_cast<int>(threadIdx.x) % kExpertsOfBlock;
  if (t < a.tokens) {
    float sum = 0;
#pragma unroll
    for (int s = 0; s < kSlices; ++s) sum += parts[e * kSlices + s][t];
    a.logits[t * a.experts + static_cast<int>(blockIdx.x) * kExpertsOfBlock + e] = sum;
    __threadfence();
  }
  __syncthreads();
  if (threadIdx.x == 0) {
    last = atomicAdd(a.arrived, 1) == gridDim.x - 1;
    if (last) *a.arrived = 0;
    __threadfence();
  }
  __syncthreads();
  if (!last || warp >= a.tokens) return;
  const int slots = a.options.experts_per_token;
  route_by_warp<kPer>(a.logits + warp * a.experts, a.bias, a.options, a.experts, a.ids + warp * slots,
                      a.weights + warp * slots);
}

}  // namespace

bool routes_at_once(tensor::TensorView x, const PackedLinear& router, tensor::TensorView logits,
                    tensor::TensorView bias, const RoutingOptions& options, tensor::TensorView ids,
                    tensor::TensorView weights, tensor::Stream& stream) {
  const int tokens = int(x.shape[0]), experts = int(router.n), hidden = int(router.k);
  const bool takes = tokens <= kTokensMax && !stream.batch_invariant() && x.dtype == tensor::DType::kBF16 &&
                     router.format == PackedFormat::kBf16 && hidden % (256 * kSlices) == 0 &&
                     hidden <= 256 * kSlices * kChunksMax && experts > 32 && warp_routes(options, experts);
  if (!takes) return false;
  if (tokens == 0) return true;
  const Router args{reinterpret_cast<const __nv_bfloat16*>(x.data),
                    reinterpret_cast<const __nv_bfloat16*>(router.data.view().data),
                    bias.empty() ? nullptr : bias.as<float>(),
                    logits.as<float>(),
                    ids.as<int32_t>(),
                    weights.as<float>(),
                    Context::of(stream).counter(native(stream)),
                    options,
                    tokens,
                    experts,
                    hidden};
  const auto kernel = experts == 256 ? router_kernel<8> : experts == 128 ? router_kernel<4> : router_kernel<2>;
  launch_row_kernel("router", kernel, unsigned(experts / kExpertsOfBlock), kThreads, 0, stream, args);
  return true;
}

}  // namespace spillway::kernels::cuda
