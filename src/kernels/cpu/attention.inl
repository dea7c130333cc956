// Attention of some rows of queries over the context of one sequence, in blocks of kAttentionBlock positions in rising
// order with a running maximum and sum. Scores put neighbouring positions in the lanes of a vector; the weighted sum
// puts neighbouring elements of a value there. What a row gets does not depend on the other rows.
//
// Here keys are transposed: neighbouring positions lie together. attention_rows.inl is for keys in rows.
//
// work: q [row tile][k_dim][kRowTile] · scores [rows][kAttentionBlock] · maxima, sums [rows] · out [rows][v_dim].

struct AttentionWork {
  float* q;
  float* scores;
  float* maxima;
  float* sums;
  float* out;
};

SW_INLINE AttentionWork split_work(const AttentionTask& t) {
  const int64_t tiles = (t.rows + kRowTile - 1) / kRowTile;
  AttentionWork w;
  w.q = t.work;
  w.scores = w.q + tiles * kRowTile * t.k_dim;
  w.maxima = w.scores + (int64_t)t.rows * kAttentionBlock;
  w.sums = w.maxima + t.rows;
  w.out = w.sums + t.rows;
  return w;
}

void pack_queries(const AttentionTask& t, float* q) {
  for (int r = 0; r < t.rows; ++r) {
    const int first = r / kRowTile * kRowTile;
    const int stride = t.rows - first < kRowTile ? t.rows - first : kRowTile;
    float* out = q + (int64_t)first * t.k_dim + (r - first);
    const int head = t.k_dim - t.k_tail;
    for (int d = 0; d < head; ++d) out[(int64_t)d * stride] = t.q[r][d];
    for (int d = 0; d < t.k_tail; ++d) out[(int64_t)(head + d) * stride] = t.q_tail[r][d];
  }
}

// scores[r][0..N vectors) = scale * q_r . k, for R rows of a tile; `stride` rows of q are interleaved.
template <int R, int N, class Element>
void score_rows(const AttentionTask& t, const float* q, int stride, const Element* keys, int64_t key_stride,
                float* scores) {
  V s[R][N];
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
    for (int n = 0; n < N; ++n) s[r][n] = V{};
  }
  for (int d = 0; d < t.k_dim; ++d, q += stride, keys += key_stride) {
    V k[N];
#pragma GCC unroll 4
    for (int n = 0; n < N; ++n) k[n] = load(keys + n * kLanes);
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
      const V b = splat(q[r]);
#pragma GCC unroll 4
      for (int n = 0; n < N; ++n) s[r][n] = fma(k[n], b, s[r][n]);
    }
  }
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
    for (int n = 0; n < N; ++n) store(scores + r * kAttentionBlock + n * kLanes, s[r][n] * t.scale);
  }
}

template <int R, int N, class Element>
void score_exactly(const AttentionTask& t, const float* q, int rows, int stride, const Element* keys,
                   int64_t key_stride, float* scores) {
  if (rows == R) {
    score_rows<R, N>(t, q, stride, keys, key_stride, scores);
  } else if constexpr (R > 1) {
    score_exactly<R - 1, N>(t, q, rows, stride, keys, key_stride, scores);
  }
}

// Rows from first_row (of a tile's start) on against N vectors of positions, R rows at a time.
template <int R, int N, class Element>
void score_all(const AttentionTask& t, const AttentionWork& w, int first_row, const Element* keys, int64_t key_stride,
               float* scores) {
  for (int row = first_row; row < t.rows; row += kRowTile) {
    const int stride = t.rows - row < kRowTile ? t.rows - row : kRowTile;
    const float* q = w.q + (int64_t)row * t.k_dim;
    for (int part = 0; part < stride; part += R) {
      score_exactly<R, N>(t, q + part, stride - part < R ? stride - part : R, stride, keys, key_stride,
                          scores + (int64_t)(row + part) * kAttentionBlock);
    }
  }
}

SW_INLINE float widened(float x) { return x; }
SW_INLINE float widened(uint16_t x) {
  const uint32_t bits = (uint32_t)x << 16;
  float value;
  __builtin_memcpy(&value, &bits, 4);
  return value;
}

template <class Element>
void score_block(const AttentionTask& t, const AttentionWork& w, int first_row, int start, int tokens) {
  constexpr int kWide = kRowsF32 / 2;  // rows of a tile of four vectors
  const auto page_of = [&](int position) {
    return (const Element*)(t.k_base + t.pages[position / t.page_tokens] * t.page_stride);
  };
  if (t.page_tokens % kAttentionBlock == 0) {
    // The whole block is in one page: read its lines in order. Positions past the last are masked later.
    const Element* keys = page_of(start) + start % t.page_tokens;
    for (int u = 0; u < tokens; u += 4 * kLanes) {
      score_all<kWide, 4>(t, w, first_row, keys + u, t.k_row, w.scores + u);
    }
    return;
  }
  for (int u = 0; u < tokens; u += kAttentionUnit) {
    const Element* keys = page_of(start + u) + (start + u) % t.page_tokens;
    for (int v = 0; v < kAttentionUnit; v += kLanes) {
      score_all<kRowsF32, 1>(t, w, first_row, keys + v, t.k_row, w.scores + u + v);
    }
  }
}

