// Attention of one head over one whole sequence. Queries lie in the lanes, 32 at a time: scores are [keys][32], so that
// the softmax runs down the columns without crossing lanes, and its result is at once the second product's right side.
//   scores = K Q^T    tiles of kRowsF32 keys (bf16: 12)
//   out^T  = V^T P    tiles of as many dimensions

constexpr int kQueries = kPanel;

// out[r][c] = sum over i of x[i * x_step + r] * w[i][c]: r < R, c < 32.
template <int R>
SW_INLINE void lanes_f32(const float* x, int64_t x_step, const float* w, int64_t k, float* out) {
  for (int c = 0; c < kQueries; c += 2 * kLanes) {
    V s0[R] = {}, s1[R] = {};
    const float* b = x;
    for (int64_t i = 0; i < k; ++i, b += x_step) {
      const V w0 = load(w + i * kQueries + c), w1 = load(w + i * kQueries + c + kLanes);
#pragma GCC unroll 16
      for (int r = 0; r < R; ++r) {
        s0[r] = fma(splat(b[r]), w0, s0[r]);
        s1[r] = fma(splat(b[r]), w1, s1[r]);
      }
    }
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
      store(out + r * kQueries + c, s0[r]);
      store(out + r * kQueries + c + kLanes, s1[r]);
    }
  }
}

template <int R>
SW_INLINE void lanes_f32_exactly(int rows, const float* x, int64_t x_step, const float* w, int64_t k, float* out) {
  if (rows == R) {
    lanes_f32<R>(x, x_step, w, k, out);
  } else if constexpr (R > 1) {
    lanes_f32_exactly<R - 1>(rows, x, x_step, w, k, out);
  }
}
void lanes_f32_of(int rows, const float* x, int64_t x_step, const float* w, int64_t k, float* out) {
  lanes_f32_exactly<kRowsF32>(rows, x, x_step, w, k, out);
}

// Scores of keys outside the window become so low that their exponentials are 0. Lanes past the last query count as it.
void mask_window(const SequenceAttentionTask& t, int first_query, int first_key, int keys, float* scores) {
  for (int c = 0; c < kQueries; c += kLanes) {
    VI query = {};
    for (int i = 0; i < kLanes; ++i) {
      const int q = first_query + c + i;
      query[i] = q < t.tokens ? q : t.tokens - 1;
    }
    for (int j = 0; j < keys; ++j) {
      const VI apart = query - (first_key + j);
      const V score = load(scores + j * kQueries + c);
      store(scores + j * kQueries + c, apart <= t.window && apart >= -t.window ? score : splat(-1e30f));
    }
  }
}

SW_INLINE V column_limit(const float* scores, int keys, int c) {
  V m0 = splat(-3e38f), m1 = m0;
  int j = 0;
  for (; j + 2 <= keys; j += 2) {
    m0 = vmax(m0, load(scores + j * kQueries + c));
    m1 = vmax(m1, load(scores + (j + 1) * kQueries + c));
  }
  if (j < keys) m0 = vmax(m0, load(scores + j * kQueries + c));
  return vmax(m0, m1);
}

// scores to exponentials, in place; the sum of each column.
void softmax_f32(float* scores, int keys, float scale, float* sums) {
  for (int c = 0; c < kQueries; c += kLanes) {
    const V limit = column_limit(scores, keys, c);
    V total = {};
    for (int j = 0; j < keys; ++j) {
      float* s = scores + j * kQueries + c;
      const V e = exponential((load(s) - limit) * scale);
      store(s, e);
      total += e;
    }
    store(sums + c, total);
  }
}

