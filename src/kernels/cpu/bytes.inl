// W8A8: a group of a row of x as signed bytes between its least and its largest value (0 among them, and exact),
// weights as bytes with 128 added. Sums of a group are exact in int32, and so is taking the zero off them in float32
// (below 2^24), so every instruction set gives the same bits up to the last multiply-add.

#if defined(__AVX512F__)

// A whole group in registers.
SW_INLINE QuantizedGroup quantize_whole_group(const float* x, const float* by, int8_t* out) {
  constexpr int kVectors = kInt8Group / kLanes;
  __m512 v[kVectors];
#pragma GCC unroll 8
  for (int i = 0; i < kVectors; ++i) {
    v[i] = _mm512_loadu_ps(x + i * kLanes);
    if (by != nullptr) v[i] = _mm512_mul_ps(v[i], _mm512_loadu_ps(by + i * kLanes));
  }
  __m512 low = _mm512_setzero_ps(), high = low;
#pragma GCC unroll 8
  for (int i = 0; i < kVectors; ++i) {
    low = _mm512_min_ps(low, v[i]);
    high = _mm512_max_ps(high, v[i]);
  }
  const float least = _mm512_reduce_min_ps(low), range = _mm512_reduce_max_ps(high) - least;
  const float inverse = range > 0 ? 255.0f / range : 0.0f;
  const float magic = 12582912.0f;
  const float shifted_zero = magic - least * inverse;
  const float zero = (shifted_zero - magic) - 128.0f;
  const __m512i offset = _mm512_set1_epi32((int32_t)zero);
  const __m512 factor = _mm512_set1_ps(inverse);
  __m512i total = _mm512_setzero_si512();
#pragma GCC unroll 8
  for (int i = 0; i < kVectors; ++i) {
    __m512i q = _mm512_add_epi32(_mm512_cvtps_epi32(_mm512_mul_ps(v[i], factor)), offset);
    q = _mm512_min_epi32(q, _mm512_set1_epi32(127));
    total = _mm512_add_epi32(total, q);
    _mm_storeu_si128((__m128i*)(out + i * kLanes), _mm512_cvtepi32_epi8(q));
  }
  return {range / 255.0f, zero, 128 * _mm512_reduce_add_epi32(total)};
}

#endif

SW_INLINE float smallest(V v) { return -largest(-v); }

QuantizedGroup quantize_bytes(const float* x, const float* by, int64_t count, int8_t* out) {
#if defined(__AVX512F__)
  if (count == kInt8Group) return quantize_whole_group(x, by, out);
#endif
  const auto read = [&](int64_t i, int lanes) {
    const V v = load_some(x + i, lanes);
    return by == nullptr ? v : v * load_some(by + i, lanes);
  };
  V low = {}, high = {};
  for_each_vector(count, [&](int64_t i, int lanes) {
    const V v = read(i, lanes);
    low = v < low ? v : low;
    high = vmax(v, high);
  });
  const float least = smallest(low), range = largest(high) - least;
  const float inverse = range > 0 ? 255.0f / range : 0.0f;
  const float magic = 12582912.0f;  // rounds to nearest even in the low bits
  const float shifted_zero = magic - least * inverse;
  const float zero = (shifted_zero - magic) - 128.0f;
  const VI offset = VI{} + (int32_t)zero - 0x4b400000;
  typedef int8_t Bytes __attribute__((vector_size(kLanes)));
  VI total = {};
  for_each_vector(count, [&](int64_t i, int lanes) {
    VI q = (VI)(read(i, lanes) * inverse + magic) + offset;
    q = q > 127 ? VI{} + 127 : q;
    if (lanes == kLanes) {
      total += q;
      const Bytes bytes = __builtin_convertvector(q, Bytes);
      __builtin_memcpy(out + i, &bytes, sizeof(bytes));
    } else {
      for (int j = 0; j < lanes; ++j) {
        total[j] += q[j];
        out[i + j] = (int8_t)q[j];
      }
    }
  });
  for (int64_t i = count; i % 4 != 0; ++i) out[i] = 0;
  int32_t all = 0;
#if defined(__AVX512F__)
  all = _mm512_reduce_add_epi32((__m512i)total);
#else
  for (int i = 0; i < kLanes; ++i) all += total[i];
#endif
  return {range / 255.0f, zero, 128 * all};
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
    finish_bytes(t, r, 0, s0[r]);
    finish_bytes(t, r, kLanes, s1[r]);
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
      finish_bytes(t, row, c, v - t.x_sum[row]);
    }
  }
}

#endif
