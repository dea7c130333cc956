// A tile is 128 rows of the weight by 32 tokens, one block a multiprocessor. Four warps bring 64 elements of K a stage,
// two warpgroups multiply 64 rows of the weight each. A cluster is the blocks that share a tile's K. At the end every
// block adds up its share of the tokens over the cluster's shared memory.
#include <algorithm>

#include "kernels/cuda/attention_ptx.cuh"
#include "kernels/cuda/gemm_bf16_split.h"
#include "kernels/cuda/gemm_launch.cuh"
#include "kernels/cuda/gemm_maps.h"
#include "kernels/cuda/gemm_stages.cuh"
#include "kernels/cuda/gemm_tile_store.cuh"
#include "kernels/cuda/gemm_wgmma.cuh"

namespace spillway::kernels::cuda {
namespace {

constexpr int kStageK = 64;
constexpr int kOutputs = 128;  // of a tile
constexpr int kWeightBytes = kOutputs * 128;
constexpr int kConsumers = 256;
constexpr int kProducers = 128;
constexpr int kThreads = kConsumers + kProducers;
constexpr int kSharedMax = 226 * 1024;  // alone in its multiprocessor, beside a norm at most

constexpr int kTokens = 32;
constexpr int kXBytes = kTokens * 128;
constexpr int kStageBytes = kWeightBytes + kXBytes;
constexpr int kStages = (kSharedMax - 1024 - 256) / kStageBytes;
constexpr int kSharedBytes = kStages * kStageBytes + 1024 + 2 * kStages * 8;
constexpr int kGroups = kTokens / 8;  // of tokens: four sums of a thread
static_assert(kStages <= 16 && kOutputs * kTokens * 4 <= kStages * kStageBytes);

// copy_async16 that also fetches the 256 bytes around to L2.
__device__ __forceinline__ void copy_weight16(uint32_t to, const char* from, bool valid) {
  const int bytes = valid ? 16 : 0;
  asm volatile("cp.async.cg.shared.global.L2::256B [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(bytes) : "memory");
}
// What this thread's copies have written becomes visible to the tensor cores' reads.
__device__ __forceinline__ void publish_copies() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }

struct Arguments {
  CUtensorMap x;
  const void* w;
  void* y;
  int64_t y_stride;
  Scalar y_type;
  bool add;
  int m, n, k_blocks;
};

// A block's tile and its part of K.
struct Part {
  int output, first_k, count, slice;
};

template <int kSplit>
__device__ __forceinline__ Part find_part(const Arguments& args) {
  Part part;
  part.slice = kSplit > 1 ? static_cast<int>(ptx::cluster_rank()) : 0;
  part.output = static_cast<int>(blockIdx.x) / kSplit * kOutputs;
  part.first_k = args.k_blocks * part.slice / kSplit;
  part.count = args.k_blocks * (part.slice + 1) / kSplit - part.first_k;
  return part;
}

// Four warps copy the weight by themselves: the copy engine takes some 6 clocks for each row of 128 bytes, which is too
// slow for the weight and x together. It brings x. The weight does not depend on the previous kernel.
struct Producer {
  static constexpr int kAhead = kStages - 2;    // stages under way behind the one waited for
  static constexpr int kRows = kProducers / 8;  // 16 bytes a thread
  const Arguments& args;
  const Stages& s;
  const Part& part;
  const int thread = static_cast<int>(threadIdx.x) - kConsumers, row = thread / 8;
  const char* const from = static_cast<const char*>(args.w) + int64_t{part.output + row} * args.k_blocks * 128 +
                           int64_t{part.first_k} * 128 + thread % 8 * 16;
  const uint32_t to = ptx::shared_address(s.b) + row * 128 + (((thread % 8) ^ (row & 7)) << 4);

