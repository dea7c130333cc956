// Attention over packed sequences in float32, on mma.sync with tf32 operands: one product each (11 bits), or three of
// values split in two (22 bits) where the pass is to be exact. Otherwise as encoder_attention.cuh; rows in shared
// memory are padded by 16 bytes, so that the eight rows and four columns of a fragment lie in 32 banks.
#include "kernels/cuda/encoder_rows.cuh"
#include "kernels/cuda/operations_encoder.h"

namespace spillway::kernels::cuda {
namespace {

constexpr int kWarps = 4;
constexpr int kThreads = 32 * kWarps;
constexpr int kKeys = 32;  // a stage
constexpr int kQueries = 16 * kWarps;
constexpr int kParts = kAttentionTile / kQueries;  // blocks of a tile

struct Arguments {
  const float *q, *k, *v;
  const AttentionTile* tiles;
  int64_t stride;
  int heads, dim, window;
  float scale_log2;
  float* y;
};

__device__ __forceinline__ uint32_t tf32_bits(float x) {
  uint32_t bits = 0;
#if __CUDA_ARCH__ >= 800
  asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(bits) : "f"(x));
#endif
  return bits;
}

__device__ __forceinline__ void multiply_tf32(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
#if __CUDA_ARCH__ >= 800
  asm volatile(
      "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
#endif
}

// c += a b, small terms first.
template <bool kExact>
__device__ __forceinline__ void multiply(float (&c)[4], const float (&a)[4], float b0, float b1) {
  uint32_t high[4];
#pragma unroll
  for (int i = 0; i < 4; ++i) high[i] = tf32_bits(a[i]);
  const uint32_t b0_high = tf32_bits(b0), b1_high = tf32_bits(b1);
  if constexpr (kExact) {
    uint32_t low[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) low[i] = tf32_bits(a[i] - __uint_as_float(high[i]));
    multiply_tf32(c, low, b0_high, b1_high);
    multiply_tf32(c, high, tf32_bits(b0 - __uint_as_float(b0_high)), tf32_bits(b1 - __uint_as_float(b1_high)));
  }
  multiply_tf32(c, high, b0_high, b1_high);
}

template <int kDim>
__device__ __forceinline__ void load_rows(const float* base, int64_t stride, int first, int count, int end, int dim,
                                          float* to) {
  for (int i = int(threadIdx.x); i < count * (kDim / 2); i += kThreads) {  // dim is even
    const int row = i / (kDim / 2), column = i % (kDim / 2) * 2;
    const bool valid = first + row < end && column < dim;
    const float2 pair =
        valid ? *reinterpret_cast<const float2*>(base + int64_t(first + row) * stride + column) : make_float2(0, 0);
    *reinterpret_cast<float2*>(to + row * (kDim + 4) + column) = pair;
  }
}

// Scores of one stage become weights 2^(s - largest), and what came before is scaled to the new largest; those outside
// of the sequence or the window become 0.
template <int kDim>
__device__ __forceinline__ void soften(const Arguments& a, float (&s)[kKeys / 8][4], float (&o)[kDim / 8][4],
                                       float (&largest)[2], float (&total)[2], int first_row, int key, int end, int g,
                                       int t) {
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int row = first_row + g + 8 * half;
    float most = largest[half];
#pragma unroll
    for (int n = 0; n < kKeys / 8; ++n) {
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        const int column = key + n * 8 + 2 * t + i;
        float& score = s[n][2 * half + i];
        score = column >= end || (a.window > 0 && abs(row - column) > a.window) ? -INFINITY : score * a.scale_log2;
        most = fmaxf(most, score);
      }
    }
    most = fmaxf(most, __shfl_xor_sync(0xffffffffu, most, 1));
    most = fmaxf(most, __shfl_xor_sync(0xffffffffu, most, 2));
    const float offset = most == -INFINITY ? 0.0f : most, keep = exp2f(largest[half] - offset);
    largest[half] = most;
    total[half] *= keep;
#pragma unroll
    for (int n = 0; n < kKeys / 8; ++n) {
#pragma unroll
      for (int i = 2 * half; i < 2 * half + 2; ++i) {
        s[n][i] = exp2f(s[n][i] - offset);
        total[half] += s[n][i];
      }
    }
#pragma unroll
    for (int d = 0; d < kDim / 8; ++d) {
      o[d][2 * half] *= keep;
      o[d][2 * half + 1] *= keep;
    }
  }
}

// Outputs of a warp's 16 rows from first_row, divided by their totals.
template <int kDim>
__device__ __forceinline__ void store_rows(const Arguments& a, const float (&o)[kDim / 8][4], const float (&total)[2],
                                           int first_row, int rows_end, int head, int g, int t) {
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    float sum = total[half];
    sum += __shfl_xor_sync(0xffffffffu, sum, 1);
    sum += __shfl_xor_sync(0xffffffffu, sum, 2);
    const float inverse = 1.0f / sum;
    const int row = first_row + g + 8 * half;
    if (row >= rows_end) continue;
    float* to = a.y + int64_t(row) * a.heads * a.dim + head * a.dim;
#pragma unroll
    for (int d = 0; d < kDim / 8; ++d) {
      if (d * 8 + 2 * t >= a.dim) continue;
      *reinterpret_cast<float2*>(to + d * 8 + 2 * t) =
          make_float2(o[d][2 * half] * inverse, o[d][2 * half + 1] * inverse);
    }
  }
}

