// Register tiles of the bf16 product by the CPU's bf16 dot instruction: pairs of K, float32 sums.

#if defined(__AVX512BF16__)

SW_INLINE __m512 dot_bf16(__m512 acc, __m512i a, __m512i b) { return _mm512_dpbf16_ps(acc, (__m512bh)a, (__m512bh)b); }

template <int R>
SW_INLINE void keep_sums(const Tile& t, const V* s0, const V* s1) {
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r) {
    float* a = t.acc + r * t.acc_stride;
    store(a, t.scale != nullptr ? fma(s0[r], load(t.scale), sums_before(t, a)) : s0[r]);
    store(a + kLanes, t.scale != nullptr ? fma(s1[r], load(t.scale + kLanes), sums_before(t, a + kLanes)) : s1[r]);
  }
}

template <int R>
void tile_bf16_rows(const Tile& t) {
  const auto* x = (const int32_t*)t.x;
  const auto* w = (const uint16_t*)t.w;
  V s0[R], s1[R];
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r) {
    const float* a = t.acc + r * t.acc_stride;
    s0[r] = t.scale != nullptr ? V{} : sums_before(t, a);
    s1[r] = t.scale != nullptr ? V{} : sums_before(t, a + kLanes);
  }
  for (int64_t i = 0; i < t.k; i += 2, w += 2 * kPanel, x += R) {
    const __m512i w0 = _mm512_loadu_si512(w);
    const __m512i w1 = _mm512_loadu_si512(w + kPanel);
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
      const __m512i b = _mm512_set1_epi32(x[r]);
      s0[r] = (V)dot_bf16((__m512)s0[r], w0, b);
      s1[r] = (V)dot_bf16((__m512)s1[r], w1, b);
    }
  }
  keep_sums<R>(t, s0, s1);
}

template <int R>
void tile_bf16_exactly(const Tile& t) {
  if (t.rows == R) {
    tile_bf16_rows<R>(t);
  } else if constexpr (R > 1) {
    tile_bf16_exactly<R - 1>(t);
  }
}
void tile_bf16(const Tile& t) { tile_bf16_exactly<kRowTile>(t); }

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

// 64 bytes: one pair of K of a panel, to its two registers of bf16 pairs.
SW_INLINE void widen_f8_step(const F8Tables& tables, const uint8_t* w, __m512i& w0, __m512i& w1) {
  const __m512i bytes = _mm512_loadu_si512(w);
  const __m512i low = _mm512_permutex2var_epi8(tables.low0, bytes, tables.low1);
  __m512i high = _mm512_permutex2var_epi8(tables.high0, bytes, tables.high1);
  high = _mm512_ternarylogic_epi32(high, bytes, _mm512_set1_epi8((char)0x80), 0xf8);  // high | (bytes & 0x80)
  w0 = _mm512_unpacklo_epi8(low, high);
  w1 = _mm512_unpackhi_epi8(low, high);
}

void widen_f8_to_bf16(const uint8_t* w, int64_t k, uint16_t* out) {
  const F8Tables tables = f8_tables();
  for (int64_t i = 0; i < k / 2; ++i) {
    __m512i w0, w1;
    widen_f8_step(tables, w + i * 2 * kPanel, w0, w1);
    _mm512_storeu_si512(out + i * 2 * kPanel, w0);
    _mm512_storeu_si512(out + i * 2 * kPanel + kPanel, w1);
  }
}

// The product read straight from the f8 panel: for few rows, where widening to memory first would cost more than it
// saves. The sums run in the same order as tile_bf16's.
template <int R>
void tile_f8_rows(const Tile& t) {
  const F8Tables tables = f8_tables();
  const auto* x = (const int32_t*)t.x;
  const auto* w = (const uint8_t*)t.w;
  V s0[R], s1[R];
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r) {
    const float* a = t.acc + r * t.acc_stride;
    s0[r] = t.scale != nullptr ? V{} : sums_before(t, a);
    s1[r] = t.scale != nullptr ? V{} : sums_before(t, a + kLanes);
  }
  for (int64_t i = 0; i < t.k; i += 2, w += 2 * kPanel, x += R) {
    __m512i w0, w1;
    widen_f8_step(tables, w, w0, w1);
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
      const __m512i b = _mm512_set1_epi32(x[r]);
      s0[r] = (V)dot_bf16((__m512)s0[r], w0, b);
      s1[r] = (V)dot_bf16((__m512)s1[r], w1, b);
    }
  }
  keep_sums<R>(t, s0, s1);
}

constexpr int kF8RowsMax = 8;

template <int R>
void tile_f8_exactly(const Tile& t) {
  if (t.rows == R) {
    tile_f8_rows<R>(t);
  } else if constexpr (R > 1) {
    tile_f8_exactly<R - 1>(t);
  }
}
void tile_f8(const Tile& t) { tile_f8_exactly<kF8RowsMax>(t); }

#endif