  __device__ __forceinline__ void copy_weight(int i) const {
    const int64_t rows_bytes = int64_t{args.k_blocks} * 128 * kRows;
#pragma unroll
    for (int j = 0; j < kOutputs / kRows; ++j) {
      const bool in = part.output + row + j * kRows < args.n;
      copy_weight16(to + i % kStages * kWeightBytes + j * kRows * 128,
                    in ? from + j * rows_bytes + int64_t{i} * 128 : static_cast<const char*>(args.w), in);
    }
  }
  __device__ __forceinline__ void load_x(int i) const {
    const int stage = i % kStages, k = (part.first_k + i) * kStageK;
    char* to_x = s.a + stage * kXBytes;
    ptx::barrier_expect(&s.full[stage], kXBytes);
    ptx::tensor_load(to_x, &args.x, k, 0, &s.full[stage]);
  }
  __device__ __forceinline__ void run() const {
    for (int i = 0; i < kAhead; ++i) {
      if (i < part.count) copy_weight(i);
      copy_async_commit();
    }
    if (thread == 0) {
      ptx::wait_for_previous();
      for (int i = 0; i < min(kAhead, part.count); ++i) load_x(i);
    }
    __syncwarp();
    for (int i = 0; i < part.count; ++i) {
      copy_async_wait<kAhead - 1>();
      publish_copies();
      __syncwarp();
      if (thread % 32 == 0) ptx::barrier_arrive(&s.full[i % kStages]);
      const int next = i + kAhead;
      if (next < part.count) {
        if (next >= kStages) ptx::barrier_wait(&s.empty[next % kStages], (next / kStages - 1) & 1);
        copy_weight(next);
        if (thread == 0) load_x(next);
      }
      copy_async_commit();
    }
  }
};

__device__ __forceinline__ void multiply(const Stages& s, const Part& part, float (&sums)[kTokens / 2]) {
  const int group = static_cast<int>(threadIdx.x) / 128, lane = static_cast<int>(threadIdx.x) % 32;
  const auto leave = [&](int stage) {
    if (lane > 0) return;
    ptx::barrier_arrive(&s.empty[stage]);
  };
  int stage = 0;
  uint32_t phase = 0;
  for (int i = 0; i < part.count; ++i) {
    ptx::barrier_wait(&s.full[stage], phase);
    const uint64_t a = ptx::tile_descriptor(s.b + stage * kWeightBytes + group * 64 * 128);
    const uint64_t b = ptx::tile_descriptor(s.a + stage * kXBytes);
    ptx::hold(sums);
    ptx::products_begin();
#pragma unroll
    for (int j = 0; j < 4; ++j) ptx::product_bf16(sums, a + 2 * j, b + 2 * j, i | j);
    ptx::products_commit();
    ptx::products_wait<1>();
    ptx::hold(sums);
    if (i > 0) leave(stage == 0 ? kStages - 1 : stage - 1);
    if (++stage == kStages) stage = 0, phase ^= 1;
  }
  ptx::products_wait<0>();
  ptx::hold(sums);
}

// Two neighbouring outputs of a token.
__device__ __forceinline__ void store_two(const Arguments& args, int64_t at, float a, float b, float2 before) {
  a += before.x, b += before.y;
  if (args.y_type == Scalar::kF32) {
    *reinterpret_cast<float2*>(static_cast<float*>(args.y) + at) = make_float2(a, b);
  } else {
    *reinterpret_cast<uint32_t*>(static_cast<__nv_bfloat16*>(args.y) + at) = pack_bf16(a, b);
  }
}

__device__ __forceinline__ float2 load_two(const Arguments& args, int64_t at) {
  if (args.y_type == Scalar::kF32) return *reinterpret_cast<const float2*>(static_cast<const float*>(args.y) + at);
  const uint32_t word = *reinterpret_cast<const uint32_t*>(static_cast<const __nv_bfloat16*>(args.y) + at);
  return make_float2(__uint_as_float(word << 16), __uint_as_float(word & 0xFFFF0000u));
}

// Where a thread stores of a group of tokens: outputs `output` and `output` + 8, each with the next one.
struct Place {
  int token, output;
};

__device__ __forceinline__ Place place_of(const Part& part, int group) {
  const int thread = static_cast<int>(threadIdx.x), row = thread % 32 / 4;
  return {group * 8 + thread % 4 * 2 + row % 2, part.output + thread / 32 * 16 + row / 2 * 2};
}

// This block's groups of tokens.
template <int kSplit>
struct Finish {
  const Arguments& args;
  const Part& part;
  static constexpr int kGroupsMax = (kGroups + kSplit - 1) / kSplit;
  const int first, end;
  float2 before[kGroupsMax][2] = {};