template <int kDim, bool kExact>
__global__ void __launch_bounds__(kThreads) attend_f32(Arguments a) {
  constexpr int kRow = kDim + 4;
  extern __shared__ __align__(16) float memory[];
  float *queries = memory, *keys = queries + kQueries * kRow, *values = keys + kKeys * kRow;
  take_turn();
  AttentionTile tile = a.tiles[blockIdx.y / kParts];
  tile.row += int(blockIdx.y % kParts) * kQueries;
  if (tile.row >= tile.end) return;
  const int head = int(blockIdx.x), warp = int(threadIdx.x / 32), lane = int(threadIdx.x % 32);
  const int g = lane / 4, t = lane % 4;
  const int rows_end = min(tile.row + kQueries, tile.end);
  const int begin = a.window > 0 ? max(tile.begin, tile.row - a.window) : tile.begin;
  const int end = a.window > 0 ? min(tile.end, rows_end + a.window) : tile.end;
  const float *q = a.q + head * a.dim, *k = a.k + head * a.dim, *v = a.v + head * a.dim;
  load_rows<kDim>(q, a.stride, tile.row, kQueries, rows_end, a.dim, queries);
  const int first_row = tile.row + warp * 16;
  float o[kDim / 8][4] = {}, largest[2] = {-INFINITY, -INFINITY}, total[2] = {};
  const float* own = queries + warp * 16 * kRow;
  for (int key = begin; key < end; key += kKeys) {
    load_rows<kDim>(k, a.stride, key, kKeys, end, a.dim, keys);
    load_rows<kDim>(v, a.stride, key, kKeys, end, a.dim, values);
    __syncthreads();
    float s[kKeys / 8][4] = {};
#pragma unroll 4
    for (int c = 0; c < kDim; c += 8) {
      const float part[4] = {own[g * kRow + c + t], own[(g + 8) * kRow + c + t], own[g * kRow + c + t + 4],
                             own[(g + 8) * kRow + c + t + 4]};
#pragma unroll
      for (int n = 0; n < kKeys / 8; ++n) {
        const float* from = keys + (n * 8 + g) * kRow + c + t;
        multiply<kExact>(s[n], part, from[0], from[4]);
      }
    }
    soften<kDim>(a, s, o, largest, total, first_row, key, end, g, t);
    // The columns of scores that a thread holds, 2 t and 2 t + 1, stand for t and t + 4 of the operand: values
    // likewise.
#pragma unroll
    for (int n = 0; n < kKeys / 8; ++n) {
      const float part[4] = {s[n][0], s[n][2], s[n][1], s[n][3]};
      const float* from = values + (n * 8 + 2 * t) * kRow + g;
#pragma unroll
      for (int d = 0; d < kDim / 8; ++d) multiply<kExact>(o[d], part, from[d * 8], from[kRow + d * 8]);
    }
    __syncthreads();
  }
  store_rows<kDim>(a, o, total, first_row, rows_end, head, g, t);
}

template <int kDim>
void launch(const Arguments& args, bool exact, unsigned tiles, tensor::Stream& stream) {
  constexpr size_t kShared = size_t(kQueries + 2 * kKeys) * (kDim + 4) * sizeof(float);
  launch_row_kernel("attend_f32", exact ? attend_f32<kDim, true> : attend_f32<kDim, false>,
                    dim3(unsigned(args.heads), tiles * kParts), kThreads, kShared, stream, args);
}

}  // namespace

void attention_f32(const DeviceAttentionArgs& args, tensor::Stream& stream) {
  constexpr float kLog2E = 1.4426950408889634f;
  Arguments a = {};
  a.q = args.q.as<float>();
  a.k = args.k.as<float>();
  a.v = args.v.as<float>();
  a.tiles = args.tiles.raw<AttentionTile>();
  a.stride = args.row_stride;
  a.heads = args.heads;
  a.dim = args.head_dim;
  a.window = args.window;
  a.scale_log2 = args.scale * kLog2E;
  a.y = args.y.as<float>();
  const auto tiles = unsigned(args.tiles.shape[0]);
  SW_CHECK(a.dim % 2 == 0 && a.dim <= 128, "heads of an even width up to 128");
  if (a.dim <= 16) return launch<16>(a, args.exact, tiles, stream);
  if (a.dim <= 32) return launch<32>(a, args.exact, tiles, stream);
  if (a.dim <= 64) return launch<64>(a, args.exact, tiles, stream);
  launch<128>(a, args.exact, tiles, stream);
}

}  // namespace spillway::kernels::cuda
