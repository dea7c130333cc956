// Register tiles of the bf16 product by the CPU's bf16 dot instruction: pairs of K, float32 sums.

#if defined(__AVX512BF16__)

SW_INLINE __m512 dot_bf16(__m512 acc, __m512i a, __m512i b) { return _mm512_dpbf16_ps(acc, (__m512bh)a, (__m512bh)b); }

template <int R>
void tile_bf16_rows(const int32_t* x, int stride, const uint16_t* w, int64_t k, float* acc, const float* scale) {
  __m512 s0[R], s1[R];
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r) {
    s0[r] = scale != nullptr ? _mm512_setzero_ps() : _mm512_loadu_ps(acc + r * kPanel);
    s1[r] = scale != nullptr ? _mm512_setzero_ps() : _mm512_loadu_ps(acc + r * kPanel + kLanes);
  }
  for (int64_t i = 0; i < k / 2; ++i) {
    const __m512i w0 = _mm512_loadu_si512(w + i * 2 * kPanel);
    const __m512i w1 = _mm512_loadu_si512(w + i * 2 * kPanel + kPanel);
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
      const __m512i b = _mm512_set1_epi32(x[i * stride + r]);
      s0[r] = dot_bf16(s0[r], w0, b);
      s1[r] = dot_bf16(s1[r], w1, b);
    }
  }
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r) {
    float* a = acc + r * kPanel;
    if (scale != nullptr) {
      s0[r] = _mm512_fmadd_ps(s0[r], _mm512_loadu_ps(scale), _mm512_loadu_ps(a));
      s1[r] = _mm512_fmadd_ps(s1[r], _mm512_loadu_ps(scale + kLanes), _mm512_loadu_ps(a + kLanes));
    }
    _mm512_storeu_ps(a, s0[r]);
    _mm512_storeu_ps(a + kLanes, s1[r]);
  }
}

template <int R>
void tile_bf16_exactly(const Tile& t) {
  if (t.rows == R) {
    tile_bf16_rows<R>((const int32_t*)t.x, t.rows, (const uint16_t*)t.w, t.k, t.acc, t.scale);
  } else if constexpr (R > 1) {
    tile_bf16_exactly<R - 1>(t);
  }
}
void tile_bf16(const Tile& t) { tile_bf16_exactly<kRowTile>(t); }

// f8 magnitudes to bf16: the two bytes of each come from tables of 128 in registers.
struct F8Tables {
  __m512i high0, high1, low0, low1;
};

SW_INLINE F8Tables f8_tables() {
  alignas(64) uint8_t high[128], low[128];
  for (int i = 0; i < 128; ++i) {
    const float value = i < 8 ? (float)i * 0x1p-9f : 0.0f;
    uint32_t bits;
    __builtin_memcpy(&bits, &value, 4);
    const uint32_t bf16 = i < 8 ? bits >> 16 : (uint32_t)((i << 4) + (120 << 7));
    high[i] = (uint8_t)(bf16 >> 8);
    low[i] = (uint8_t)bf16;
  }
  return {_mm512_load_si512(high), _mm512_load_si512(high + 64), _mm512_load_si512(low), _mm512_load_si512(low + 64)};
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

#endif