// The out^T [dim][32] of a panel, divided by the sums, to its rows.
void store_outputs(const SequenceAttentionTask& t, int first_query, float* out, const float* sums) {
  const int queries = t.tokens - first_query < kQueries ? t.tokens - first_query : kQueries;
#if defined(__AVX512F__)
  for (int c = 0; c < queries; c += kLanes) {
    const V inverse = 1.0f / load(sums + c);
    const int rows = queries - c < kLanes ? queries - c : kLanes;
    for (int d = 0; d < t.dim; d += 16) {
      const int wide = t.dim - d < 16 ? t.dim - d : 16;
      __m512i r[16];
#pragma GCC unroll 16
      for (int i = 0; i < 16; ++i)
        r[i] = i < wide ? (__m512i)(load(out + (d + i) * kQueries + c) * inverse) : _mm512_setzero_si512();
      transpose_words(r);
      float* target = t.out + (first_query + c) * t.out_row + d;
      const __mmask16 lanes = (__mmask16)((1 << wide) - 1);
#pragma GCC unroll 16
      for (int q = 0; q < 16; ++q) {
        if (q < rows) _mm512_mask_storeu_epi32(target + q * t.out_row, lanes, r[q]);
      }
    }
  }
#else
  for (int c = 0; c < kQueries; c += kLanes) {
    const V inverse = 1.0f / load(sums + c);
    for (int d = 0; d < t.dim; ++d) store(out + d * kQueries + c, load(out + d * kQueries + c) * inverse);
  }
  for (int q = 0; q < queries; ++q) {
    float* row = t.out + (first_query + q) * t.out_row;
    for (int d = 0; d < t.dim; ++d) row[d] = out[d * kQueries + q];
  }
#endif
}

// Keys [first, first + rows) as [dim][rows].
void pack_keys(const SequenceAttentionTask& t, int first, int rows, float* packed) {
#if defined(__AVX512F__)
  if (t.dim % 4 == 0) {
    const float* row[kRowsF32];
    for (int r = 0; r < rows; ++r) row[r] = t.k + (first + r) * t.row;
    return pack_floats(row, rows, t.dim, packed);
  }
#endif
  for (int r = 0; r < rows; ++r) {
    const float* key = t.k + (first + r) * t.row;
    for (int d = 0; d < t.dim; ++d) packed[d * rows + r] = key[d];
  }
}

// Queries [first, first + 32) as [dim][32], 0 past the last.
void pack_queries(const SequenceAttentionTask& t, int first, float* packed) {
  const int count = t.tokens - first < kQueries ? t.tokens - first : kQueries;
#if defined(__AVX512F__)
  for (int c = 0; c < kQueries; c += 16) {
    for (int d = 0; d < t.dim; d += 16) {
      const int wide = t.dim - d < 16 ? t.dim - d : 16;
      const __mmask16 there = (__mmask16)((1 << wide) - 1);
      __m512i r[16];
#pragma GCC unroll 16
      for (int q = 0; q < 16; ++q) {
        r[q] =
            c + q < count ? _mm512_maskz_loadu_epi32(there, t.q + (first + c + q) * t.row + d) : _mm512_setzero_si512();
      }
      transpose_words(r);
#pragma GCC unroll 16
      for (int i = 0; i < 16; ++i) {
        if (i < wide) _mm512_storeu_si512(packed + (d + i) * kQueries + c, r[i]);
      }
    }
  }
#else
  for (int d = 0; d < t.dim; ++d) {
    for (int q = 0; q < count; ++q) packed[d * kQueries + q] = t.q[(first + q) * t.row + d];
    for (int q = count; q < kQueries; ++q) packed[d * kQueries + q] = 0;
  }
#endif
}

// Keys [begin, end) that the panel's queries may attend to, begin a multiple of `tile`.
struct KeyRange {
  int begin, end;
};
SW_INLINE KeyRange key_range(const SequenceAttentionTask& t, int first_query, int tile) {
  if (t.window == 0) return {0, t.tokens};
  const int low = first_query - t.window, high = first_query + kQueries + t.window;
  return {low <= 0 ? 0 : low / tile * tile, high < t.tokens ? high : t.tokens};
}

// Heights of tiles over `count`, as even as can be.
SW_INLINE int even_height(int count, int most) {
  const int tiles = (count + most - 1) / most;
  return (count + tiles - 1) / tiles;
}

