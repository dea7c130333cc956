// A sequence's one new token on its way from a layer's fused projection into decode attention: bias, norm of heads and
// rope in the registers that use them. attention_decode.cuh.
#pragma once

#include "kernels/cuda/attention_ptx.cuh"

namespace spillway::kernels::cuda {

struct FreshToken {
  const float* bias = nullptr;                             // [(heads + 2 kv_heads) * dim] or null
  const float *query_norm = nullptr, *key_norm = nullptr;  // [dim] or null
  float norm_eps = 0;
  const float* cos_sin = nullptr;  // [positions, 2, dim / 2]
};

// Two neighbouring elements.
template <typename T>
__device__ __forceinline__ float2 unpack2(uint32_t v) {
  const T* e = reinterpret_cast<const T*>(&v);
  return make_float2(to_float(e[0]), to_float(e[1]));
}

// Pairs of a head's elements, `low` in its first half and `high` in its second, at kPairs places of two. Fetched first,
// all of a unit's heads at once, then opened: what waits is one read, not one after the other.
template <typename T, int kDim, int kPairs>
struct HeadPairs {
  static constexpr int kHalf = kDim / 2;
  uint32_t raw[kPairs][2];
  float2 low[kPairs], high[kPairs];
  float2 bias[kPairs][2], turn[kPairs][2];  // of low and high; cosines and sines

  // place(i): an even element of the first half.
  template <typename Place>
  __device__ __forceinline__ void fetch(const T* head, const Place& place) {
#pragma unroll
    for (int i = 0; i < kPairs; ++i) {
      raw[i][0] = *reinterpret_cast<const uint32_t*>(head + place(i));
      raw[i][1] = *reinterpret_cast<const uint32_t*>(head + kHalf + place(i));
    }
  }
  // And what is added to the head and turns it, so that nothing waits for one read after the other. Either may be null.
  template <typename Place>
  __device__ __forceinline__ void fetch(const T* head, const float* bias_of, const float* angles, const Place& place) {
    fetch(head, place);
#pragma unroll
    for (int i = 0; i < kPairs; ++i) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int at = place(i) + half * kHalf;
        bias[i][half] = bias_of != nullptr ? __ldg(reinterpret_cast<const float2*>(bias_of + at)) : make_float2(0, 0);
        if (angles != nullptr) turn[i][half] = __ldg(reinterpret_cast<const float2*>(angles + at));
      }
    }
  }
  __device__ __forceinline__ void unpack() {
#pragma unroll
    for (int i = 0; i < kPairs; ++i) low[i] = unpack2<T>(raw[i][0]), high[i] = unpack2<T>(raw[i][1]);
  }
  __device__ __forceinline__ void add(int i, float2 a, float2 b) {
    low[i].x += a.x, low[i].y += a.y, high[i].x += b.x, high[i].y += b.y;
  }
  __device__ __forceinline__ void open() {
    unpack();
#pragma unroll
    for (int i = 0; i < kPairs; ++i) add(i, bias[i][0], bias[i][1]);
  }
  __device__ __forceinline__ float squares() const {
    float sum = 0;
#pragma unroll
    for (int i = 0; i < kPairs; ++i) {
      sum += low[i].x * low[i].x + low[i].y * low[i].y + high[i].x * high[i].x + high[i].y * high[i].y;
    }
    return sum;
  }
  // squares: of the whole head.
  template <typename Place>
  __device__ __forceinline__ void normalise(const float* norm, float squares, float eps, const Place& place) {
    const float factor = 1.0f / sqrtf(squares / kDim + eps);
#pragma unroll
    for (int i = 0; i < kPairs; ++i) {
      const float *a = norm + place(i), *b = a + kHalf;
      low[i].x *= factor * a[0], low[i].y *= factor * a[1], high[i].x *= factor * b[0], high[i].y *= factor * b[1];
    }
  }
  __device__ __forceinline__ void rotate(int i, float2 cos, float2 sin) {
    const float2 x = low[i], y = high[i];
    low[i] = make_float2(x.x * cos.x - y.x * sin.x, x.y * cos.y - y.y * sin.y);
    high[i] = make_float2(y.x * cos.x + x.x * sin.x, y.y * cos.y + x.y * sin.y);
  }
  __device__ __forceinline__ void rotate() {
#pragma unroll
    for (int i = 0; i < kPairs; ++i) rotate(i, turn[i][0], turn[i][1]);
  }
};

