// Products of one to four rows by int8 and int4 weights on the integer tensor cores: the weights multiply as they are
// stored, which spares widening them.
//
// A token's values of a group of 128 are kept as integers of 16 bits, v = round(x / s) with s = largest |x| / 32512, in
// two columns: v's high bytes (rounded) and what is left. A fragment of eight columns thus holds four tokens. Weights
// are read without their sign (value + 128, or + 8): the group's sum of v, times the offset, comes off again. A word of
// int4 gives two operands by one mask each, of which the higher nibbles count 16 times: 16 low + high is 16 times the
// product. All sums of a group are exact; then both scales. A kept token: its high bytes, its low bytes (column_bytes
// each), a GroupFact for each group. The products themselves: gemv_byte_product.cuh.
#pragma once

#include "kernels/cuda/gemv_stream.cuh"

namespace spillway::kernels::cuda {

constexpr int kByteRowsMax = 4;

struct GroupFact {
  float scale;
  int offset;
};

template <WeightFormat kFormat>
constexpr bool kNibbles = kFormat == WeightFormat::kInt4;

// The lowest bytes of four words, or the ones above them.
template <bool kAbove>
__device__ __forceinline__ uint32_t join_bytes(int a, int b, int c, int d) {
  constexpr uint32_t kSelect = kAbove ? 0x0051 : 0x0040;
  const uint32_t low = __byte_perm(static_cast<uint32_t>(a), static_cast<uint32_t>(b), kSelect);
  const uint32_t high = __byte_perm(static_cast<uint32_t>(c), static_cast<uint32_t>(d), kSelect);
  return __byte_perm(low, high, 0x5410);
}

// Integers of 16 bits are most / kByteMost. Without a division's branch: this is what long rows wait for.
constexpr float kByteMost = 32512.0f;
__device__ __forceinline__ float byte_inverse(float most) {
  float inverse;  // of a number whose inverse is normal whatever `most` is
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(inverse) : "f"(most * 0x1p-16f));
  return inverse * (kByteMost * 0x1p-16f);
}
// 1.5 * 2^23 added leaves round(v) in the low bits, without the slow conversion.
constexpr float kRounder = 12582912.0f;
constexpr int kRounderBits = 0x4B400000;

// bits: of the group's largest magnitude, `most` as a number; what is not finite lies above all that is.
template <WeightFormat kFormat>
__device__ __forceinline__ void store_fact(const StreamPlan& plan, char* row, int group, uint32_t bits, float most,
                                           int sum) {
  const float scale = bits < 0x7F800000u ? most * (1.0f / kByteMost) : __uint_as_float(0x7FC00000u);
  reinterpret_cast<GroupFact*>(row + 2 * plan.column_bytes)[group] = {kNibbles<kFormat> ? scale * 0.0625f : scale,
                                                                      sum * 128};
}

// Eight neighbouring values of a token, at a multiple of 8; the 16 lanes that hold a group are together.
template <WeightFormat kFormat>
__device__ __forceinline__ void store_kept_bytes(const StreamPlan& plan, char* row, int at, const float (&v)[8]) {
  uint32_t bits = 0;  // of the largest magnitude; what is not finite lies above all that is
#pragma unroll
  for (int i = 0; i < 8; ++i) bits = max(bits, __float_as_uint(fabsf(v[i])));
#pragma unroll
  for (int step = 8; step > 0; step /= 2) bits = max(bits, __shfl_xor_sync(~0u, bits, step));
  const float most = fmaxf(__uint_as_float(bits), 1e-30f);  // its scales stay normal
  const float inverse = byte_inverse(most);
  int low[8], high[8], sum = 0;
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    low[i] = __float_as_int(__fmaf_rn(v[i], inverse, kRounder));
    sum += low[i] - kRounderBits;
    high[i] = low[i] + 128;  // its second byte; low's first is what is left
  }
#pragma unroll
  for (int step = 8; step > 0; step /= 2) sum += __shfl_xor_sync(~0u, sum, step);
  const auto store = [&]<bool kAbove>(char* column, const int(&values)[8]) {
    if constexpr (kNibbles<kFormat>) {  // by quantize_weight.h: 8 t + i of each 32, j of four
      char* to = column + at / 128 * 128 + at % 32 * 4 + at % 128 / 32 * 4;
      *reinterpret_cast<uint32_t*>(to) = join_bytes<kAbove>(values[0], values[4], values[1], values[5]);
      *reinterpret_cast<uint32_t*>(to + 16) = join_bytes<kAbove>(values[2], values[6], values[3], values[7]);
    } else {
      *reinterpret_cast<uint2*>(column + at) =
          make_uint2(join_bytes<kAbove>(values[0], values[1], values[2], values[3]),
                     join_bytes<kAbove>(values[4], values[5], values[6], values[7]));
    }
  };
  store.template operator()<true>(row, high);
  store.template operator()<false>(row + plan.column_bytes, low);
  if (threadIdx.x % 16 == 0) store_fact<kFormat>(plan, row, at / 128, bits, most, sum);
}

