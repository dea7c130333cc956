// Rows of x against rows of weights. Each sum is one chain for each lane of K, whatever the number of rows and columns
// at a time; the lanes are then added in one order.

SW_INLINE V f8_to_float(VU byte) { return from_bits(((byte & 0x80) << 24) | ((byte & 0x7f) << 20)) * 0x1p120f; }

SW_INLINE V load_f8(const char* p) {
  typedef uint8_t Bytes __attribute__((vector_size(kLanes)));
  Bytes bytes;
  __builtin_memcpy(&bytes, p, sizeof(bytes));
  // The exponent keeps its bits; the difference of the biases, 120, is multiplied back (exact for subnormals too).
  return f8_to_float(__builtin_convertvector(bytes, VU));
}

void widen_row_f8(const uint8_t* x, int64_t count, float* out) {
  for_each_vector(count, [&](int64_t i, int lanes) {
    char bytes[kLanes] = {};
    __builtin_memcpy(bytes, x + i, (uint64_t)lanes);
    store_some(out + i, load_f8(bytes), lanes);
  });
}

// Sums over the lanes. In each 128 bits: pairs() adds lanes 0 and 2, 1 and 3; quads() those; fold() the 128 bits.
SW_INLINE V pairs(V a, V b) {
#if defined(__AVX512F__)
  return (V)_mm512_unpacklo_ps((__m512)a, (__m512)b) + (V)_mm512_unpackhi_ps((__m512)a, (__m512)b);
#elif defined(__AVX2__)
  return (V)_mm256_unpacklo_ps((__m256)a, (__m256)b) + (V)_mm256_unpackhi_ps((__m256)a, (__m256)b);
#else
  return __builtin_shuffle(a, b, VI{0, 4, 1, 5}) + __builtin_shuffle(a, b, VI{2, 6, 3, 7});
#endif
}
SW_INLINE V quads(V ab, V cd) {
#if defined(__AVX512F__)
  return (V)_mm512_unpacklo_pd((__m512d)ab, (__m512d)cd) + (V)_mm512_unpackhi_pd((__m512d)ab, (__m512d)cd);
#elif defined(__AVX2__)
  return (V)_mm256_unpacklo_pd((__m256d)ab, (__m256d)cd) + (V)_mm256_unpackhi_pd((__m256d)ab, (__m256d)cd);
#else
  return __builtin_shuffle(ab, cd, VI{0, 1, 4, 5}) + __builtin_shuffle(ab, cd, VI{2, 3, 6, 7});
#endif
}

typedef float Four __attribute__((vector_size(16)));

// Of two rows' quads, the sums of four columns each.
SW_INLINE void fold(V first, V second, Four* out) {
#if defined(__AVX512F__)
  const auto halves = [](V a, V b) {
    return (V)_mm512_shuffle_f32x4((__m512)a, (__m512)b, 0x88) + (V)_mm512_shuffle_f32x4((__m512)a, (__m512)b, 0xdd);
  };
  const V both = halves(first, second), sums = halves(both, both);
  out[0] = (Four)_mm512_castps512_ps128((__m512)sums);
  out[1] = (Four)_mm512_extractf32x4_ps((__m512)sums, 1);
#elif defined(__AVX2__)
  out[0] = (Four)(_mm256_castps256_ps128((__m256)first) + _mm256_extractf128_ps((__m256)first, 1));
  out[1] = (Four)(_mm256_castps256_ps128((__m256)second) + _mm256_extractf128_ps((__m256)second, 1));
#else
  out[0] = first;
  out[1] = second;
#endif
}

template <int R, int C>
SW_INLINE void add_lanes(const V (&s)[R][C], float* sums) {
#pragma GCC unroll 2
  for (int c = 0; c < C; c += 4) {
#pragma GCC unroll 3
    for (int r = 0; r < R; r += 2) {
      const int next = r + 1 < R ? r + 1 : r;
      Four out[2];
      if constexpr (C == 1) {
        const V a = pairs(s[r][0], s[r][0]), b = pairs(s[next][0], s[next][0]);
        fold(quads(a, a), quads(b, b), out);
        sums[r * kPanel] = out[0][0];
        sums[next * kPanel] = out[1][0];
      } else {
        fold(quads(pairs(s[r][c], s[r][c + 1]), pairs(s[r][c + 2], s[r][c + 3])),
             quads(pairs(s[next][c], s[next][c + 1]), pairs(s[next][c + 2], s[next][c + 3])), out);
        __builtin_memcpy(sums + r * kPanel + c, &out[0], sizeof(Four));
        __builtin_memcpy(sums + next * kPanel + c, &out[1], sizeof(Four));
      }
    }
  }
}

// Each kind of product: kStep elements of K at a time, in kRows rows of x at most; multiply() adds one step.

// float32 x, weights widened on the way.
template <class Load, int kBytes>
struct FloatRows {
  typedef float Input;
  static constexpr int kStep = kRowStep, kElement = kBytes, kRows = kLanes == 16 ? 6 : 3;
  static constexpr int kWideRows = kLanes == 16 ? 2 : 1;  // up to so many rows go over eight columns at once
  struct Tables {};
  static SW_INLINE Tables tables() { return {}; }

