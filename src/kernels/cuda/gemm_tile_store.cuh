// From the registers of a warpgroup product to device memory: four threads exchange so that each writes 16 bytes.
#pragma once

#include "kernels/cuda/gemm_launch.cuh"
#include "kernels/cuda/gemm_ptx.cuh"
#include "kernels/cuda/gemm_tiles.cuh"

namespace spillway::kernels::cuda {

struct TileOutput {
  void* y;
  Scalar type;
  int64_t stride;
  int n;
  bool add;
};

// words[i] of thread t (of 4) becomes words[t] of thread i.
__device__ __forceinline__ void transpose_4(uint32_t (&words)[4]) {
  const bool odd = threadIdx.x & 1, upper = threadIdx.x & 2;
  const uint32_t a = __shfl_xor_sync(~0u, odd ? words[0] : words[1], 1);
  const uint32_t b = __shfl_xor_sync(~0u, odd ? words[2] : words[3], 1);
  words[0] = odd ? a : words[0];
  words[1] = odd ? words[1] : a;
  words[2] = odd ? b : words[2];
  words[3] = odd ? words[3] : b;
  const uint32_t c = __shfl_xor_sync(~0u, upper ? words[0] : words[2], 2);
  const uint32_t d = __shfl_xor_sync(~0u, upper ? words[1] : words[3], 2);
  words[0] = upper ? c : words[0];
  words[2] = upper ? words[2] : c;
  words[1] = upper ? d : words[1];
  words[3] = upper ? words[3] : d;
}

__device__ __forceinline__ uint32_t add_words(uint32_t a, uint32_t b) {
  return pack_bf16(__uint_as_float(a << 16) + __uint_as_float(b << 16),
                   __uint_as_float(a & 0xFFFF0000u) + __uint_as_float(b & 0xFFFF0000u));
}

// One row's 32 words of bf16, of which a thread of four holds every fourth pair of columns.
__device__ __forceinline__ void store_row_bf16(const TileOutput& out, int64_t row, int column, bool in_rows,
                                               const float (&d)[64], int half) {
  const int t = threadIdx.x % 4;
#pragma unroll
  for (int block = 0; block < 4; ++block) {
    uint32_t words[4];
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const int i = (block * 4 + j) * 4 + half * 2;
      words[j] = pack_bf16(d[i], d[i + 1]);
    }
    transpose_4(words);
    const int at = column + (block * 4 + t) * 8;
    if (!in_rows || at >= out.n) continue;
    uint4* to = reinterpret_cast<uint4*>(static_cast<__nv_bfloat16*>(out.y) + row * out.stride + at);
    uint4 value = make_uint4(words[0], words[1], words[2], words[3]);
    if (out.add) {
      const uint4 before = *to;
      value = make_uint4(add_words(before.x, value.x), add_words(before.y, value.y), add_words(before.z, value.z),
                         add_words(before.w, value.w));
    }
    *to = value;
  }
}

// row: of this thread's first row in the tile; its second is 8 below.
__device__ __forceinline__ void store_wave(const TileOutput& out, const TilePlace& place, int row,
                                           const float (&d)[64]) {
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int64_t at = place.x_row + row + 8 * half;
    const bool in_rows = at < place.rows_end;
    if (out.type == Scalar::kBf16) {
      store_row_bf16(out, at, place.column, in_rows, d, half);
      continue;
    }
#pragma unroll
    for (int j = 0; j < 16; ++j) {
      const int column = place.column + j * 8 + static_cast<int>(threadIdx.x % 4) * 2;
      if (!in_rows || column >= out.n) continue;
      float2* to = reinterpret_cast<float2*>(static_cast<float*>(out.y) + at * out.stride + column);
      float2 value = make_float2(d[j * 4 + half * 2], d[j * 4 + half * 2 + 1]);
      if (out.add) value.x += to->x, value.y += to->y;
      *to = value;
    }
  }
}

// Of the same place in block `rank` of the cluster.
__device__ __forceinline__ float4 load_remote(const float* shared, uint32_t rank) {
  float4 v;
  asm volatile(
      "{\n.reg .b32 remote;\nmapa.shared::cluster.u32 remote, %4, %5;\n"
      "ld.shared::cluster.v4.f32 {%0, %1, %2, %3}, [remote];\n}"
      : "=f"(v.x), "=f"(v.y), "=f"(v.z), "=f"(v.w)
      : "r"(ptx::shared_address(shared)), "r"(rank)
      : "memory");
  return v;
}

// Four neighbouring values of a row.
__device__ __forceinline__ void store_quad(void* y, Scalar type, bool add, int64_t at, float4 v) {
  if (type == Scalar::kF32) {
    float4* to = reinterpret_cast<float4*>(static_cast<float*>(y) + at);
    if (add) v.x += to->x, v.y += to->y, v.z += to->z, v.w += to->w;
    *to = v;
  } else {
    uint2* to = reinterpret_cast<uint2*>(static_cast<__nv_bfloat16*>(y) + at);
    if (add) {
      const uint2 q = *to;
      v.x += __uint_as_float(q.x << 16), v.y += __uint_as_float(q.x & 0xFFFF0000u);
      v.z += __uint_as_float(q.y << 16), v.w += __uint_as_float(q.y & 0xFFFF0000u);
    }
    *to = make_uint2(pack_bf16(v.x, v.y), pack_bf16(v.z, v.w));
  }
}

}  // namespace spillway::kernels::cuda
