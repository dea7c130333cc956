// Rows of x and of weights turned into columns, in registers.

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

// The line of each of kRows rows that is `line` lines behind the first.
template <int kRows>
SW_INLINE void fetch_lines(const LineCopy& t, int64_t line) {
  if (t.next == nullptr) return;
#pragma GCC unroll 32
  for (int r = 0; r < kRows; ++r) __builtin_prefetch(t.next[r] + t.next_at + 64 * line, 0, 2);
}

// 4-byte units: [units][kPanel].
void copy_word_lines(const LineCopy& t) {
  for (int64_t line = 0; line < t.lines; ++line) {
    fetch_lines<kPanel>(t, line);
    char* out = t.out + line * 64 * kPanel;
    for (int half = 0; half < kPanel; half += 16) {
      __m512i r[16];
#pragma GCC unroll 16
      for (int i = 0; i < 16; ++i) r[i] = _mm512_loadu_si512(t.rows[half + i] + t.at + 64 * line);
      transpose_words(r);
#pragma GCC unroll 16
      for (int i = 0; i < 16; ++i) _mm512_storeu_si512(out + (i * kPanel + half) * 4, r[i]);
    }
  }
}

// Four rows' 2-byte units, those of one pair of K together: 128 bits of q[j] hold pairs 2 j and 2 j + 1 of their eight.
SW_INLINE void interleave_four(const char* const* rows, int64_t at, __m512i* q) {
  const __m512i a = _mm512_loadu_si512(rows[0] + at), b = _mm512_loadu_si512(rows[1] + at);
  const __m512i c = _mm512_loadu_si512(rows[2] + at), d = _mm512_loadu_si512(rows[3] + at);
  const __m512i ab0 = _mm512_unpacklo_epi16(a, b), ab1 = _mm512_unpackhi_epi16(a, b);
  const __m512i cd0 = _mm512_unpacklo_epi16(c, d), cd1 = _mm512_unpackhi_epi16(c, d);
  q[0] = _mm512_unpacklo_epi32(ab0, cd0);
  q[1] = _mm512_unpackhi_epi32(ab0, cd0);
  q[2] = _mm512_unpacklo_epi32(ab1, cd1);
  q[3] = _mm512_unpackhi_epi32(ab1, cd1);
}

// 2-byte units in the order of f8_byte(): of each pair of K the 8 bytes of four rows from 0, 16, 4, 20, 8, 24, 12, 28.
void copy_pair_lines(const LineCopy& t) {
  for (int64_t line = 0; line < t.lines; ++line) {
    fetch_lines<kPanel>(t, line);
    __m512i fours[8][4];
    for (int u = 0; u < 8; ++u) interleave_four(t.rows + 16 * (u % 2) + 4 * (u / 2), t.at + 64 * line, fours[u]);
    char* out = t.out + line * 64 * kPanel;
    for (int j = 0; j < 4; ++j) {
      // even[i], odd[i]: fours 2 i and 2 i + 1 of the pairs 2 j and 2 j + 1 of each eight
      __m512i even[4], odd[4];
#pragma GCC unroll 4
      for (int i = 0; i < 4; ++i) {
        even[i] = _mm512_unpacklo_epi64(fours[2 * i][j], fours[2 * i + 1][j]);
        odd[i] = _mm512_unpackhi_epi64(fours[2 * i][j], fours[2 * i + 1][j]);
      }
      const auto store_pairs = [&](const __m512i* r, int pair) {
        const __m512i low0 = _mm512_shuffle_i64x2(r[0], r[1], 0x44), low1 = _mm512_shuffle_i64x2(r[2], r[3], 0x44);
        const __m512i high0 = _mm512_shuffle_i64x2(r[0], r[1], 0xee), high1 = _mm512_shuffle_i64x2(r[2], r[3], 0xee);
        _mm512_storeu_si512(out + pair * 64, _mm512_shuffle_i64x2(low0, low1, 0x88));
        _mm512_storeu_si512(out + (pair + 8) * 64, _mm512_shuffle_i64x2(low0, low1, 0xdd));
        _mm512_storeu_si512(out + (pair + 16) * 64, _mm512_shuffle_i64x2(high0, high1, 0x88));
        _mm512_storeu_si512(out + (pair + 24) * 64, _mm512_shuffle_i64x2(high0, high1, 0xdd));
      };
      store_pairs(even, 2 * j);
      store_pairs(odd, 2 * j + 1);
    }
  }
}

#endif
