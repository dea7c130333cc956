// Rows of bf16 weights quantised on their way into an int8 panel: the bits of widen_row_bf16, quantize_weights and a
// transposition, in registers.

#if defined(__AVX512BW__)

SW_INLINE __m512 even_floats(__m512i pairs) { return _mm512_castsi512_ps(_mm512_slli_epi32(pairs, 16)); }
SW_INLINE __m512 odd_floats(__m512i pairs) {
  return _mm512_castsi512_ps(_mm512_and_si512(pairs, _mm512_set1_epi32((int)0xffff0000)));
}

// The largest magnitude of a group. As integers bf16 magnitudes have the order of their values.
SW_INLINE float largest_bf16(const char* group) {
  const __m512i magnitude = _mm512_set1_epi16(0x7fff);
  __m512i most = _mm512_setzero_si512();
#pragma GCC unroll 4
  for (int i = 0; i < 2 * kInt8Group; i += 64)
    most = _mm512_max_epu16(most, _mm512_and_si512(_mm512_loadu_si512(group + i), magnitude));
  most = _mm512_max_epu32(_mm512_slli_epi32(most, 16), _mm512_and_si512(most, _mm512_set1_epi32((int)0xffff0000)));
  return from_bits(VU{} + _mm512_reduce_max_epu32(most))[0];
}

// A group of one row to kInt8Group bytes.
SW_INLINE void quantize_bf16(const char* group, float inverse, uint8_t* bytes) {
  const __m512 factor = _mm512_set1_ps(inverse);
  const __m512i low = _mm512_set1_epi32(0xff);
#pragma GCC unroll 4
  for (int i = 0; i < 2 * kInt8Group; i += 64) {
    const __m512i pairs = _mm512_loadu_si512(group + i);
    const __m512i even = _mm512_cvtps_epi32(_mm512_mul_ps(even_floats(pairs), factor));
    const __m512i odd = _mm512_cvtps_epi32(_mm512_mul_ps(odd_floats(pairs), factor));
    const __m512i both = _mm512_ternarylogic_epi32(low, even, _mm512_slli_epi32(odd, 8), 0xca);  // low ? even : odd
    _mm256_storeu_si256((__m256i*)(bytes + i / 2),
                        _mm256_xor_si256(_mm512_cvtepi32_epi16(both), _mm256_set1_epi8((char)0x80)));
  }
}

void quantize_panel(const QuantizeTask& t) {
  constexpr int64_t kGroupBytes = 2 * kInt8Group;
  alignas(64) uint8_t bytes[16 * kInt8Group];
  alignas(64) float inverse[kPanel];
  for (int64_t g = 0; g < t.groups; ++g) {
    const int64_t at = t.at + g * kGroupBytes;
    for (int r = 0; r < kPanel; ++r) {
      inverse[r] = largest_bf16(t.rows[r] + at);
      if (t.next == nullptr) continue;
#pragma GCC unroll 4
      for (int64_t i = 0; i < kGroupBytes; i += 64)
        __builtin_prefetch(t.next[r] + t.next_at + g * kGroupBytes + i, 0, 2);
    }
    for (int r = 0; r < kPanel; r += kLanes) {
      const V limit = load(inverse + r);
      store(t.scales + g * kPanel + r, limit / 127.0f);
      store(inverse + r, limit > 0 ? 127.0f / limit : V{});
    }
    uint8_t* out = t.out + g * kInt8Group * kPanel;
    for (int half = 0; half < kPanel; half += 16) {
      for (int r = 0; r < 16; ++r) quantize_bf16(t.rows[half + r] + at, inverse[half + r], bytes + r * kInt8Group);
      for (int line = 0; line < kInt8Group; line += 64) {
        __m512i r[16];
#pragma GCC unroll 16
        for (int i = 0; i < 16; ++i) r[i] = _mm512_load_si512(bytes + i * kInt8Group + line);
        transpose_words(r);
#pragma GCC unroll 16
        for (int i = 0; i < 16; ++i) _mm512_storeu_si512(out + ((line / 4 + i) * kPanel + half) * 4, r[i]);
      }
    }
  }
}

#endif