// Scores of one row of a block to weights; the row's sum and output are rescaled to the new maximum.
void soften_row(const AttentionTask& t, const AttentionWork& w, int r, int valid) {
  float* s = w.scores + (int64_t)r * kAttentionBlock;
  V most = splat(w.maxima[r]);
  for (int i = 0; i < kAttentionBlock; i += kLanes) {
    VI lane;
    for (int j = 0; j < kLanes; ++j) lane[j] = i + j;
    const V masked = lane < valid ? load(s + i) : splat(-__builtin_inff());
    store(s + i, masked);
    most = vmax(most, masked);
  }
  const float maximum = largest(most);
  const float rescale = exponential(splat(w.maxima[r] - maximum))[0];
  V total = {};
  for (int i = 0; i < kAttentionBlock; i += kLanes) {
    const V p = exponential(load(s + i) - maximum);
    store(s + i, p);
    total += p;
  }
  w.sums[r] = w.sums[r] * rescale + sum(total);
  w.maxima[r] = maximum;
  if (rescale == 1.0f) return;
  float* out = w.out + (int64_t)r * t.v_dim;
  for_each_vector(t.v_dim,
                  [&](int64_t i, int lanes) { store_some(out + i, load_some(out + i, lanes) * rescale, lanes); });
}

// out[r][c..] += sum over positions j of p[r][j] * v[j][c..], for R rows and N vectors.
template <int R, int N, class Element>
void weigh_rows(const AttentionTask& t, const float* p, const Element* const* values, int tokens, int c, float* out) {
  V s[R][N];
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 16
    for (int n = 0; n < N; ++n) s[r][n] = load(out + (int64_t)r * t.v_dim + c + n * kLanes);
  }
  for (int j = 0; j < tokens; ++j) {
    V v[N];
#pragma GCC unroll 16
    for (int n = 0; n < N; ++n) v[n] = load(values[j] + c + n * kLanes);
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
      const V weight = splat(p[r * kAttentionBlock + j]);
#pragma GCC unroll 16
      for (int n = 0; n < N; ++n) s[r][n] = fma(weight, v[n], s[r][n]);
    }
  }
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 16
    for (int n = 0; n < N; ++n) store(out + (int64_t)r * t.v_dim + c + n * kLanes, s[r][n]);
  }
}

template <int R, class Element>
void weigh_all(const AttentionTask& t, const float* p, const Element* const* values, int tokens, float* out) {
  constexpr int kWide = kLanes == 16 ? 4 : 2;
  int c = 0;
  for (; c + kWide * kLanes <= t.v_dim; c += kWide * kLanes) weigh_rows<R, kWide>(t, p, values, tokens, c, out);
  for (; c + kLanes <= t.v_dim; c += kLanes) weigh_rows<R, 1>(t, p, values, tokens, c, out);
  for (; c < t.v_dim; ++c) {
    for (int r = 0; r < R; ++r) {
      V total = {};
      total[0] = out[(int64_t)r * t.v_dim + c];
      for (int j = 0; j < tokens; ++j)
        total = fma(splat(p[r * kAttentionBlock + j]), splat(widened(values[j][c])), total);
      out[(int64_t)r * t.v_dim + c] = total[0];
    }
  }
}

template <int R, class Element>
void weigh_exactly(const AttentionTask& t, const AttentionWork& w, int row, int rows, const Element* const* values,
                   int tokens) {
  if (rows == R) {
    weigh_all<R>(t, w.scores + (int64_t)row * kAttentionBlock, values, tokens, w.out + (int64_t)row * t.v_dim);
  } else if constexpr (R > 1) {
    weigh_exactly<R - 1>(t, w, row, rows, values, tokens);
  }
}

template <class Element>
void weigh_block(const AttentionTask& t, const AttentionWork& w, int first_row, int start, int tokens) {
  const Element* values[kAttentionBlock];
  for (int j = 0; j < tokens; ++j) {
    const int64_t page = t.pages[(start + j) / t.page_tokens];
    const auto* base = (const Element*)(t.v_base + page * t.page_stride);
    values[j] = base + (start + j) % t.page_tokens * t.v_row;
  }
  constexpr int kRows = kLanes == 16 ? 6 : 4;
  for (int r = first_row; r < t.rows; r += kRows) {
    weigh_exactly<kRows>(t, w, r, t.rows - r < kRows ? t.rows - r : kRows, values, tokens);
  }
}

template <class Element>
void attention_blocks(const AttentionTask& t, const AttentionWork& w) {
  const int context = t.positions[t.rows - 1] + 1;
  for (int start = 0, first_row = 0; start < context; start += kAttentionBlock) {
    while (t.positions[first_row] < start) ++first_row;
    const int tokens = context - start < kAttentionBlock ? context - start : kAttentionBlock;
    const int tile_row = first_row / kRowTile * kRowTile;
    score_block<Element>(t, w, tile_row, start, tokens);
    for (int r = first_row; r < t.rows; ++r) soften_row(t, w, r, t.positions[r] - start + 1);
    weigh_block<Element>(t, w, first_row, start, tokens);
  }
}

void attention_of_columns(const AttentionTask& t) {
  const AttentionWork w = split_work(t);
  pack_queries(t, w.q);
  for (int r = 0; r < t.rows; ++r) {
    w.maxima[r] = -__builtin_inff();
    w.sums[r] = 0.0f;
  }
  for (int64_t i = 0; i < (int64_t)t.rows * t.v_dim; ++i) w.out[i] = 0.0f;
  if (t.bf16) {
    attention_blocks<uint16_t>(t, w);
  } else {
    attention_blocks<float>(t, w);
  }
  for (int r = 0; r < t.rows; ++r) {
    const float inverse = 1.0f / w.sums[r];
    for (int d = 0; d < t.v_dim; ++d) t.out[r][d] = w.out[(int64_t)r * t.v_dim + d] * inverse;
  }
}
