// The CPU's bf16 dot instruction and what it needs: x rounded to bf16, f8 widened to bf16.

#if defined(__AVX512BF16__)

SW_INLINE __m512 dot_bf16(__m512 acc, __m512i a, __m512i b) { return _mm512_dpbf16_ps(acc, (__m512bh)a, (__m512bh)b); }

// As RowProduct wants x. The instruction flushes denormals, as the products do.
void pack_rows_bf16(const float* const* rows, int count, int64_t k, const float* by, uint16_t* out) {
  const int64_t padded = (k + 63) / 64 * 64;
  for (int r = 0; r < count; ++r) {
    const float* x = rows[r];
    uint16_t* to = out + r * kRowStep;
    for (int64_t i = 0; i < padded; i += kRowStep, to += count * kRowStep) {
      const int64_t left = k - i;
      const uint32_t mask = left >= 32 ? ~0u : left <= 0 ? 0u : (1u << left) - 1;
      __m512 low = _mm512_maskz_loadu_ps((__mmask16)mask, x + i);
      __m512 high = _mm512_maskz_loadu_ps((__mmask16)(mask >> 16), x + i + 16);
      if (by != nullptr) {
        low = _mm512_mul_ps(low, _mm512_loadu_ps(by + i));
        high = _mm512_mul_ps(high, _mm512_loadu_ps(by + i + 16));
      }
      _mm512_storeu_si512(to, (__m512i)_mm512_cvtne2ps_pbh(high, low));
    }
  }
}

// Elements [i, i + 32) of a row as 16 pairs, zeros past k. The instruction flushes denormals, as the products do.
SW_INLINE __m512i load_pairs(const float* row, int64_t i, int64_t k) {
  if (i + 32 <= k) return (__m512i)_mm512_cvtne2ps_pbh(_mm512_loadu_ps(row + i + 16), _mm512_loadu_ps(row + i));
  const uint32_t mask = (uint32_t)(((uint64_t)1 << (k - i)) - 1);
  return (__m512i)_mm512_cvtne2ps_pbh(_mm512_maskz_loadu_ps((__mmask16)(mask >> 16), row + i + 16),
                                      _mm512_maskz_loadu_ps((__mmask16)mask, row + i));
}

// The first `count` rows rounded to bf16, side by side: [padded k / 2][count][2].
void pack_pairs(const float* const* rows, int count, int64_t k, uint32_t* out) {
  const int64_t pairs = (k + 3) / 4 * 2;
  const __mmask16 lanes = (__mmask16)((1 << count) - 1);
  for (int64_t p = 0; p < pairs; p += 16, out += 16 * count) {
    const int wide = pairs - p < 16 ? (int)(pairs - p) : 16;
    if (count == 1) {
      _mm512_mask_storeu_epi32(out, (__mmask16)((1 << wide) - 1), load_pairs(rows[0], 2 * p, k));
      continue;
    }
    __m512i r[16];
#pragma GCC unroll 16
    for (int i = 0; i < 16; ++i) r[i] = i < count ? load_pairs(rows[i], 2 * p, k) : _mm512_setzero_si512();
    transpose_words(r);
    if (wide == 16) {
#pragma GCC unroll 16
      for (int i = 0; i < 16; ++i) _mm512_mask_storeu_epi32(out + i * count, lanes, r[i]);
    } else {
      for (int i = 0; i < wide; ++i) _mm512_mask_storeu_epi32(out + i * count, lanes, r[i]);
    }
  }
}

// f8 magnitudes to bf16: the two bytes of each come from tables of 128 in registers.
struct F8Tables {
  __m512i high0, high1, low0, low1;
};

struct F8Bytes {
  alignas(64) uint8_t high[128];
  alignas(64) uint8_t low[128];
};
constexpr F8Bytes make_f8_bytes() {
  constexpr int kSubnormals[8] = {0, 0x3b00, 0x3b80, 0x3bc0, 0x3c00, 0x3c20, 0x3c40, 0x3c60};  // i / 512 as bf16
  F8Bytes bytes{};
  for (int i = 0; i < 128; ++i) {
    const int bf16 = i < 8 ? kSubnormals[i] : (i << 4) + (120 << 7);
    bytes.high[i] = (uint8_t)(bf16 >> 8);
    bytes.low[i] = (uint8_t)bf16;
  }
  return bytes;
}
constexpr F8Bytes kF8Bytes = make_f8_bytes();

SW_INLINE F8Tables f8_tables() {
  return {_mm512_load_si512(kF8Bytes.high), _mm512_load_si512(kF8Bytes.high + 64), _mm512_load_si512(kF8Bytes.low),
          _mm512_load_si512(kF8Bytes.low + 64)};
}

// 64 f8 in order to two registers of bf16 in order.
SW_INLINE void widen_f8_step(const F8Tables& tables, const char* w, __m512i& w0, __m512i& w1) {
  const __m512i order = _mm512_setr_epi64(0, 4, 1, 5, 2, 6, 3, 7);
  const __m512i bytes = _mm512_permutexvar_epi64(order, _mm512_loadu_si512(w));
  const __m512i low = _mm512_permutex2var_epi8(tables.low0, bytes, tables.low1);
  __m512i high = _mm512_permutex2var_epi8(tables.high0, bytes, tables.high1);
  high = _mm512_ternarylogic_epi32(high, bytes, _mm512_set1_epi8((char)0x80), 0xf8);  // high | (bytes & 0x80)
  w0 = _mm512_unpacklo_epi8(low, high);
  w1 = _mm512_unpackhi_epi8(low, high);
}

#endif