void sequence_attention_f32(const SequenceAttentionTask& t) {
  const int tiles = (t.tokens + kRowsF32 - 1) / kRowsF32;
  float* keys = (float*)t.work;                               // [tiles][dim][rows of the tile]
  float* queries = keys + (int64_t)tiles * kRowsF32 * t.dim;  // [dim][32]
  float* out = queries + (int64_t)t.dim * kQueries;
  float* sums = out + (int64_t)t.dim * kQueries;
  float* scores = sums + kQueries;
  for (int tile = 0; tile < tiles; ++tile) {
    const int first = tile * kRowsF32;
    const int rows = t.tokens - first < kRowsF32 ? t.tokens - first : kRowsF32;
    pack_keys(t, first, rows, keys + (int64_t)first * t.dim);
  }
  const int height = even_height(t.dim, kRowsF32);
  for (int first = 0; first < t.queries; first += kQueries) {
    pack_queries(t, first, queries);
    const KeyRange range = key_range(t, first, kRowsF32);
    for (int key = range.begin; key < range.end; key += kRowsF32) {
      const int stored = t.tokens - key < kRowsF32 ? t.tokens - key : kRowsF32;
      const int rows = range.end - key < stored ? range.end - key : stored;
      lanes_f32_of(rows, keys + (int64_t)key * t.dim, stored, queries, t.dim,
                   scores + (int64_t)(key - range.begin) * kQueries);
    }
    const int n = range.end - range.begin;
    if (t.window > 0) mask_window(t, first, range.begin, n, scores);
    softmax_f32(scores, n, t.scale, sums);
    for (int d = 0; d < t.dim; d += height) {
      const int rows = t.dim - d < height ? t.dim - d : height;
      lanes_f32_of(rows, t.v + range.begin * t.row + d, t.row, scores, n, out + d * kQueries);
    }
    store_outputs(t, first, out, sums);
  }
}

#if defined(__AVX512BF16__)

constexpr int kKeyTile = 12;

// The same over pairs of k: x words [k / 2][x_step], w words, either [k / 2][32] or two halves [2][k / 2][16] apart.
template <int R>
SW_INLINE void lanes_bf16(const int32_t* x, int64_t x_step, const uint32_t* w, int64_t w_step, int64_t w_half,
                          int64_t pairs, float* out) {
  V s0[R] = {}, s1[R] = {};
  for (int64_t i = 0; i < pairs; ++i, x += x_step, w += w_step) {
    const __m512i w0 = _mm512_loadu_si512(w), w1 = _mm512_loadu_si512(w + w_half);
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
      const __m512i b = _mm512_set1_epi32(x[r]);
      s0[r] = (V)dot_bf16((__m512)s0[r], w0, b);
      s1[r] = (V)dot_bf16((__m512)s1[r], w1, b);
    }
  }
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r) {
    store(out + r * kQueries, s0[r]);
    store(out + r * kQueries + kLanes, s1[r]);
  }
}

template <int R>
SW_INLINE void lanes_bf16_exactly(int rows, const int32_t* x, int64_t x_step, const uint32_t* w, int64_t w_step,
                                  int64_t w_half, int64_t pairs, float* out) {
  if (rows == R) {
    lanes_bf16<R>(x, x_step, w, w_step, w_half, pairs, out);
  } else if constexpr (R > 1) {
    lanes_bf16_exactly<R - 1>(rows, x, x_step, w, w_step, w_half, pairs, out);
  }
}
void lanes_bf16_of(int rows, const int32_t* x, int64_t x_step, const uint32_t* w, int64_t w_step, int64_t w_half,
                   int64_t pairs, float* out) {
  lanes_bf16_exactly<kKeyTile>(rows, x, x_step, w, w_step, w_half, pairs, out);
}

SW_INLINE VU bf16_pair(V first, V second) {
  const __m512i both = (__m512i)_mm512_cvtne2ps_pbh((__m512)second, (__m512)first);  // 16 of first, 16 of second
  const VU low = __builtin_convertvector((VH)_mm512_castsi512_si256(both), VU);
  const VU high = __builtin_convertvector((VH)_mm512_extracti64x4_epi64(both, 1), VU);
  return low | (high << 16);
}

