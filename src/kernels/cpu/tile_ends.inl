// What tiles of integers end with, and how rows become pairs of bf16: shared by the vector units' and the tile unit's.

// dot: the sum of x * w; the bytes of w are 128 too large, which starting from -x_sum takes off again.
SW_INLINE void finish_int8(const Tile& t, int row, int c, VI dot) {
  float* a = t.acc + row * t.acc_stride + c;
  const V value = __builtin_convertvector(dot, V) * t.x_scale[row];
  store(a, fma(value, load(t.scale + c), sums_before(t, a)));
}

// The same of W8A8.
SW_INLINE void finish_bytes(const Tile& t, int row, int c, VI dot) {
  float* a = t.acc + row * t.acc_stride + c;
  const V whole = fma(splat(-t.x_zero[row]), load(t.scale + kPanel + c), __builtin_convertvector(dot, V));
  store(a, fma(whole * t.x_scale[row], load(t.scale + c), sums_before(t, a)));
}

#if defined(__AVX512BF16__)

// Elements [i, i + 32) of a row as 16 pairs, zeros past k. The instruction flushes denormals, as the products do.
SW_INLINE __m512i load_pairs(const float* row, int64_t i, int64_t k) {
  if (i + 32 <= k) return (__m512i)_mm512_cvtne2ps_pbh(_mm512_loadu_ps(row + i + 16), _mm512_loadu_ps(row + i));
  const uint32_t mask = (uint32_t)(((uint64_t)1 << (k - i)) - 1);
  return (__m512i)_mm512_cvtne2ps_pbh(_mm512_maskz_loadu_ps((__mmask16)(mask >> 16), row + i + 16),
                                      _mm512_maskz_loadu_ps((__mmask16)mask, row + i));
}

#endif