  __device__ __forceinline__ Finish(const Arguments& args_, const Part& part_)
      : args(args_),
        part(part_),
        first((args_.m + 7) / 8 * part_.slice / kSplit),
        end((args_.m + 7) / 8 * (part_.slice + 1) / kSplit) {}

  __device__ __forceinline__ bool inside(const Place& p, int half, int group) const {
    return group < end && p.token < args.m && p.output + half * 8 < args.n;
  }
  // What is added to, while the others still multiply.
  __device__ __forceinline__ void read() {
    if (!args.add) return;
#pragma unroll
    for (int i = 0; i < kGroupsMax; ++i) {
      const Place p = place_of(part, first + i);
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        if (inside(p, half, first + i)) before[i][half] = load_two(args, p.token * args.y_stride + p.output + half * 8);
      }
    }
  }
  // Over the parts of K, in order. Neighbouring rows exchange, so that a thread has two outputs of one token.
  __device__ __forceinline__ void add_up(const float4* gathered) {
    const bool odd = threadIdx.x & 4;
#pragma unroll
    for (int i = 0; i < kGroupsMax; ++i) {
      if (first + i >= end) break;
      const float* from = reinterpret_cast<const float*>(gathered + (first + i) * kConsumers + threadIdx.x);
      float4 parts[kSplit];
#pragma unroll
      for (int r = 0; r < kSplit; ++r) {
        if constexpr (kSplit > 1) {
          parts[r] = load_remote(from, static_cast<uint32_t>(r));
        } else {
          parts[r] = *reinterpret_cast<const float4*>(from);
        }
      }
      float4 v = parts[0];
#pragma unroll
      for (int r = 1; r < kSplit; ++r) v.x += parts[r].x, v.y += parts[r].y, v.z += parts[r].z, v.w += parts[r].w;
      const float low = __shfl_xor_sync(~0u, odd ? v.x : v.y, 4), high = __shfl_xor_sync(~0u, odd ? v.z : v.w, 4);
      const Place p = place_of(part, first + i);
      const int64_t at = p.token * args.y_stride + p.output;
      if (inside(p, 0, first + i)) store_two(args, at, odd ? low : v.x, odd ? v.y : low, before[i][0]);
      if (inside(p, 1, first + i)) store_two(args, at + 8, odd ? high : v.z, odd ? v.w : high, before[i][1]);
    }
  }
};

template <int kSplit>
__device__ __forceinline__ void block_sync() {
  if constexpr (kSplit > 1) {
    ptx::cluster_sync();
  } else {
    __syncthreads();
  }
}

template <int kSplit>
__global__ void __launch_bounds__(kThreads, 1) split_kernel(const __grid_constant__ Arguments args) {
#if __CUDA_ARCH_FEAT_SM90_ALL
  extern __shared__ char shared[];
  const Stages s = lay_stages<kStages, kXBytes, kWeightBytes>(shared);
  const int thread = static_cast<int>(threadIdx.x);
  if (thread == 0) {
    ptx::prefetch_map(&args.x);
    for (int i = 0; i < kStages; ++i) {
      ptx::barrier_init(&s.full[i], kProducers / 32 + 1);
      ptx::barrier_init(&s.empty[i], kConsumers / 32);
    }
    ptx::barrier_init_fence();
  }
  block_sync<kSplit>();
  ptx::launch_dependents();
  const Part part = find_part<kSplit>(args);
  if (thread >= kConsumers) {
    Producer{args, s, part}.run();
    __syncwarp();
    block_sync<kSplit>();
  } else {
    float sums[kTokens / 2];
    multiply(s, part, sums);
    ptx::wait_for_previous();  // y may be its input
    Finish<kSplit> finish(args, part);
    finish.read();
    ptx::named_barrier(1, kConsumers);  // all products are done: the stages' memory is free
    auto* gathered = reinterpret_cast<float4*>(s.a);
#pragma unroll
    for (int i = 0; i < kGroups; ++i) {
      gathered[i * kConsumers + thread] = make_float4(sums[4 * i], sums[4 * i + 1], sums[4 * i + 2], sums[4 * i + 3]);
    }
    block_sync<kSplit>();
    finish.add_up(gathered);
  }
  if constexpr (kSplit > 1) {
    __syncwarp();
    ptx::cluster_sync();  // others may still read this block's memory or arrive at its barriers
  }
#endif
}

template <int kSplit>
int tile_blocks(int n) {
  return (n + kOutputs - 1) / kOutputs * kSplit;
}

// Whether all blocks run at once.
template <int kSplit>
bool fits(int n) {
  static int clusters[64] = {};
  int device = 0;
  if (cudaGetDevice(&device) != cudaSuccess || device < 0 || device >= 64) return false;
  if (clusters[device] == 0) {
    cudaLaunchAttribute attribute;
    attribute.id = cudaLaunchAttributeClusterDimension;
    attribute.val.clusterDim.x = kSplit;
    attribute.val.clusterDim.y = attribute.val.clusterDim.z = 1;
    cudaLaunchConfig_t config = {};
    config.gridDim = dim3(kSplit);
    config.blockDim = dim3(kThreads);
    config.dynamicSmemBytes = kSharedBytes;
    config.attrs = &attribute;
    config.numAttrs = 1;
    if (allow_shared(split_kernel<kSplit>, kSharedBytes) != cudaSuccess ||
        cudaOccupancyMaxActiveClusters(&clusters[device], split_kernel<kSplit>, &config) != cudaSuccess) {
      return false;
    }
  }
  return tile_blocks<kSplit>(n) <= clusters[device] * kSplit;
}

template <int kSplit>
cudaError_t launch(const Bf16Product& p, cudaStream_t stream) {
  const Weight& w = p.weight;
  Arguments args;
  if (!make_map(&args.x, MapType::kBf16, p.x, p.m, w.k, p.x_stride * 2, kTokens, kStageK, true)) {
    return cudaErrorInvalidValue;
  }
  args.w = w.data;
  args.y = p.y, args.y_stride = p.y_stride, args.y_type = p.y_type;
  args.add = p.epilogue == Epilogue::kAdd;
  args.m = p.m, args.n = w.n, args.k_blocks = w.k / kStageK;
  const cudaError_t error = allow_shared(split_kernel<kSplit>, kSharedBytes);
  if (error != cudaSuccess) return error;
  return launch_kernel(split_kernel<kSplit>, static_cast<unsigned>(tile_blocks<kSplit>(w.n)), kThreads, kSharedBytes,
                       stream, true, kSplit, args);
}

}  // namespace

bool bf16_split_takes(const Bf16Product& p) {
  const Weight& w = p.weight;
  return compute_capability() == 90 && p.m >= 1 && p.m <= kTokens && w.format == WeightFormat::kBf16 &&
         p.bias == nullptr && p.epilogue != Epilogue::kSwiGlu && w.n % 8 == 0 && w.k >= kStageK && w.k % kStageK == 0 &&
         p.x_stride % 8 == 0 && p.y_stride % 2 == 0 && p.y_type != Scalar::kF16;
}

cudaError_t launch_bf16_split_product(const Bf16Product& p, cudaStream_t stream, int split) {
  if (!bf16_split_takes(p)) return cudaErrorInvalidValue;
  const int most = split != 0 ? split : 4, n = p.weight.n, k_blocks = p.weight.k / kStageK;
  const auto takes = [&](int parts, bool all) { return parts <= most && parts <= k_blocks && (split != 0 || all); };
  if (takes(4, fits<4>(n))) return launch<4>(p, stream);
  if (takes(3, fits<3>(n))) return launch<3>(p, stream);
  if (takes(2, fits<2>(n))) return launch<2>(p, stream);
  return launch<1>(p, stream);
}

}  // namespace spillway::kernels::cuda
