// Rows of 32-bit words turned into columns, in registers.

#if defined(__AVX512F__)

// 16 registers of 16 words, transposed.
SW_INLINE void transpose_words(__m512i* r) {
  __m512i t[16], u[16];
#pragma GCC unroll 8
  for (int i = 0; i < 16; i += 2) {
    t[i] = _mm512_unpacklo_epi32(r[i], r[i + 1]);
    t[i + 1] = _mm512_unpackhi_epi32(r[i], r[i + 1]);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 16; i += 4) {
    u[i] = _mm512_unpacklo_epi64(t[i], t[i + 2]);
    u[i + 1] = _mm512_unpackhi_epi64(t[i], t[i + 2]);
    u[i + 2] = _mm512_unpacklo_epi64(t[i + 1], t[i + 3]);
    u[i + 3] = _mm512_unpackhi_epi64(t[i + 1], t[i + 3]);
  }
#pragma GCC unroll 4
  for (int c = 0; c < 4; ++c) {
    const __m512i even0 = _mm512_shuffle_i32x4(u[c], u[4 + c], 0x88), odd0 = _mm512_shuffle_i32x4(u[c], u[4 + c], 0xdd);
    const __m512i even1 = _mm512_shuffle_i32x4(u[8 + c], u[12 + c], 0x88),
                  odd1 = _mm512_shuffle_i32x4(u[8 + c], u[12 + c], 0xdd);
    r[c] = _mm512_shuffle_i32x4(even0, even1, 0x88);
    r[4 + c] = _mm512_shuffle_i32x4(odd0, odd1, 0x88);
    r[8 + c] = _mm512_shuffle_i32x4(even0, even1, 0xdd);
    r[12 + c] = _mm512_shuffle_i32x4(odd0, odd1, 0xdd);
  }
}

// f32 rows as tile_f32 wants them: [padded k][count].
void pack_floats(const float* const* rows, int count, int64_t k, float* out) {
  const int64_t padded = (k + 3) / 4 * 4;
  const __mmask16 lanes = (__mmask16)((1 << count) - 1);
  for (int64_t i = 0; i < padded; i += 16, out += 16 * count) {
    const int wide = padded - i < 16 ? (int)(padded - i) : 16;
    const __mmask16 there = k - i < 16 ? (__mmask16)((1 << (k - i)) - 1) : (__mmask16)0xffff;
    __m512i r[16];
#pragma GCC unroll 16
    for (int j = 0; j < 16; ++j)
      r[j] = j < count ? _mm512_maskz_loadu_epi32(there, rows[j] + i) : _mm512_setzero_si512();
    transpose_words(r);
    if (wide == 16) {
#pragma GCC unroll 16
      for (int j = 0; j < 16; ++j) _mm512_mask_storeu_epi32(out + j * count, lanes, r[j]);
    } else {
      for (int j = 0; j < wide; ++j) _mm512_mask_storeu_epi32(out + j * count, lanes, r[j]);
    }
  }
}

#endif
