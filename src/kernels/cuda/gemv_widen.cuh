// Stored weights to bf16 fragments of mma.m16n8k16, 16 bytes of one output row at a time.
//
// A thread (g = lane / 4, t = lane % 4) holds 16 bytes at [row g][64 s + 16 t] of a slice. Format<F>::fragment(q, u, i)
// gives operand registers: the k's of products u (x8 unit) and i are those of x words that Format<F>::inputs picks from
// the 8 elements of x at k = unit_k(t, u). Any order of k serves, so long as both operands share it.
#pragma once

#include "kernels/cuda/gemm_ptx.cuh"
#include "kernels/cuda/gemm_types.h"

namespace spillway::kernels::cuda {

struct Pair {
  uint32_t first, second;
};

// Before sm_80, which has them, CUDA 12.0 has no arithmetic on pairs of bf16.
__device__ __forceinline__ uint32_t add_bf16x2(uint32_t a, uint32_t b) {
#if __CUDA_ARCH__ >= 800
  const __nv_bfloat162 sum =
      __hadd2(*reinterpret_cast<const __nv_bfloat162*>(&a), *reinterpret_cast<const __nv_bfloat162*>(&b));
  return *reinterpret_cast<const uint32_t*>(&sum);
#else
  return pack_bf16(__uint_as_float(a << 16) + __uint_as_float(b << 16),
                   __uint_as_float(a & 0xFFFF0000u) + __uint_as_float(b & 0xFFFF0000u));
#endif
}
__device__ __forceinline__ uint32_t multiply_bf16x2(uint32_t a, uint32_t b) {
#if __CUDA_ARCH__ >= 800
  const __nv_bfloat162 product =
      __hmul2(*reinterpret_cast<const __nv_bfloat162*>(&a), *reinterpret_cast<const __nv_bfloat162*>(&b));
  return *reinterpret_cast<const uint32_t*>(&product);
#else
  return pack_bf16(__uint_as_float(a << 16) * __uint_as_float(b << 16),
                   __uint_as_float(a & 0xFFFF0000u) * __uint_as_float(b & 0xFFFF0000u));
#endif
}

__device__ __forceinline__ uint32_t add_f16x2(uint32_t a, uint32_t b) {
  const __half2 sum = __hadd2(*reinterpret_cast<const __half2*>(&a), *reinterpret_cast<const __half2*>(&b));
  return *reinterpret_cast<const uint32_t*>(&sum);
}

// (a & mask) | bits in one instruction, which takes one constant only.
__device__ __forceinline__ uint32_t take_bits(uint32_t a, uint32_t mask, uint32_t bits) {
  uint32_t d;
  asm("lop3.b32 %0, %1, %2, %3, 0xEA;" : "=r"(d) : "r"(a), "r"(mask), "r"(bits));
  return d;
}

template <WeightFormat kFormat>
struct Format;

// kElements16: elements in 16 bytes. kGroupParts: 64-byte parts that share a scale (0: none). kHalves: half_fragment
// gives them as float16 in fewer instructions, (k0, k1) and (k2, k3) of each four.
template <>
struct Format<WeightFormat::kBf16> {
  static constexpr bool kHalves = false;
  static constexpr int kElements16 = 8;
  static constexpr int kGroupParts = 0;
  static __device__ __forceinline__ int unit_k(int t, int) { return 8 * t; }
  static __device__ __forceinline__ Pair fragment(uint4 q, int, int i) {
    return i == 0 ? Pair{q.x, q.y} : Pair{q.z, q.w};
  }
  static __device__ __forceinline__ Pair inputs(const uint32_t (&x)[4], int i) { return {x[2 * i], x[2 * i + 1]}; }
};

__device__ __forceinline__ uint32_t word(uint4 q, int i) { return i == 0 ? q.x : i == 1 ? q.y : i == 2 ? q.z : q.w; }

// One byte a weight, in the order of k: a word gives (k0, k2) and (k1, k3).
struct ByteFormat {
  static constexpr bool kHalves = true;
  static constexpr int kElements16 = 16;
  static constexpr int kGroupParts = 2;
  static __device__ __forceinline__ int unit_k(int t, int u) { return 16 * t + 8 * u; }
  static __device__ __forceinline__ Pair inputs(const uint32_t (&x)[4], int i) {
    return {__byte_perm(x[2 * i], x[2 * i + 1], 0x5410), __byte_perm(x[2 * i], x[2 * i + 1], 0x7632)};
  }
};

template <>
struct Format<WeightFormat::kF8Block> : ByteFormat {
  // s eeee mmm to bf16 s 0000eeee mmm0000, which is the value times 2^-120: subnormals come right too.
  static __device__ __forceinline__ uint32_t widen(uint32_t q) {
    const uint32_t bits = take_bits(q, 0x80008000u, (q >> 4) & 0x07F007F0u);
    return multiply_bf16x2(bits, 0x7B807B80u);  // 2^120
  }
  static __device__ __forceinline__ Pair fragment(uint4 q, int u, int i) {
    const uint32_t w = word(q, 2 * u + i);
    return {widen(w << 8), widen(w)};
  }
  static __device__ __forceinline__ Pair half_fragment(uint4 q, int u, int i) {
    const uint32_t w = word(q, 2 * u + i);
    Pair pair = {};
#if __CUDA_ARCH__ >= 890
    asm("{\n.reg .b16 low, high;\nmov.b32 {low, high}, %2;\n"
        "cvt.rn.f16x2.e4m3x2 %0, low;\ncvt.rn.f16x2.e4m3x2 %1, high;\n}"
        : "=r"(pair.first), "=r"(pair.second)
        : "r"(w));
#endif
    return pair;
  }
};

template <>
struct Format<WeightFormat::kInt8> : ByteFormat {
  // Nibbles as 128 + low and 2048 + 16 high, exact in bf16; their sum less 2304 is value.
  static __device__ __forceinline__ uint32_t widen(uint32_t low, uint32_t high) {
    const uint32_t l = take_bits(low, 0x000F000Fu, 0x43004300u);
    const uint32_t h = take_bits(high, 0x000F000Fu, 0x45004500u);
    return add_bf16x2(add_bf16x2(h, 0xC510C510u), l);
  }
  static __device__ __forceinline__ Pair fragment(uint4 q, int u, int i) {
    const uint32_t w = word(q, 2 * u + i);
    return {widen(w, w >> 4), widen(w >> 8, w >> 12)};
  }
  // A byte below 0x64 is 1024 + it; less 1152 the value.
  static __device__ __forceinline__ Pair half_fragment(uint4 q, int u, int i) {
    const uint32_t w = word(q, 2 * u + i);
    return {add_f16x2(__byte_perm(w, 0x64646464u, 0x4140), 0xE480E480u),
            add_f16x2(__byte_perm(w, 0x64646464u, 0x4342), 0xE480E480u)};
  }
};

template <>
struct Format<WeightFormat::kInt4> {
  static constexpr bool kHalves = true;
  static constexpr int kElements16 = 32;
  static constexpr int kGroupParts = 1;
  static __device__ __forceinline__ int unit_k(int t, int u) { return 32 * u + 8 * t; }
  static __device__ __forceinline__ uint32_t widen(uint32_t q) {
    return add_bf16x2(take_bits(q, 0x000F000Fu, 0x43004300u), 0xC308C308u);  // 128 + u less 136
  }
  static __device__ __forceinline__ Pair fragment(uint4 q, int u, int i) {
    const uint32_t w = word(q, u) >> (8 * i);
    return {widen(w), widen(w >> 4)};
  }
  // 1024 + u less 1032; 1024 + 16 u a sixteenth less 72: no shift between the two nibbles of a byte.
  static __device__ __forceinline__ Pair half_fragment(uint4 q, int u, int i) {
    const uint32_t w = word(q, u) >> (8 * i);
    const uint32_t high = take_bits(w, 0x00F000F0u, 0x64006400u), sixteenth = 0x2C002C00u, offset = 0xD480D480u;
    const __half2 scaled =
        __hfma2(*reinterpret_cast<const __half2*>(&high), *reinterpret_cast<const __half2*>(&sixteenth),
                *reinterpret_cast<const __half2*>(&offset));
    return {add_f16x2(take_bits(w, 0x000F000Fu, 0x64006400u), 0xE408E408u),
            *reinterpret_cast<const uint32_t*>(&scaled)};
  }
  static __device__ __forceinline__ Pair inputs(const uint32_t (&x)[4], int i) { return {x[2 * i], x[2 * i + 1]}; }
};

}  // namespace spillway::kernels::cuda
