// W8A8: a group of a row of x as signed bytes by its largest value, weights as bytes with 128 added. Sums of a group
// are exact in int32, so every instruction set gives the same bits up to the last multiply-add.

float quantize_bytes(const float* x, int64_t count, int8_t* out, int32_t* sum128) {
  V most = {};
  for_each_vector(count, [&](int64_t i, int lanes) {
    const V v = load_some(x + i, lanes);
    most = vmax(most, vmax(v, -v));
  });
  const float limit = largest(most);
  const float inverse = limit > 0 ? 127.0f / limit : 0.0f;
  typedef int8_t Bytes __attribute__((vector_size(kLanes)));
  VI total = {};
  for_each_vector(count, [&](int64_t i, int lanes) {
    const V shifted = load_some(x + i, lanes) * inverse + 12582912.0f;  // rounds to nearest even in the low bits
    const VI q = (VI)shifted - 0x4b400000;
    total += q;
    const Bytes bytes = __builtin_convertvector(q, Bytes);
    if (lanes == kLanes) {
      __builtin_memcpy(out + i, &bytes, sizeof(bytes));
    } else {
      for (int j = 0; j < lanes; ++j) out[i + j] = bytes[j];
    }
  });
  for (int64_t i = count; i % 4 != 0; ++i) out[i] = 0;
  int32_t all = 0;
#if defined(__AVX512F__)
  all = _mm512_reduce_add_epi32((__m512i)total);
#else
  for (int i = 0; i < kLanes; ++i) all += total[i];
#endif
  *sum128 = 128 * all;
  return limit / 127.0f;
}

#if defined(__AVX512VNNI__)

template <int R>
void tile_bytes_rows(const Tile& t) {
  const auto* x = (const int32_t*)t.x;
  const auto* w = (const uint8_t*)t.w;
  VI s0[R], s1[R];
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r) s0[r] = s1[r] = VI{} - t.x_sum[r];
  for (int64_t i = 0; i < t.k; i += 4, w += 4 * kPanel, x += R) {
    const __m512i w0 = _mm512_loadu_si512(w);
    const __m512i w1 = _mm512_loadu_si512(w + 64);
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
      const __m512i b = _mm512_set1_epi32(x[r]);
      s0[r] = dot_bytes(s0[r], w0, b);
      s1[r] = dot_bytes(s1[r], w1, b);
    }
  }
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r) {
    finish_int8(t, r, 0, s0[r]);
    finish_int8(t, r, kLanes, s1[r]);
  }
}

template <int R>
void tile_bytes_exactly(const Tile& t) {
  if (t.rows == R) {
    tile_bytes_rows<R>(t);
  } else if constexpr (R > 1) {
    tile_bytes_exactly<R - 1>(t);
  }
}
void tile_bytes(const Tile& t) { tile_bytes_exactly<kRowTile>(t); }

#else

// Without byte products: pairs of K in 16 bits where there is an instruction for that, and plain integers elsewhere.
void tile_bytes(const Tile& t) {
  const auto* x = (const int8_t*)t.x;
  const auto* w = (const uint8_t*)t.w;
  for (int row = 0; row < t.rows; ++row) {
    int32_t dot[kPanel] = {};
#if defined(__AVX2__)
    __m256i sums[kPanel / 4];  // each 64 bits: two partial sums of one output
    for (auto& s : sums) s = _mm256_setzero_si256();
    for (int64_t i = 0; i < t.k; i += 4) {
      int32_t four;
      __builtin_memcpy(&four, x + i * t.rows + 4 * row, 4);
      const __m256i b = _mm256_cvtepi8_epi16(_mm_set1_epi32(four));
#pragma GCC unroll 8
      for (int j = 0; j < kPanel / 4; ++j) {
        const __m256i wide = _mm256_cvtepu8_epi16(_mm_loadu_si128((const __m128i*)(w + i * kPanel + 16 * j)));
        sums[j] = _mm256_add_epi32(sums[j], _mm256_madd_epi16(wide, b));
      }
    }
    for (int j = 0; j < kPanel / 4; ++j) {
      int32_t parts[8];
      __builtin_memcpy(parts, &sums[j], sizeof(parts));
      for (int c = 0; c < 4; ++c) dot[4 * j + c] = parts[2 * c] + parts[2 * c + 1];
    }
#else
    for (int64_t i = 0; i < t.k; i += 4) {
      const int8_t* b = x + i * t.rows + 4 * row;
      for (int c = 0; c < kPanel; ++c) {
        for (int j = 0; j < 4; ++j) dot[c] += b[j] * (int32_t)w[i * kPanel + 4 * c + j];
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
