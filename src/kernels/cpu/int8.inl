// Weight-only int8: x is a 16-bit integer split in two signed bytes, x = 256 high + low, and the sums of a group of K
// are exact in int32, so every instruction set gives the same bits up to the last multiply-add.

float quantize_group(const float* x, int count, int8_t* low, int8_t* high, int32_t* sum128) {
  V most = {};
  for_each_vector(count, [&](int64_t i, int lanes) {
    const V v = load_some(x + i, lanes);
    most = vmax(most, vmax(v, -v));
  });
  const float limit = largest(most);
  const float scale = limit / 32512.0f;
  const float inverse = limit > 0 ? 32512.0f / limit : 0.0f;
  int32_t total = 0;
  for (int i = 0; i < count; ++i) {
    const float shifted = x[i] * inverse + 12582912.0f;  // rounds to nearest even in the low bits
    int32_t q;
    __builtin_memcpy(&q, &shifted, 4);
    q -= 0x4b400000;
    const int32_t h = (q + 128) >> 8;
    high[i] = (int8_t)h;
    low[i] = (int8_t)(q - h * 256);
    total += q;
  }
  *sum128 = 128 * total;
  return scale;
}

#if defined(__AVX512VNNI__)

// VI throughout: sums held as __m512i are spilled by GCC 12.
SW_INLINE VI dot_bytes(VI sum, __m512i w, __m512i x) { return (VI)_mm512_dpbusd_epi32((__m512i)sum, w, x); }

template <int R>
void tile_int8_rows(const Tile& t, int row) {
  const auto* x = (const int32_t*)t.x + 2 * row;
  const auto* w = (const uint8_t*)t.w;
  const int64_t stride = 2 * t.rows;
  VI low0[R], low1[R], high0[R], high1[R];
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r) {
    low0[r] = low1[r] = VI{} - t.x_sum[row + r];
    high0[r] = high1[r] = VI{};
  }
  for (int64_t i = 0; i < t.k; i += 4, w += 4 * kPanel, x += stride) {
    const __m512i w0 = _mm512_loadu_si512(w);
    const __m512i w1 = _mm512_loadu_si512(w + 64);
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
      const __m512i l = _mm512_set1_epi32(x[2 * r]);
      low0[r] = dot_bytes(low0[r], w0, l);
      low1[r] = dot_bytes(low1[r], w1, l);
      const __m512i h = _mm512_set1_epi32(x[2 * r + 1]);
      high0[r] = dot_bytes(high0[r], w0, h);
      high1[r] = dot_bytes(high1[r], w1, h);
    }
  }
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r) {
    finish_int8(t, row + r, 0, low0[r] + (high0[r] << 8));
    finish_int8(t, row + r, kLanes, low1[r] + (high1[r] << 8));
  }
}

template <int R>
void tile_int8_exactly(const Tile& t, int row, int rows) {
  if (rows == R) {
    tile_int8_rows<R>(t, row);
  } else if constexpr (R > 1) {
    tile_int8_exactly<R - 1>(t, row, rows);
  }
}

void tile_int8(const Tile& t) {
  constexpr int kRows = 6;
  const int first = t.rows <= kRows ? t.rows : (t.rows + 1) / 2;
  for (int row = 0; row < t.rows; row += first)
    tile_int8_exactly<kRows>(t, row, t.rows - row < first ? t.rows - row : first);
}

#else

// Without byte products: widen w to 16 bits and x to its 16-bit whole; pairs are summed by the multiplier.
void tile_int8(const Tile& t) {
  const auto* x = (const int8_t*)t.x;
  const auto* w = (const uint8_t*)t.w;
  for (int row = 0; row < t.rows; ++row) {
#if defined(__AVX2__)
    __m256i sums[kPanel / 4];  // each 64 bits: two partial sums of one output
    for (auto& s : sums) s = _mm256_setzero_si256();
    for (int64_t i = 0; i < t.k; i += 4) {
      const int8_t* b = x + i / 4 * 8 * t.rows + 8 * row;
      const uint64_t q = (uint64_t)(uint16_t)(b[4] * 256 + b[0]) | (uint64_t)(uint16_t)(b[5] * 256 + b[1]) << 16 |
                         (uint64_t)(uint16_t)(b[6] * 256 + b[2]) << 32 | (uint64_t)(uint16_t)(b[7] * 256 + b[3]) << 48;
      const __m256i q4 = _mm256_set1_epi64x((long long)q);
#pragma GCC unroll 8
      for (int j = 0; j < kPanel / 4; ++j) {
        const __m256i wide = _mm256_cvtepu8_epi16(_mm_loadu_si128((const __m128i*)(w + i * kPanel + 16 * j)));
        sums[j] = _mm256_add_epi32(sums[j], _mm256_madd_epi16(wide, q4));
      }
    }
    int32_t dot[kPanel];
    for (int j = 0; j < kPanel / 4; ++j) {
      int32_t parts[8];
      __builtin_memcpy(parts, &sums[j], sizeof(parts));
      for (int c = 0; c < 4; ++c) dot[4 * j + c] = parts[2 * c] + parts[2 * c + 1];
    }
#else
    int32_t dot[kPanel] = {};
    for (int64_t i = 0; i < t.k; i += 4) {
      const int8_t* b = x + i / 4 * 8 * t.rows + 8 * row;
      for (int c = 0; c < kPanel; ++c) {
        for (int j = 0; j < 4; ++j) dot[c] += (b[4 + j] * 256 + b[j]) * (int32_t)w[i * kPanel + 4 * c + j];
      }
    }
#endif
    for (int c = 0; c < kPanel; c += kLanes) {
      VI v;
      __builtin_memcpy(&v, dot + c, sizeof(v));
      finish_int8(t, row, c, v - t.x_sum[row]);
    }
  }
}

#endif

// One group of a row of weights to bytes (128 added); returns the scale.
float quantize_weights(const float* w, int64_t count, uint8_t* bytes) {
  V most = {};
  for_each_vector(count, [&](int64_t i, int lanes) {
    const V v = load_some(w + i, lanes);
    most = vmax(most, vmax(v, -v));
  });
  const float limit = largest(most);
  const float inverse = limit > 0 ? 127.0f / limit : 0.0f;
  typedef uint8_t Bytes __attribute__((vector_size(kLanes)));
  for_each_vector(count, [&](int64_t i, int lanes) {
    const V shifted = load_some(w + i, lanes) * inverse + 12582912.0f;  // rounds to nearest even in the low bits
    const Bytes quantized = __builtin_convertvector((VU)shifted - 0x4b400000 + 128, Bytes);
    for (int j = 0; j < lanes; ++j) bytes[i + j] = quantized[j];
  });
  return limit / 127.0f;
}