// A group of 128 by four neighbouring lanes, 32 values of bf16 each: lane q of four has the pieces of eight values
// eight_piece(q, 0 .. 3). The same bits as store_kept_bytes.
template <WeightFormat kFormat>
__device__ __forceinline__ int eight_piece(int q, int j) {
  return kNibbles<kFormat> ? q + 4 * j : j / 2 * 8 + 2 * q + j % 2;
}
// A group of 128 bf16 by four neighbouring lanes, 32 each: their pairs as words; answers the largest magnitude of the
// group, as the bits of a float.
__device__ __forceinline__ uint32_t words_of_group(const uint4 (&pieces)[4], uint32_t (&words)[16]) {
#pragma unroll
  for (int j = 0; j < 4; ++j) {
    words[4 * j] = pieces[j].x, words[4 * j + 1] = pieces[j].y;
    words[4 * j + 2] = pieces[j].z, words[4 * j + 3] = pieces[j].w;
  }
  constexpr uint32_t kMagnitudes = 0x7FFF7FFFu;
  uint32_t pair = 0;
#pragma unroll
  for (int i = 0; i < 16; i += 2) pair = __vimax3_u16x2(pair, words[i] & kMagnitudes, words[i + 1] & kMagnitudes);
  uint32_t bits = max(pair << 16, pair & 0xFFFF0000u);
#pragma unroll
  for (int step = 1; step < 4; step *= 2) bits = max(bits, __shfl_xor_sync(~0u, bits, step));
  return bits;
}
template <WeightFormat kFormat>
__device__ __forceinline__ void store_group_bytes(const StreamPlan& plan, char* row, int group,
                                                  const uint4 (&pieces)[4]) {
  uint32_t words[16];
  const uint32_t bits = words_of_group(pieces, words);
  const float most = fmaxf(__uint_as_float(bits), 1e-30f), inverse = byte_inverse(most);
  uint32_t low[8], high[8];  // words of four bytes
  int sum = 0;
#pragma unroll
  for (int j = 0; j < 4; ++j) {
    int all[8], above[8];
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      const uint32_t word = words[4 * j + i / 2];
      const float v = __uint_as_float(i % 2 == 0 ? word << 16 : word & 0xFFFF0000u);
      all[i] = __float_as_int(__fmaf_rn(v, inverse, kRounder));
      above[i] = __float_as_int(__fmaf_rn(v, inverse, kRounder + 128.0f));
      sum += all[i];
    }
    constexpr int kSecond = kNibbles<kFormat> ? 4 : 1, kThird = kNibbles<kFormat> ? 1 : 2,
                  kFourth = kNibbles<kFormat> ? 5 : 3, kOther = kNibbles<kFormat> ? 2 : 4;
    // Words in the order in which they lie: each piece's two lie 16 bytes apart, or side by side.
    const int first = kNibbles<kFormat> ? j : 2 * j, second = kNibbles<kFormat> ? 4 + j : 2 * j + 1;
    low[first] = join_bytes<false>(all[0], all[kSecond], all[kThird], all[kFourth]);
    low[second] = join_bytes<false>(all[kOther], all[kOther + kSecond], all[kOther + kThird], all[kOther + kFourth]);
    high[first] = join_bytes<true>(above[0], above[kSecond], above[kThird], above[kFourth]);
    high[second] =
        join_bytes<true>(above[kOther], above[kOther + kSecond], above[kOther + kThird], above[kOther + kFourth]);
  }
  sum -= static_cast<int>(32u * kRounderBits);
#pragma unroll
  for (int step = 1; step < 4; step *= 2) sum += __shfl_xor_sync(~0u, sum, step);
  const int q = static_cast<int>(threadIdx.x) % 4;
  char* const to = row + group * 128 + q * (kNibbles<kFormat> ? 32 : 16);
  constexpr int kApart = kNibbles<kFormat> ? 16 : 64;
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    *reinterpret_cast<uint4*>(to + i * kApart) =
        make_uint4(high[4 * i], high[4 * i + 1], high[4 * i + 2], high[4 * i + 3]);
    *reinterpret_cast<uint4*>(to + plan.column_bytes + i * kApart) =
        make_uint4(low[4 * i], low[4 * i + 1], low[4 * i + 2], low[4 * i + 3]);
  }
  if (q == 0) store_fact<kFormat>(plan, row, group, bits, most, sum);
}

}  // namespace spillway::kernels::cuda
