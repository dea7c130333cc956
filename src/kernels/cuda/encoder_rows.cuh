// Rows of activations in registers: a warp holds one row, kVector elements a lane and step. For the row kernels of
// encoders (encoder_*.cu) only.
#pragma once

#include <cuda_fp8.h>

#include "kernels/activation.h"
#include "kernels/cuda/rows.cuh"

namespace spillway::kernels::cuda {

// Elements of 16 bytes.
template <class T>
constexpr int kWide = 16 / int(sizeof(T));

// kVector is 1 or kWide<T>, and the address aligned to it.
template <class T, int kVector>
__device__ __forceinline__ void load_vector(const T* from, float (&v)[kVector]) {
  if constexpr (kVector == 1) {
    v[0] = to_float(*from);
  } else {
    const uint4 bits = *reinterpret_cast<const uint4*>(from);
    const T* values = reinterpret_cast<const T*>(&bits);
#pragma unroll
    for (int i = 0; i < kVector; ++i) v[i] = to_float(values[i]);
  }
}

template <class T, int kVector>
__device__ __forceinline__ void store_vector(T* to, const float (&v)[kVector]) {
  if constexpr (kVector == 1) {
    *to = from_float<T>(v[0]);
  } else {
    uint4 bits;
    T* values = reinterpret_cast<T*>(&bits);
#pragma unroll
    for (int i = 0; i < kVector; ++i) values[i] = from_float<T>(v[i]);
    *reinterpret_cast<uint4*>(to) = bits;
  }
}

// To e4m3, saturating.
template <int kVector>
__device__ __forceinline__ void store_e4m3(uint8_t* to, const float (&v)[kVector], float scale) {
  if constexpr (kVector % 4 == 0) {
    uint32_t words[kVector / 4];
#pragma unroll
    for (int i = 0; i < kVector / 4; ++i) {
      const uint32_t low =
          __nv_cvt_float2_to_fp8x2({v[4 * i] * scale, v[4 * i + 1] * scale}, __NV_SATFINITE, __NV_E4M3);
      const uint32_t high =
          __nv_cvt_float2_to_fp8x2({v[4 * i + 2] * scale, v[4 * i + 3] * scale}, __NV_SATFINITE, __NV_E4M3);
      words[i] = low | high << 16;
    }
    if constexpr (kVector == 8)
      *reinterpret_cast<uint2*>(to) = make_uint2(words[0], words[1]);
    else
      *reinterpret_cast<uint32_t*>(to) = words[0];
  } else {
#pragma unroll
    for (int i = 0; i < kVector; ++i) to[i] = __nv_cvt_float_to_fp8(v[i] * scale, __NV_SATFINITE, __NV_E4M3);
  }
}

__device__ __forceinline__ float warp_sum(float value) {
#pragma unroll
  for (int offset = 16; offset > 0; offset /= 2) value += __shfl_xor_sync(0xffffffffu, value, offset);
  return value;
}

__device__ __forceinline__ float activated(float x, Activation activation) {
  switch (activation) {
    case Activation::kGelu:
      return 0.5f * x * (1.0f + erff(x * 0.70710678118654752f));
    case Activation::kGeluTanh:
      return 0.5f * x * (1.0f + tanhf(0.7978845608028654f * (x + 0.044715f * x * x * x)));
    case Activation::kRelu:
      return fmaxf(x, 0.0f);
    case Activation::kSilu:
      return x / (1.0f + expf(-x));
    case Activation::kTanh:
      return tanhf(x);
    default:
      return x;
  }
}

// Body(vector width as std::integral_constant) by whether rows of `width` may be read 16 bytes at a time.
template <class T, class Body>
void by_width(int64_t width, Body&& body) {
  if (width % kWide<T> == 0) return body(std::integral_constant<int, kWide<T>>{});
  body(std::integral_constant<int, 1>{});
}

}  // namespace spillway::kernels::cuda
