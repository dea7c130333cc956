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

SW_INLINE void fetch_lines(const LineCopy& t, int64_t at) {
  if (t.next == nullptr) return;
#pragma GCC unroll 32
  for (int r = 0; r < kPanel; ++r) __builtin_prefetch(t.next[r] + t.next_at + at, 0, 2);
}

// Goes over the lines of the copy, the first and last maybe partly: step(byte of the rows, mask of its bytes that
// count, first and end of the units that do, where the line's unit 0 would go). Lines start at `shift` bytes before the
// first.
template <int kUnit, class Step>
SW_INLINE void for_each_line(const LineCopy& t, Step step) {
  const int64_t shift = t.aligned ? (int64_t)((uintptr_t)(t.rows[0] + t.at) % 64) : 0;
  for (int64_t begin = -shift; begin < t.bytes; begin += 64) {
    fetch_lines(t, begin);
    const int low = begin < 0 ? (int)-begin : 0, high = t.bytes - begin < 64 ? (int)(t.bytes - begin) : 64;
    const uint64_t mask = (~0ull >> (64 - high)) & (~0ull << low);
    step(t.at + begin, (__mmask64)mask, low / kUnit, (high + kUnit - 1) / kUnit, t.out + begin * kPanel);
  }
}

// 4-byte units: [units][kPanel].
void copy_words(const LineCopy& t) {
  for_each_line<4>(t, [&](int64_t at, __mmask64 mask, int first, int end, char* out) {
    for (int half = 0; half < kPanel; half += 16) {
      __m512i r[16];
#pragma GCC unroll 16
      for (int i = 0; i < 16; ++i) r[i] = _mm512_maskz_loadu_epi8(mask, t.rows[half + i] + at);
      transpose_words(r);
#pragma GCC unroll 16
      for (int i = 0; i < 16; ++i) {
        if (i >= first && i < end) _mm512_storeu_si512(out + (i * kPanel + half) * 4, r[i]);
      }
    }
  });
}

// Four rows' 2-byte units, those of one pair of K together: 128 bits of q[j] hold pairs 2 j and 2 j + 1 of their eight.
SW_INLINE void interleave_four(const char* const* rows, int64_t at, __mmask64 mask, __m512i* q) {
  const __m512i a = _mm512_maskz_loadu_epi8(mask, rows[0] + at), b = _mm512_maskz_loadu_epi8(mask, rows[1] + at);
  const __m512i c = _mm512_maskz_loadu_epi8(mask, rows[2] + at), d = _mm512_maskz_loadu_epi8(mask, rows[3] + at);
  const __m512i ab0 = _mm512_unpacklo_epi16(a, b), ab1 = _mm512_unpackhi_epi16(a, b);
  const __m512i cd0 = _mm512_unpacklo_epi16(c, d), cd1 = _mm512_unpackhi_epi16(c, d);
  q[0] = _mm512_unpacklo_epi32(ab0, cd0);
  q[1] = _mm512_unpackhi_epi32(ab0, cd0);
  q[2] = _mm512_unpacklo_epi32(ab1, cd1);
  q[3] = _mm512_unpackhi_epi32(ab1, cd1);
}

// 2-byte units in the order of f8_byte(): of each pair of K the 8 bytes of four rows from 0, 16, 4, 20, 8, 24, 12, 28.
void copy_pairs(const LineCopy& t) {
  for_each_line<2>(t, [&](int64_t at, __mmask64 mask, int first, int end, char* out) {
    __m512i fours[8][4];
#pragma GCC unroll 8
    for (int u = 0; u < 8; ++u) interleave_four(t.rows + 16 * (u % 2) + 4 * (u / 2), at, mask, fours[u]);
    const auto store_pair = [&](int pair, __m512i v) {
      if (pair >= first && pair < end) _mm512_storeu_si512(out + pair * 64, v);
    };
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) {
#pragma GCC unroll 2
      for (int odd = 0; odd < 2; ++odd) {
        __m512i r[4];  // [i]: fours 2 i and 2 i + 1 of pair 2 j + odd of each eight
#pragma GCC unroll 4
        for (int i = 0; i < 4; ++i) {
          r[i] = odd ? _mm512_unpackhi_epi64(fours[2 * i][j], fours[2 * i + 1][j])
                     : _mm512_unpacklo_epi64(fours[2 * i][j], fours[2 * i + 1][j]);
        }
        const __m512i low0 = _mm512_shuffle_i64x2(r[0], r[1], 0x44), low1 = _mm512_shuffle_i64x2(r[2], r[3], 0x44);
        const __m512i high0 = _mm512_shuffle_i64x2(r[0], r[1], 0xee), high1 = _mm512_shuffle_i64x2(r[2], r[3], 0xee);
        store_pair(2 * j + odd, _mm512_shuffle_i64x2(low0, low1, 0x88));
        store_pair(2 * j + odd + 8, _mm512_shuffle_i64x2(low0, low1, 0xdd));
        store_pair(2 * j + odd + 16, _mm512_shuffle_i64x2(high0, high1, 0x88));
        store_pair(2 * j + odd + 24, _mm512_shuffle_i64x2(high0, high1, 0xdd));
      }
    }
  });
}

#endif