// 2^x for x <= 0 within 2^-13, enough for what is rounded to bf16; 0 far below.
SW_INLINE V half_exponential(V x) {
  const __m512 whole = _mm512_roundscale_ps((__m512)x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  const V r = x - (V)whole;
  V p = fma(splat(0.0551716691f), r, splat(0.2426111222f));
  p = fma(p, r, splat(0.6932609855f));
  p = fma(p, r, splat(0.9999280735f));
  return (V)_mm512_scalef_ps((__m512)p, whole);
}

// scores [keys][32] to pairs of exponentials [keys / 2][32], in place; the sum of each column. An odd last key is
// paired with 0.
void softmax_bf16(float* scores, int keys, float scale, float* sums) {
  auto* pairs = (uint32_t*)scores;
  for (int c = 0; c < kQueries; c += kLanes) {
    const V by = splat(scale * 1.44269504f);  // scale > 0
    const V limit = column_limit(scores, keys, c) * by;
    V total = {};
    for (int j = 0; j < keys; j += 2) {
      const V first = half_exponential(fma(load(scores + j * kQueries + c), by, -limit));
      V second = {};
      if (j + 1 < keys) second = half_exponential(fma(load(scores + (j + 1) * kQueries + c), by, -limit));
      total += first + second;
      // Row j / 2 of these lanes has been read by now.
      const VU words = bf16_pair(first, second);
      __builtin_memcpy(pairs + (j / 2) * kQueries + c, &words, sizeof(words));
    }
    store(sums + c, total);
  }
}

// Pairs of values [keys / 2][dim].
void pack_value_pairs(const SequenceAttentionTask& t, uint32_t* out) {
  for (int j = 0; j < t.tokens; j += 2) {
    const float* first = t.v + j * t.row;
    const float* second = j + 1 < t.tokens ? first + t.row : nullptr;
    uint32_t* row = out + (int64_t)(j / 2) * t.dim;
    for_each_vector(t.dim, [&](int64_t d, int lanes) {
      const VU words = bf16_pair(load_some(first + d, lanes), second != nullptr ? load_some(second + d, lanes) : V{});
      if (lanes == kLanes) {
        __builtin_memcpy(row + d, &words, sizeof(words));
      } else {
        for (int i = 0; i < lanes; ++i) row[d + i] = words[i];
      }
    });
  }
}

void sequence_attention_bf16(const SequenceAttentionTask& t) {
  const int tiles = (t.tokens + kKeyTile - 1) / kKeyTile;
  const int64_t pairs = (t.dim + 3) / 4 * 2;
  auto* keys = (uint32_t*)t.work;  // [tiles][pairs][rows of the tile]
  uint32_t* values = keys + tiles * kKeyTile * pairs;
  uint32_t* queries = values + (int64_t)(t.tokens + 1) / 2 * t.dim;  // [2][pairs][16]
  float* out = (float*)queries + pairs * kQueries;
  float* sums = out + (int64_t)t.dim * kQueries;
  float* scores = sums + kQueries;
  for (int tile = 0; tile < tiles; ++tile) {
    const float* rows[kKeyTile];
    const int first = tile * kKeyTile;
    const int count = t.tokens - first < kKeyTile ? t.tokens - first : kKeyTile;
    for (int r = 0; r < count; ++r) rows[r] = t.k + (first + r) * t.row;
    pack_pairs(rows, count, t.dim, keys + first * pairs);
  }
  pack_value_pairs(t, values);
  const int height = even_height(t.dim, kKeyTile);
  for (int first = 0; first < t.queries; first += kQueries) {
    for (int half = 0; half < 2; ++half) {
      const float* rows[16];
      for (int r = 0; r < 16; ++r) {
        const int q = first + 16 * half + r;
        rows[r] = t.q + (q < t.tokens ? q : t.tokens - 1) * t.row;
      }
      pack_pairs(rows, 16, t.dim, queries + half * pairs * 16);
    }
    const KeyRange range = key_range(t, first, kKeyTile);
    for (int key = range.begin; key < range.end; key += kKeyTile) {
      const int stored = t.tokens - key < kKeyTile ? t.tokens - key : kKeyTile;
      const int rows = range.end - key < stored ? range.end - key : stored;
      lanes_bf16_of(rows, (const int32_t*)keys + key * pairs, stored, queries, 16, pairs * 16, pairs,
                    scores + (int64_t)(key - range.begin) * kQueries);
    }
    const int n = range.end - range.begin;
    if (t.window > 0) mask_window(t, first, range.begin, n, scores);
    softmax_bf16(scores, n, t.scale, sums);
    // Past the range the values' pair may be a real one; its weight is 0.
    for (int d = 0; d < t.dim; d += height) {
      const int rows = t.dim - d < height ? t.dim - d : height;
      lanes_bf16_of(rows, (const int32_t*)values + range.begin / 2 * t.dim + d, t.dim, (const uint32_t*)scores,
                    kQueries, kLanes, (n + 1) / 2, out + d * kQueries);
    }
    store_outputs(t, first, out, sums);
  }
}

#endif

void sequence_attention(const SequenceAttentionTask& t) {
#if defined(__AVX512BF16__)
  if (t.half) return sequence_attention_bf16(t);
#endif
  sequence_attention_f32(t);
}
