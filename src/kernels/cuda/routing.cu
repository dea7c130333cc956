// Routing of tokens to experts (kernels/moe.h): a warp a token, in registers where the numbers of experts and groups
// allow it, else with the scores in shared memory. Ties take the lower expert.
#include "kernels/cuda/layers.h"
#include "kernels/cuda/routing_warp.cuh"
#include "kernels/cuda/rows.cuh"

namespace spillway::kernels::cuda {
namespace {

struct Best {
  float value;
  int index;
};

__device__ Best warp_best(Best best) {
  for (int offset = 16; offset > 0; offset /= 2) {
    const float value = __shfl_xor_sync(0xffffffffu, best.value, offset);
    const int index = __shfl_xor_sync(0xffffffffu, best.index, offset);
    if (value > best.value || (value == best.value && index < best.index)) best = {value, index};
  }
  return best;
}

__device__ Best best_of(const float* values, int count) {
  Best best{-INFINITY, 0x7fffffff};
  for (int i = threadIdx.x; i < count; i += 32) {
    if (values[i] > best.value || best.index == 0x7fffffff) best = {values[i], i};
  }
  return warp_best(best);
}

__global__ void route(const float* logits, const float* bias, RoutingOptions options, int experts, int32_t* ids,
                      float* weights) {
  take_turn();
  extern __shared__ float shared[];
  float *scores = shared, *choice = shared + experts, *groups = choice + experts;
  const int lane = threadIdx.x, slots = options.experts_per_token, size = experts / options.groups;
  const float* row = logits + int64_t{blockIdx.x} * experts;
  const bool sigmoid = options.score == RoutingOptions::Score::kSigmoid;
  const float largest = sigmoid ? 0 : best_of(row, experts).value;
  float total = 0;
  for (int e = lane; e < experts; e += 32) {
    scores[e] = sigmoid ? 1.0f / (1.0f + expf(-row[e])) : expf(row[e] - largest);
    total += scores[e];
  }
  for (int offset = 16; offset > 0; offset /= 2) total += __shfl_xor_sync(0xffffffffu, total, offset);
  for (int e = lane; e < experts; e += 32) {
    if (!sigmoid) scores[e] /= total;
    choice[e] = scores[e] + (bias != nullptr ? bias[e] : 0.0f);
  }
  __syncwarp();
  if (options.groups_per_token < options.groups) {
    for (int g = lane; g < options.groups; g += 32) {
      float first = -INFINITY, second = -INFINITY;
      for (int e = g * size; e < (g + 1) * size; ++e) {
        if (choice[e] > first) {
          second = first;
          first = choice[e];
        } else if (choice[e] > second) {
          second = choice[e];
        }
      }
      groups[g] = size > 1 ? first + second : first;
    }
    __syncwarp();
    if (lane == 0) {
      for (int i = 0; i < options.groups_per_token; ++i) {
        int best = 0;
        for (int g = 1; g < options.groups; ++g) best = groups[g] > groups[best] ? g : best;
        groups[best] = -INFINITY;  // kept
      }
    }
    __syncwarp();
    for (int e = lane; e < experts; e += 32) {
      if (groups[e / size] != -INFINITY) choice[e] = -INFINITY;
    }
    __syncwarp();
  }
  float sum = 0;
  for (int s = 0; s < slots; ++s) {
    const int best = best_of(choice, experts).index;
    __syncwarp();
    sum += scores[best];
    if (lane == 0) {
      choice[best] = -INFINITY;
      ids[int64_t{blockIdx.x} * slots + s] = best;
      weights[int64_t{blockIdx.x} * slots + s] = scores[best];
    }
    __syncwarp();
  }
  const float factor = options.normalize ? options.scale / (sum + 1e-20f) : options.scale;
  for (int s = lane; s < slots; s += 32) weights[int64_t{blockIdx.x} * slots + s] *= factor;
}

constexpr int kTokensOfBlock = 4;

template <int kPer>
__global__ void __launch_bounds__(32 * kTokensOfBlock)
    route_warps(const float* logits, const float* bias, RoutingOptions options, int experts, int tokens, int32_t* ids,
                float* weights) {
  take_turn();
  const int64_t token = int64_t{blockIdx.x} * kTokensOfBlock + threadIdx.x / 32;
  if (token >= tokens) return;
  const int slots = options.experts_per_token;
  route_by_warp<kPer>(logits + token * experts, bias, options, experts, ids + token * slots, weights + token * slots);
}

// float32 experts, plainly: a warp an output of a (token, slot) pair.
__global__ void expert_up(const float* x, const int32_t* ids, const float* w, float* h, int slots, int hidden,
                          int inter) {
  const int64_t pair = blockIdx.x;
  const int out = blockIdx.y * 4 + threadIdx.x / 32, lane = threadIdx.x % 32;
  if (out >= inter) return;
  const float* row = x + pair / slots * hidden;
  const float* gate = w + (int64_t{ids[pair]} * 2 * inter + out) * hidden;
  const float* up = gate + int64_t{inter} * hidden;
  float g = 0, u = 0;
  for (int i = lane; i < hidden; i += 32) {
    g += row[i] * gate[i];
    u += row[i] * up[i];
  }
  for (int offset = 16; offset > 0; offset /= 2) {
    g += __shfl_xor_sync(0xffffffffu, g, offset);
    u += __shfl_xor_sync(0xffffffffu, u, offset);
  }
  if (lane == 0) h[pair * inter + out] = g / (1.0f + expf(-g)) * u;
}

__global__ void expert_down(const float* h, const int32_t* ids, const float* weights, const float* w, float* y,
                            int slots, int hidden, int inter) {
  const int64_t token = blockIdx.x;
  const int out = blockIdx.y * 4 + threadIdx.x / 32, lane = threadIdx.x % 32;
  if (out >= hidden) return;
  float total = 0;
  for (int s = 0; s < slots; ++s) {
    const int64_t pair = token * slots + s;
    const float* row = w + (int64_t{ids[pair]} * hidden + out) * inter;
    float sum = 0;
    for (int i = lane; i < inter; i += 32) sum += h[pair * inter + i] * row[i];
    for (int offset = 16; offset > 0; offset /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, offset);
    total += weights[pair] * sum;
  }
  if (lane == 0) y[token * hidden + out] += total;
}

template <class T>
__global__ void add_bias_rows(T* y, const float* bias, int64_t n, int64_t count) {
  take_turn();
  const int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (i < count) y[i] = from_float<T>(to_float(y[i]) + bias[i % n]);
}

}  // namespace

void route_tokens(tensor::TensorView logits, tensor::TensorView bias, const RoutingOptions& options,
                  tensor::TensorView ids, tensor::TensorView weights, tensor::Stream& stream) {
  const int experts = int(logits.shape[-1]);
  const int64_t tokens = logits.elements() / experts;
  if (tokens == 0) return;
  if (warp_routes(options, experts)) {
    const auto kernel = experts == 256   ? route_warps<8>
                        : experts == 128 ? route_warps<4>
                        : experts == 64  ? route_warps<2>
                                         : route_warps<1>;
    return launch_row_kernel("route", kernel, unsigned((tokens + kTokensOfBlock - 1) / kTokensOfBlock),
                             32 * kTokensOfBlock, 0, stream, logits.as<float>(),
                             bias.empty() ? nullptr : bias.as<float>(), options, experts, int(tokens),
                             ids.as<int32_t>(), weights.as<float>());
  }
  const size_t shared = size_t(2 * experts + options.groups) * sizeof(float);
  launch_row_kernel("route", route, unsigned(tokens), 32, shared, stream, logits.as<float>(),
                    bias.empty() ? nullptr : bias.as<float>(), options, experts, ids.as<int32_t>(),
                    weights.as<float>());
}

void experts_f32(const ExpertsF32& args, tensor::Stream& stream) {
  const auto blocks = [](int outputs) { return unsigned((outputs + 3) / 4); };
  expert_up<<<dim3(unsigned(args.tokens * args.slots), blocks(args.inter)), 128, 0, native(stream)>>>(
      args.x, args.ids, args.gate_up, args.h, args.slots, args.hidden, args.inter);
  tensor::cuda::check_launch("expert_up");
  expert_down<<<dim3(unsigned(args.tokens), blocks(args.hidden)), 128, 0, native(stream)>>>(
      args.h, args.ids, args.weights, args.down, args.y, args.slots, args.hidden, args.inter);
  tensor::cuda::check_launch("expert_down");
}

void add_bias(tensor::TensorView y, tensor::TensorView bias, tensor::Stream& stream) {
  const int64_t count = y.elements();
  if (count == 0) return;
  by_type(y.dtype, [&](auto type) {
    using T = decltype(type);
    launch_row_kernel("add_bias_rows", add_bias_rows<T>, unsigned((count + 255) / 256), 256, 0, stream, y.raw<T>(),
                      bias.as<float>(), y.shape[-1], count);
  });
}

}  // namespace spillway::kernels::cuda
