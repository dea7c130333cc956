// W_UK and rope of few rows in one launch: what latent attention's queries are made of.
//
// Floor: the weight's bytes, 16.8 MB at R1's shape, 4 us. A block takes half the outputs of a head, all of whose
// weights are under way, in registers, before the kernel waits for its inputs.
#include "kernels/cuda/gemv_packed.cuh"
#include "kernels/cuda/layers.h"
#include "kernels/cuda/rows.cuh"

namespace spillway::kernels::cuda {
namespace {

constexpr int kThreads = 256, kNope = 128, kLora = 512, kRowsMax = 4;
constexpr int kWarpOutputs = kLora / 2 / (kThreads / 32);  // two at a time, 16 lanes each
constexpr int kLoads = kWarpOutputs / 2;

using T = __nv_bfloat16;

__global__ void __launch_bounds__(kThreads, 2) queries_kernel(const JoinRope a, const T* key_up) {
  const int head = static_cast<int>(blockIdx.x) / 2, part = static_cast<int>(blockIdx.x) % 2;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int output = part * kLora / 2 + static_cast<int>(threadIdx.x) / 32 * kWarpOutputs + lane / 16;
  uint4 w[kLoads];
#pragma unroll
  for (int i = 0; i < kLoads; ++i) {
    w[i] = __ldg(reinterpret_cast<const uint4*>(key_up + (int64_t{head} * kLora + output + 2 * i) * kNope) + lane % 16);
  }
  // A pair of rope's a thread: its angle does not depend on the kernel in front either.
  const int half = a.rope / 2, token = static_cast<int>(threadIdx.x) / half,
            pair = static_cast<int>(threadIdx.x) % half;
  const bool turns = part == 0 && token < a.rows;
  const float* angles = a.cos_sin + (turns ? int64_t{a.positions[token]} * a.rope : 0);
  const float cos = turns ? angles[pair] : 0, sin = turns ? angles[half + pair] : 0;
  take_turn();
  ptx::launch_dependents();  // attention, whose blocks have a multiprocessor each, plans its work meanwhile
  const T* queries = static_cast<const T*>(a.queries) + head * a.query_dim;
  T* joined = static_cast<T*>(a.joined) + int64_t{head} * (kLora + a.rope);
  const int64_t from_row = a.heads * a.query_dim, to_row = int64_t{a.heads} * (kLora + a.rope);
#pragma unroll 1
  for (int t = 0; t < a.rows; ++t) {
    const uint4 x = *(reinterpret_cast<const uint4*>(queries + t * from_row) + lane % 16);
    keep_packed(w);
    float sums[kLoads];
#pragma unroll
    for (int i = 0; i < kLoads; ++i) sums[i] = dot_8(w[i], x, 0.0f);
    joined[t * to_row + output + lane % 16 * 2] = __float2bfloat16(sum_over_lanes<16>(sums));
  }
  if (turns) {
    rotate_pair(queries + token * from_row + a.nope, joined + token * to_row + kLora, pair, half,
                a.pairs == RopePairs::kHalves, cos, sin);
  }
}

}  // namespace

bool latent_queries(const JoinRope& args, const HeadLinear& key_up, tensor::Stream& stream) {
  static_assert(kLoads == 16);
  const bool takes = args.rows <= kRowsMax && args.dtype == tensor::DType::kBF16 && args.lora == kLora &&
                     args.nope == kNope && args.query_dim % 8 == 0 && args.rows * args.rope <= 2 * kThreads &&
                     args.rope > 1 && !stream.batch_invariant() && Context::of(stream).capability() >= 90;
  if (!takes) return false;
  if (args.rows == 0) return true;
  const auto* weight = reinterpret_cast<const T*>(key_up.weights[0].data.view().data);
  launch_row_kernel("latent_queries", queries_kernel, unsigned(2 * args.heads), kThreads, 0, stream, args, weight);
  return true;
}

}  // namespace spillway::kernels::cuda