  template <int R, int C>
  static SW_INLINE void multiply(const Tables&, V (&s)[R][C], const float* x, int, const char* w, int64_t w_row) {
#pragma GCC unroll 8
    for (int v = 0; v < kRowStep; v += kLanes) {
      V rows[R];
#pragma GCC unroll 6
      for (int r = 0; r < R; ++r) rows[r] = load(x + r * kRowStep + v);
#pragma GCC unroll 8
      for (int c = 0; c < C; ++c) {
        const V weight = Load::load(w + c * w_row + v * kBytes);
#pragma GCC unroll 6
        for (int r = 0; r < R; ++r) s[r][c] = fma(rows[r], weight, s[r][c]);
      }
    }
  }
  static void gather(const char* w, void* out) {
    for (int v = 0; v < kRowStep; v += kLanes) store((float*)out + v, Load::load(w + v * kBytes));
  }
  static constexpr int kGathered = 4;  // bytes of an element
};

struct LoadF32 {
  static SW_INLINE V load(const char* p) {
    V v;
    __builtin_memcpy(&v, p, sizeof(v));
    return v;
  }
};
struct LoadF16 {
  static SW_INLINE V load(const char* p) { return load_f16((const uint16_t*)p); }
};
struct LoadBf16 {
  static SW_INLINE V load(const char* p) {
    VH half;
    __builtin_memcpy(&half, p, sizeof(half));
    return from_bits(__builtin_convertvector(half, VU) << 16);
  }
};
struct LoadF8 {
  static SW_INLINE V load(const char* p) { return load_f8(p); }
};
typedef FloatRows<LoadF32, 4> F32Rows;
typedef FloatRows<LoadF16, 2> F16Rows;
typedef FloatRows<LoadBf16, 2> Bf16Rows;
typedef FloatRows<LoadF8, 1> F8Rows;

#if defined(__AVX512BF16__)
struct DotRows {
  typedef uint16_t Input;
  static constexpr int kStep = kRowStep, kElement = 2, kRows = 6, kWideRows = 2, kGathered = 2;
  struct Tables {};
  static SW_INLINE Tables tables() { return {}; }

  template <int R, int C>
  static SW_INLINE void multiply(const Tables&, V (&s)[R][C], const uint16_t* x, int, const char* w, int64_t w_row) {
    __m512i rows[R];
#pragma GCC unroll 6
    for (int r = 0; r < R; ++r) rows[r] = _mm512_loadu_si512(x + r * kRowStep);
#pragma GCC unroll 8
    for (int c = 0; c < C; ++c) {
      const __m512i weight = _mm512_loadu_si512(w + c * w_row);
#pragma GCC unroll 6
      for (int r = 0; r < R; ++r) s[r][c] = (V)dot_bf16((__m512)s[r][c], rows[r], weight);
    }
  }
  static void gather(const char* w, void* out) { _mm512_storeu_si512(out, _mm512_loadu_si512(w)); }
};

struct DotF8Rows {
  typedef uint16_t Input;
  static constexpr int kStep = 2 * kRowStep, kElement = 1, kRows = 4, kWideRows = 1, kGathered = 2;
  typedef F8Tables Tables;
  static SW_INLINE Tables tables() { return f8_tables(); }

  template <int R, int C>
  static SW_INLINE void multiply(const Tables& tables, V (&s)[R][C], const uint16_t* x, int rows, const char* w,
                                 int64_t w_row) {
#pragma GCC unroll 8
    for (int c = 0; c < C; ++c) {
      __m512i w0, w1;
      widen_f8_step(tables, w + c * w_row, w0, w1);
#pragma GCC unroll 6
      for (int r = 0; r < R; ++r) {
        s[r][c] = (V)dot_bf16((__m512)s[r][c], _mm512_loadu_si512(x + r * kRowStep), w0);
        s[r][c] = (V)dot_bf16((__m512)s[r][c], _mm512_loadu_si512(x + (rows + r) * kRowStep), w1);
      }
    }
  }
  static void gather(const char* w, void* out) {
    const F8Tables bytes = tables();
    __m512i w0, w1;
    widen_f8_step(bytes, w, w0, w1);
    _mm512_storeu_si512(out, w0);
    _mm512_storeu_si512((char*)out + 4 * sizeof(w0), w1);
  }
};
#endif


