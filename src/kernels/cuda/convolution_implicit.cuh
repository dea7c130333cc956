// A convolution as a product whose rows are gathered patch by patch while they are loaded, on mma.sync (sm_80 and
// later). A block makes kRows pixels by kOutputs channels: slices of 64 bytes along K (filter row, column, channel)
// pass through shared memory kStages deep by cp.async, zeros where a patch leaves its image. Where there are few tiles,
// blocks share K: as a cluster, each adding up some rows of all parts (sm_90), else the last one to end adds up the
// parts, in their order either way. Then bias, residual, ReLU, and 16-byte stores.
#pragma once

#include "kernels/cuda/encoder_attention.cuh"

namespace spillway::kernels::cuda::implicit {

constexpr int kStages = 4;
constexpr int kRowBytes = 64;  // of a slice
constexpr int kWarpRows = 32;
constexpr int kClusterMax = 8;  // blocks that share K as a cluster

struct Arguments {
  const void *x, *w, *residual;
  const float* bias;
  void* y;
  float* parts;   // [splits, pixels, outputs], where splits > 1
  int* counters;  // by tile, zero between launches
  int pixels;     // out, of all images
  int height, width, inputs;
  int out_height, out_width, outputs;
  int size, stride, padding;
  int slices, splits;
  bool relu;
};

// How elements lie in memory and are multiplied: f16, bf16, and float32 as tf32 once or in three products.
enum class Multiply { kF16, kBf16, kTf32, kTf32Thrice };

template <Multiply kMultiply>
struct Element {
  using Type = float;
};
template <>
struct Element<Multiply::kF16> {
  using Type = __half;
};
template <>
struct Element<Multiply::kBf16> {
  using Type = __nv_bfloat16;
};

// Splits float32 bits into the tf32 next to them and what is left.
__device__ __forceinline__ void split(uint32_t bits, uint32_t& high, uint32_t& low) {
  const float x = __uint_as_float(bits);
  high = ptx::to_tf32(x);
  low = ptx::to_tf32(x - __uint_as_float(high));
}

template <Multiply kMultiply>
__device__ __forceinline__ void multiply(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  if constexpr (kMultiply == Multiply::kF16 || kMultiply == Multiply::kBf16) {
    sequence::multiply<typename Element<kMultiply>::Type>(c, a, b0, b1);
  } else {
    uint32_t high[4], low[4], b0_high, b0_low, b1_high, b1_low;
#pragma unroll
    for (int i = 0; i < 4; ++i) split(a[i], high[i], low[i]);
    split(b0, b0_high, b0_low);
    split(b1, b1_high, b1_low);
    if constexpr (kMultiply == Multiply::kTf32Thrice) {
      ptx::mma_tf32(c, low, b0_high, b1_high);
      ptx::mma_tf32(c, high, b0_low, b1_low);
    }
    ptx::mma_tf32(c, high, b0_high, b1_high);
  }
}

__device__ __forceinline__ uint32_t place(int row, int chunk) {
  return uint32_t(row * kRowBytes + ((chunk ^ ((row >> 1) & 3)) << 4));
}

// Where a thread is along K: its chunk's filter row and column, and channel.
template <int kChunk, int kSlice>
struct Walk {
  int row = 0, column = 0, channel;
  __device__ Walk(int chunk, int slice, const Arguments& a) : channel(slice * kSlice + chunk * kChunk) { carry(a); }
  __device__ void next(const Arguments& a) {
    channel += kSlice;
    carry(a);
  }
  __device__ void carry(const Arguments& a) {
    while (channel >= a.inputs) {
      channel -= a.inputs;
      if (++column == a.size) column = 0, ++row;
    }
  }
};

template <class T, int kRowsIn, int kOutputsIn>
struct Tile {
  static constexpr int kRows = kRowsIn, kOutputs = kOutputsIn;
  static constexpr int kWarpOutputs = kOutputs == 128 ? 64 : 32;
  static constexpr int kThreads = 32 * (kRows / kWarpRows) * (kOutputs / kWarpOutputs);
  static constexpr int kChunk = 16 / int(sizeof(T)), kSlice = kRowBytes / int(sizeof(T));
  static constexpr int kStageBytes = (kRows + kOutputs) * kRowBytes;
  static constexpr int kStagedRow = kOutputs + 4;  // floats
  static constexpr int kShared =
      kStages * kStageBytes > kRows* kStagedRow * 4 ? kStages* kStageBytes : kRows* kStagedRow * 4;
};

// The sums of the tile's rows [begin, end), in shared memory, to y.
template <class T, class Shape>
__device__ __forceinline__ void finish(const Arguments& a, const float* staged, int first_pixel, int first_output,
                                       int begin = 0, int end = Shape::kRows) {
  constexpr int kAcross = Shape::kOutputs / Shape::kChunk;
  for (int i = begin * kAcross + int(threadIdx.x); i < end * kAcross; i += Shape::kThreads) {
    const int row = i / kAcross, column = i % kAcross * Shape::kChunk;
    const int pixel = first_pixel + row, output = first_output + column;
    if (pixel >= a.pixels || output >= a.outputs) continue;
    const int64_t at = int64_t(pixel) * a.outputs + output;
    float v[Shape::kChunk];
#pragma unroll
    for (int j = 0; j < Shape::kChunk; ++j) {
      v[j] = staged[row * Shape::kStagedRow + column + j];
      if (a.bias != nullptr) v[j] += a.bias[output + j];
    }
    if (a.residual != nullptr) {
      float more[Shape::kChunk];
      load_vector<T, Shape::kChunk>(static_cast<const T*>(a.residual) + at, more);
#pragma unroll
      for (int j = 0; j < Shape::kChunk; ++j) v[j] += more[j];
    }
    if (a.relu) {
#pragma unroll
      for (int j = 0; j < Shape::kChunk; ++j) v[j] = fmaxf(v[j], 0.0f);
    }
    store_vector<T, Shape::kChunk>(static_cast<T*>(a.y) + at, v);
  }
}

// Puts this block's part where the others' are; true in the last block, with the sum of all in `staged`.
template <class Shape>
__device__ bool join_parts(const Arguments& a, float* staged, int part_of, int tile, int first_pixel,
                           int first_output) {
  constexpr int kRows = Shape::kRows, kOutputs = Shape::kOutputs;
  const int64_t all = int64_t(a.pixels) * a.outputs;
  const auto each = [&](auto&& body) {
    for (int i = int(threadIdx.x); i < kRows * kOutputs / 4; i += Shape::kThreads) {
      const int row = i / (kOutputs / 4), column = i % (kOutputs / 4) * 4;
      if (first_pixel + row >= a.pixels || first_output + column >= a.outputs) continue;
      body(reinterpret_cast<float4*>(staged + row * Shape::kStagedRow + column),
           int64_t(first_pixel + row) * a.outputs + first_output + column);
    }
  };
  each([&](float4* sum, int64_t at) { *reinterpret_cast<float4*>(a.parts + part_of * all + at) = *sum; });
  __threadfence();
  __shared__ int arrived;
  __syncthreads();
  int* counter = a.counters + tile;
  if (threadIdx.x == 0) arrived = atomicAdd(counter, 1);
  __syncthreads();
  if (arrived + 1 < a.splits) return false;
  __threadfence();
  if (threadIdx.x == 0) *counter = 0;
  each([&](float4* sum, int64_t at) {
    float4 total = make_float4(0, 0, 0, 0);
    for (int part = 0; part < a.splits; ++part) {
      const float4 more = __ldcg(reinterpret_cast<const float4*>(a.parts + part * all + at));
      total.x += more.x, total.y += more.y, total.z += more.z, total.w += more.w;
    }
    *sum = total;
  });
  __syncthreads();
  return true;
}

#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
// Of another block of the cluster, by the address of the same place here.
__device__ __forceinline__ float4 load_remote(uint32_t address, uint32_t rank) {
  float4 v;
  asm volatile(
      "{\n.reg .b32 remote;\nmapa.shared::cluster.u32 remote, %4, %5;\n"
      "ld.shared::cluster.v4.f32 {%0, %1, %2, %3}, [remote];\n}"
      : "=f"(v.x), "=f"(v.y), "=f"(v.z), "=f"(v.w)
      : "r"(address), "r"(rank)
      : "memory");
  return v;
}

// Adds up the rows [begin, end) of the parts that lie in the cluster's blocks, in their order, into this block's.
template <class Shape>
__device__ void join_cluster(float* staged, int parts, int begin, int end) {
  constexpr int kAcross = Shape::kOutputs / 4;
  const uint32_t own = ptx::shared_address(staged);
  for (int i = begin * kAcross + int(threadIdx.x); i < end * kAcross; i += Shape::kThreads) {
    const int at = i / kAcross * Shape::kStagedRow + i % kAcross * 4;
    float4 part[kClusterMax];
#pragma unroll
    for (int p = 0; p < kClusterMax; ++p) {
      if (p < parts) part[p] = load_remote(own + uint32_t(at) * 4, uint32_t(p));
    }
    float4 total = make_float4(0, 0, 0, 0);
#pragma unroll
    for (int p = 0; p < kClusterMax; ++p) {
      if (p < parts) total.x += part[p].x, total.y += part[p].y, total.z += part[p].z, total.w += part[p].w;
    }
    // No other block reads these rows.
    *reinterpret_cast<float4*>(staged + at) = total;
  }
}
#endif

// A warp's sums, from registers to shared memory.
template <int kStagedRow, int kColumns>
__device__ __forceinline__ void stage_sums(const float (&sums)[2][kColumns][4], float* staged, int warp_row,
                                           int warp_output, int lane) {
#pragma unroll
  for (int t = 0; t < 2; ++t) {
#pragma unroll
    for (int n = 0; n < kColumns; ++n) {
      float* to = staged + (warp_row + t * 16 + lane / 4) * kStagedRow + warp_output + n * 8 + lane % 4 * 2;
      *reinterpret_cast<float2*>(to) = make_float2(sums[t][n][0], sums[t][n][1]);
      *reinterpret_cast<float2*>(to + 8 * kStagedRow) = make_float2(sums[t][n][2], sums[t][n][3]);
    }
  }
}

// One slice's products of a warp: kWarpRows patches by 8 * kColumns outputs.
template <Multiply kMultiply, int kColumns>
__device__ __forceinline__ void multiply_slice(float (&sums)[2][kColumns][4], uint32_t patches, uint32_t weights,
                                               int warp_row, int warp_output, int lane) {
#pragma unroll
  for (int k = 0; k < 2; ++k) {  // 32 bytes along K
    uint32_t x[2][4];
#pragma unroll
    for (int t = 0; t < 2; ++t)
      sequence::load_matrices(x[t], patches + place(warp_row + t * 16 + (lane & 15), 2 * k + (lane >> 4)));
#pragma unroll
    for (int n = 0; n < kColumns / 2; ++n) {
      uint32_t w[4];
      sequence::load_matrices(
          w, weights + place(warp_output + n * 16 + (lane & 7) + ((lane >> 4) << 3), 2 * k + ((lane >> 3) & 1)));
#pragma unroll
      for (int t = 0; t < 2; ++t) {
        multiply<kMultiply>(sums[t][2 * n], x[t], w[0], w[1]);
        multiply<kMultiply>(sums[t][2 * n + 1], x[t], w[2], w[3]);
      }
    }
  }
}

template <Multiply kMultiply, int kRows, int kOutputs>
__global__ void __launch_bounds__(Tile<typename Element<kMultiply>::Type, kRows, kOutputs>::kThreads)
    convolve(Arguments a) {
#if __CUDA_ARCH__ >= 800
  using T = typename Element<kMultiply>::Type;
  using Shape = Tile<T, kRows, kOutputs>;
  constexpr int kThreads = Shape::kThreads, kLoadRows = kThreads / 4;
  constexpr int kPatchLoads = kRows / kLoadRows, kWeightLoads = kOutputs / kLoadRows;
  constexpr int kColumns = Shape::kWarpOutputs / 8;
  extern __shared__ __align__(128) char shared[];
  const auto base = uint32_t(__cvta_generic_to_shared(shared));
  const int part = int(blockIdx.x) % a.splits, across = int(blockIdx.x) / a.splits;
  const int first_output = across * kOutputs, first_pixel = int(blockIdx.y) * kRows;
  const int chunk = int(threadIdx.x % 4), load_row = int(threadIdx.x / 4);
  const int begin = int(int64_t(a.slices) * part / a.splits), end = int(int64_t(a.slices) * (part + 1) / a.splits);
  take_turn();
  // The patches whose rows this thread loads.
  const T* image[kPatchLoads];
  int top[kPatchLoads], left[kPatchLoads];
#pragma unroll
  for (int i = 0; i < kPatchLoads; ++i) {
    const int pixel = first_pixel + load_row + i * kLoadRows, area = a.out_height * a.out_width;
    const int inside = pixel % area;
    image[i] = static_cast<const T*>(a.x) + int64_t(pixel / area) * a.height * a.width * a.inputs;
    top[i] = pixel < a.pixels ? inside / a.out_width * a.stride - a.padding : -(1 << 20);
    left[i] = inside % a.out_width * a.stride - a.padding;
  }
  const int depth = a.size * a.size * a.inputs;
  Walk<Shape::kChunk, Shape::kSlice> walk(chunk, begin, a);
  int loaded = begin;
  const auto load = [&](int stage) {
    const uint32_t to = base + uint32_t(stage * Shape::kStageBytes);
    const bool inside = walk.row < a.size;
#pragma unroll
    for (int i = 0; i < kPatchLoads; ++i) {
      const int row = top[i] + walk.row, column = left[i] + walk.column;
      const bool valid = inside && row >= 0 && row < a.height && column >= 0 && column < a.width;
      const T* from =
          valid ? image[i] + (int64_t(row) * a.width + column) * a.inputs + walk.channel : static_cast<const T*>(a.x);
      sequence::copy_16(to + place(load_row + i * kLoadRows, chunk), from, valid);
    }
    const int k = loaded * Shape::kSlice + chunk * Shape::kChunk;
#pragma unroll
    for (int i = 0; i < kWeightLoads; ++i) {
      const int row = load_row + i * kLoadRows, output = first_output + row;
      const bool valid = inside && output < a.outputs;
      const T* from = static_cast<const T*>(a.w) + (valid ? int64_t(output) * depth + k : 0);
      sequence::copy_16(to + kRows * kRowBytes + place(row, chunk), from, valid);
    }
    walk.next(a);
    ++loaded;
  };
  float sums[2][kColumns][4] = {};
  const int warp = int(threadIdx.x / 32), lane = int(threadIdx.x % 32);
  const int warp_row = warp % (kRows / kWarpRows) * kWarpRows,
            warp_output = warp / (kRows / kWarpRows) * Shape::kWarpOutputs;
#pragma unroll
  for (int stage = 0; stage < kStages - 1; ++stage) {
    if (loaded < end) load(stage);
    sequence::commit_copies();
  }
  for (int slice = begin; slice < end; ++slice) {
    sequence::wait_copies<kStages - 2>();
    __syncthreads();
    if (loaded < end) load((slice - begin + kStages - 1) % kStages);
    sequence::commit_copies();
    const uint32_t patches = base + uint32_t((slice - begin) % kStages * Shape::kStageBytes);
    const uint32_t weights = patches + kRows * kRowBytes;
    multiply_slice<kMultiply>(sums, patches, weights, warp_row, warp_output, lane);
  }
  sequence::wait_copies<0>();
  __syncthreads();
  auto* staged = reinterpret_cast<float*>(shared);
  stage_sums<Shape::kStagedRow>(sums, staged, warp_row, warp_output, lane);
  __syncthreads();
  if (a.splits == 1) return finish<T, Shape>(a, staged, first_pixel, first_output);
#if __CUDA_ARCH__ >= 900
  ptx::cluster_sync();
  const int from = kRows * part / a.splits, to = kRows * (part + 1) / a.splits;
  join_cluster<Shape>(staged, a.splits, from, to);
  __syncthreads();
  finish<T, Shape>(a, staged, first_pixel, first_output, from, to);
  ptx::cluster_sync();  // others may still read this block's part
#else
  const int tile = int(blockIdx.y * gridDim.x) / a.splits + across;
  if (join_parts<Shape>(a, staged, part, tile, first_pixel, first_output))
    finish<T, Shape>(a, staged, first_pixel, first_output);
#endif
#endif
}

}  // namespace spillway::kernels::cuda::implicit