// A query head as rows of the fragments of mma.m16n8k16, in all four lanes that share the row.
template <typename T, int kDim>
struct FreshQuery {
  static constexpr int kBlocks = kDim / 32;  // of 16 elements in half a head
  HeadPairs<T, kDim, 2 * kBlocks> pairs;

  static __device__ __forceinline__ int place(int i) {
    return i / 2 * 16 + i % 2 * 8 + static_cast<int>(threadIdx.x % 4) * 2;
  }
  __device__ __forceinline__ void fetch(const T* head, const float* bias, const float* angles) {
    pairs.fetch(head, bias, angles, place);
  }
  // half: of the fragments' 16 rows.
  __device__ __forceinline__ void open(uint32_t (&q)[kDim / 16][4], int half, const FreshToken& fresh) {
    pairs.open();
    if (fresh.query_norm != nullptr) {
      float sum = pairs.squares();
      sum += __shfl_xor_sync(0xffffffffu, sum, 1);
      sum += __shfl_xor_sync(0xffffffffu, sum, 2);
      pairs.normalise(fresh.query_norm, sum, fresh.norm_eps, place);
    }
    pairs.rotate();
#pragma unroll
    for (int i = 0; i < 2 * kBlocks; ++i) {
      q[i / 2][half + i % 2 * 2] = pack2<T>(pairs.low[i].x, pairs.low[i].y);
      q[i / 2 + kBlocks][half + i % 2 * 2] = pack2<T>(pairs.high[i].x, pairs.high[i].y);
    }
  }
};

// A key and its value in a warp's registers.
template <typename T, int kDim>
struct FreshKeyValue {
  static constexpr int kHalf = kDim / 2, kPairs = (kHalf + 63) / 64;
  uint32_t words[2][kPairs][2];  // [key, value][pair][first half, second]

  static __device__ __forceinline__ int place(int i) { return i * 64 + static_cast<int>(threadIdx.x & 31) * 2; }
  // All lanes. Lanes past the head read its beginning and count nothing.
  __device__ __forceinline__ void take(const T* key, const T* value, const float* key_bias, const float* value_bias,
                                       const FreshToken& fresh, const float* angles) {
    const auto clamped = [](int i) { return place(i) < kHalf ? place(i) : 0; };
    HeadPairs<T, kDim, kPairs> k, v;
    k.fetch(key, key_bias, angles, clamped);
    v.fetch(value, value_bias, nullptr, clamped);
    k.open();
    v.open();
    if (fresh.key_norm != nullptr) {
      static_assert(kPairs == 1 || kHalf % 64 == 0, "lanes past the head hold no pair at all");
      float sum = place(kPairs - 1) < kHalf ? k.squares() : 0.0f;
      for (int step = 16; step > 0; step /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, step);
      k.normalise(fresh.key_norm, sum, fresh.norm_eps, clamped);
    }
    k.rotate();
#pragma unroll
    for (int i = 0; i < kPairs; ++i) {
      words[0][i][0] = pack2<T>(k.low[i].x, k.low[i].y), words[0][i][1] = pack2<T>(k.high[i].x, k.high[i].y);
      words[1][i][0] = pack2<T>(v.low[i].x, v.low[i].y), words[1][i][1] = pack2<T>(v.high[i].x, v.high[i].y);
    }
  }
  // to(which, s): where 16 bytes of segment s of the key (0) or the value go.
  template <typename To>
  __device__ __forceinline__ void put(const To& to) const {
#pragma unroll
    for (int which = 0; which < 2; ++which) {
#pragma unroll
      for (int i = 0; i < kPairs; ++i) {
        if (place(i) >= kHalf) continue;
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          const int at = place(i) + half * kHalf;
          *reinterpret_cast<uint32_t*>(to(which, at / 8) + at % 8 * 2) = words[which][i][half];
        }
      }
    }
  }
};

}  // namespace spillway::kernels::cuda