// kLines: fetched a step.
template <class Rows, int R, int C, int kLines>
void multiply_block(const RowProduct& t, int row, const char* w, float* sums) {
  const auto tables = Rows::tables();
  V s[R][C];
#pragma GCC unroll 6
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 8
    for (int c = 0; c < C; ++c) s[r][c] = V{};
  }
  const auto* x = (const typename Rows::Input*)t.x + row * kRowStep;
  const int64_t step = t.w_step * (Rows::kStep / kRowStep), x_step = (int64_t)Rows::kStep * t.rows;
  const char* at = kLines > 0 ? t.fetch->at : nullptr;
  const char* const end = kLines > 0 ? t.fetch->end : nullptr;
  int64_t i = 0;
  for (; i + Rows::kStep <= t.k; i += Rows::kStep, x += x_step, w += step) {
    if constexpr (kLines > 0) {
#pragma GCC unroll 16
      for (int line = 0; line < kLines; ++line) __builtin_prefetch(at + 64 * line, 0, 2);
      at = at + 64 * kLines < end ? at + 64 * kLines : end;
    }
    Rows::multiply(tables, s, x, t.rows, w, t.w_row);
  }
  if (i < t.k) {
    constexpr int64_t kRowBytes = Rows::kStep * Rows::kElement;
    char rest[C * kRowBytes] = {};
    for (int c = 0; c < C; ++c)
      __builtin_memcpy(rest + c * kRowBytes, w + c * t.w_row, (uint64_t)((t.k - i) * Rows::kElement));
    Rows::multiply(tables, s, x, t.rows, rest, kRowBytes);
  }
  if constexpr (kLines > 0) t.fetch->at = at;
  add_lanes(s, sums + row * kPanel);
}

template <class Rows, int R, int C, int kLines>
void multiply_exactly(const RowProduct& t, int row, int rows, const char* w, float* sums) {
  if (rows == R) {
    multiply_block<Rows, R, C, kLines>(t, row, w, sums);
  } else if constexpr (R > 1) {
    multiply_exactly<Rows, R - 1, C, kLines>(t, row, rows, w, sums);
  }
}

template <class Rows, int R, int C>
void multiply_columns(const RowProduct& t, const char* w, float* sums) {
  constexpr int kEven = C * Rows::kStep * Rows::kElement / 64;
  for (int row = 0; row < t.rows; row += R) {
    const int rows = t.rows - row < R ? t.rows - row : R;
    if (C == 1 || row > 0 || t.fetch == nullptr || t.fetch->at == t.fetch->end) {
      multiply_exactly<Rows, R, C, 0>(t, row, rows, w, sums);
    } else if (t.fetch->even) {
      multiply_exactly<Rows, R, C, (C > 1) ? kEven : 0>(t, row, rows, w, sums);
    } else {
      multiply_exactly<Rows, R, C, (C == 4) ? 2 : 0>(t, row, rows, w, sums);
    }
  }
}

template <class Rows>
void multiply_rows(const RowProduct& t) {
  const char* w = t.w;
  int c = 0;
  if (t.one_by_one) {
    for (; c < t.columns; ++c, w += t.w_row) multiply_block<Rows, 1, 1, 0>(t, 0, w, t.sums + c);
    return;
  }
  if (t.rows <= Rows::kWideRows && t.w_four == 4 * t.w_row) {
    for (; c + 8 <= t.columns; c += 8, w += 2 * t.w_four) {
      multiply_columns<Rows, Rows::kWideRows, 8>(t, w, t.sums + c);
    }
  }
  for (; c + 4 <= t.columns; c += 4, w += t.w_four) multiply_columns<Rows, Rows::kRows, 4>(t, w, t.sums + c);
  for (; c < t.columns; ++c, w += t.w_row) multiply_columns<Rows, Rows::kRows, 1>(t, w, t.sums + c);
}

template <class Rows>
void gather_rows(const RowGather& t) {
  constexpr int64_t kStepBytes = kRowStep * Rows::kGathered, kFourBytes = 4 * kStepBytes;
  const int64_t steps = (t.k + kRowStep - 1) / kRowStep, whole = t.k / Rows::kStep * Rows::kStep;
  for (int c = 0; c < t.count; ++c) {
    const char* w = t.w + c * t.w_row;
    char* out = (char*)t.out + c / 4 * steps * kFourBytes + c % 4 * kStepBytes;
    int64_t i = 0;
    for (; i < whole; i += Rows::kStep) {
      Rows::gather(w + i * Rows::kElement, out + i / kRowStep * kFourBytes);
    }
    if (i == t.k) continue;
    char rest[Rows::kStep * Rows::kElement] = {};
    alignas(64) char widened[Rows::kStep / kRowStep * kFourBytes];
    __builtin_memcpy(rest, w + i * Rows::kElement, (uint64_t)((t.k - i) * Rows::kElement));
    Rows::gather(rest, widened);
    for (; i < t.k; i += kRowStep) {
      __builtin_memcpy(out + i / kRowStep * kFourBytes, widened + i % Rows::kStep / kRowStep * kFourBytes, kStepBytes);
    }
  }
}

template <class Rows>
SW_INLINE RowKernels row_kernels() {
  return {multiply_rows<Rows>, gather_rows<Rows>};
}

void pack_rows(const float* const* rows, int count, int64_t k, const float* by, bool round, float* out) {
  const int64_t padded = (k + 63) / 64 * 64;
  for (int r = 0; r < count; ++r) {
    const float* x = rows[r];
    for (int64_t i = 0; i < padded; i += kLanes) {
      V v = i + kLanes <= k ? load(x + i) : i < k ? load_some(x + i, (int)(k - i)) : V{};
      if (by != nullptr) v *= load(by + i);
      if (round) v = from_bits(bf16_bits(v) << 16);
      store(out + (i / kRowStep * count + r) * kRowStep + i % kRowStep, v);
    }
  }
}
