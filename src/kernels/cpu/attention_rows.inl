// Attention where keys are stored in rows (MLA's latents, the naive form's keys): neighbouring query rows are put in
// the lanes of a vector, so that keys are read as they lie, one element for all lanes, and a softmax needs no sum
// across lanes. A block of positions is widened to float32 once for all its uses.
//
// work: q [lane tile][k_dim][kLanes] · keys and values [chunk][kAttentionBlock][kChunkDims] (one where both are the
// same) · scores [lane tile][kAttentionBlock][kLanes] · maxima, sums, last positions [lane tile][kLanes] · out
// [rows][v_pad].

constexpr int kScorePositions = kLanes == 16 ? 16 : 8;  // sums of a register tile

struct RowsWork {
  float* q;
  float* keys;
  float* values;
  float* scores;
  float* maxima;
  float* sums;
  int32_t* last;
  float* out;
  int tiles;
  int v_pad;  // v_dim to whole vectors
};

SW_INLINE bool shares_values(const AttentionTask& t) { return t.v_base == t.k_base && t.v_row == t.k_row; }
SW_INLINE int64_t block_floats(int dims) {
  return (int64_t)((dims + kChunkDims - 1) / kChunkDims) * kAttentionBlock * kChunkDims;
}

SW_INLINE RowsWork split_rows_work(const AttentionTask& t) {
  RowsWork w;
  w.tiles = (t.rows + kLanes - 1) / kLanes;
  w.v_pad = (t.v_dim + kLanes - 1) / kLanes * kLanes;
  const int64_t lanes = (int64_t)w.tiles * kLanes;
  w.keys = t.work;
  w.values = shares_values(t) ? w.keys : w.keys + block_floats(t.k_dim);
  w.q = w.values + block_floats(shares_values(t) ? t.k_dim : t.v_dim);
  w.scores = w.q + lanes * t.k_dim;
  w.maxima = w.scores + lanes * kAttentionBlock;
  w.sums = w.maxima + lanes;
  w.last = (int32_t*)(w.sums + lanes);
  w.out = w.sums + 2 * lanes;
  return w;
}

typedef float Four __attribute__((vector_size(16)));

// Elements [d, d + 4) of four rows to four columns of kLanes.
SW_INLINE void transpose_four(const float* const* rows, int d, float* out) {
  Four r[4];
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) __builtin_memcpy(&r[i], rows[i] + d, 16);
  const Four ab0 = __builtin_shufflevector(r[0], r[1], 0, 4, 1, 5);
  const Four ab1 = __builtin_shufflevector(r[0], r[1], 2, 6, 3, 7);
  const Four ce0 = __builtin_shufflevector(r[2], r[3], 0, 4, 1, 5);
  const Four ce1 = __builtin_shufflevector(r[2], r[3], 2, 6, 3, 7);
  const Four columns[4] = {
      __builtin_shufflevector(ab0, ce0, 0, 1, 4, 5), __builtin_shufflevector(ab0, ce0, 2, 3, 6, 7),
      __builtin_shufflevector(ab1, ce1, 0, 1, 4, 5), __builtin_shufflevector(ab1, ce1, 2, 3, 6, 7)};
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) __builtin_memcpy(out + i * kLanes, &columns[i], 16);
}

// Elements [0, dims) of the rows to columns; lanes past the last row repeat it.
SW_INLINE void lanes_of_rows(const float* const* rows, int first, int count, int dims, float* out) {
  for (int j = 0; j < kLanes; j += 4) {
    const float* four[4];
    for (int i = 0; i < 4; ++i) four[i] = rows[first + j + i < count ? first + j + i : count - 1];
    int d = 0;
    for (; d + 4 <= dims; d += 4) transpose_four(four, d, out + d * kLanes + j);
    for (; d < dims; ++d) {
      for (int i = 0; i < 4; ++i) out[d * kLanes + j + i] = four[i][d];
    }
  }
}

// `tokens` rows of `dims` elements to chunks of float32, the last one filled up with zeros to whole vectors.
template <class Element>
void widen_block(const AttentionTask& t, const char* base, int64_t row, int dims, int start, int tokens, float* out) {
  const Element* from = nullptr;
  for (int j = 0, left = 0; j < tokens; ++j, --left, from += row) {
    if (left == 0) {  // of this page
      const int slot = (start + j) % t.page_tokens;
      from = (const Element*)(base + t.pages[(start + j) / t.page_tokens] * t.page_stride) + slot * row;
      left = t.page_tokens - slot;
    }
    float* to = out + j * kChunkDims;
    for (int d = 0; d < dims; d += kLanes) {
      float* target = to + (int64_t)(d / kChunkDims) * kAttentionBlock * kChunkDims + d % kChunkDims;
      if (d + kLanes <= dims) {
        store(target, load(from + d));
        continue;
      }
      for (int i = 0; i < kLanes; ++i) target[i] = d + i < dims ? widened(from[d + i]) : 0.0f;
    }
  }
}

// Keys that come after this block: of the task's next, or of the first of the next task's.
struct NextBlock {
  const int32_t* pages;
  int start;
  int tokens;
};
SW_INLINE NextBlock next_block(const AttentionTask& t, int start, int context) {
  start += kAttentionBlock;
  const bool ours = start < context;
  const int end = ours ? context : t.next_context;
  if (!ours) start = 0;
  const int left = end - start;
  return {ours ? t.pages : t.next_pages, start, left < kAttentionBlock ? left : kAttentionBlock};
}

// Asks for its rows [j, j + kScorePositions).
SW_INLINE void fetch_keys(const AttentionTask& t, const NextBlock& next, int j) {
  if (next.pages == nullptr || j >= next.tokens) return;
  // Of one page, which holds a multiple of them.
  const int64_t row_bytes = t.k_row * (t.bf16 ? 2 : 4);
  const int at = next.start + j;
  const char* rows = t.k_base + next.pages[at / t.page_tokens] * t.page_stride + at % t.page_tokens * row_bytes;
  for (int64_t i = 0; i < kScorePositions * row_bytes; i += 64) __builtin_prefetch(rows + i, 0, 2);
}

// scores[j][lanes] = scale * q . k_j for kScorePositions positions of one chunk, added to what the chunks before left.
template <class Lanes>
SW_INLINE void score_positions(const float* q, const float* keys, int dims, bool first, float scale, float* scores) {
  Lanes s[kScorePositions];
#pragma GCC unroll 16
  for (int j = 0; j < kScorePositions; ++j) {
    s[j] = Lanes{};
    if (!first) __builtin_memcpy(&s[j], scores + j * kLanes, sizeof(Lanes));
  }
  for (int d = 0; d < dims; ++d) {
    Lanes x;
    __builtin_memcpy(&x, q + d * kLanes, sizeof(x));
#pragma GCC unroll 16
    for (int j = 0; j < kScorePositions; ++j) s[j] = fma(Lanes{} + keys[j * kChunkDims + d], x, s[j]);
  }
#pragma GCC unroll 16
  for (int j = 0; j < kScorePositions; ++j) {
    const Lanes scaled = s[j] * scale;
    __builtin_memcpy(scores + j * kLanes, &scaled, sizeof(scaled));
  }
}

template <class Lanes>
void score_tile(const AttentionTask& t, const RowsWork& w, int tile, int tokens, const NextBlock& next) {
  const float* q = w.q + (int64_t)tile * kLanes * t.k_dim;
  float* scores = w.scores + (int64_t)tile * kLanes * kAttentionBlock;
  for (int at = 0; at < t.k_dim; at += kChunkDims) {
    const int dims = t.k_dim - at < kChunkDims ? t.k_dim - at : kChunkDims;
    const float* keys = w.keys + (int64_t)at * kAttentionBlock;
    const float scale = at + dims == t.k_dim ? t.scale : 1.0f;
    for (int j = 0; j < tokens; j += kScorePositions) {
      if (at == 0) fetch_keys(t, next, j);
      score_positions<Lanes>(q + at * kLanes, keys + j * kChunkDims, dims, at == 0, scale, scores + j * kLanes);
    }
  }
}

// Scores of one tile of a block to weights; sums and outputs are rescaled to the new maxima.
void soften_tile(const AttentionTask& t, const RowsWork& w, int tile, int start, int tokens) {
  float* s = w.scores + (int64_t)tile * kLanes * kAttentionBlock;
  VI last;
  __builtin_memcpy(&last, w.last + tile * kLanes, sizeof(last));
  last -= start;
  const V old = load(w.maxima + tile * kLanes);
  V most = old;
  for (int j = 0; j < tokens; ++j) {
    const V masked = last >= j ? load(s + j * kLanes) : splat(-__builtin_inff());
    store(s + j * kLanes, masked);
    most = vmax(most, masked);
  }
  const V rescale = exponential(old - most);
  V total = {};
  for (int j = 0; j < tokens; ++j) {
    const V p = exponential(load(s + j * kLanes) - most);
    store(s + j * kLanes, p);
    total += p;
  }
  store(w.sums + tile * kLanes, fma(load(w.sums + tile * kLanes), rescale, total));
  store(w.maxima + tile * kLanes, most);
  for (int i = 0; i < kLanes && tile * kLanes + i < t.rows; ++i) {
    if (rescale[i] == 1.0f) continue;
    float* out = w.out + ((int64_t)tile * kLanes + i) * w.v_pad;
    for (int c = 0; c < w.v_pad; c += kLanes) store(out + c, load(out + c) * rescale[i]);
  }
}

// out[r][c..] += sum over positions j of p[j][r] * v[j][c..], for R rows and N vectors.
template <int R, int N>
void weigh_lanes(const float* p, const float* values, int tokens, float* out, int64_t out_stride) {
  V s[R][N];
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 16
    for (int n = 0; n < N; ++n) s[r][n] = load(out + r * out_stride + n * kLanes);
  }
  for (int j = 0; j < tokens; ++j, p += kLanes, values += kChunkDims) {
    V v[N];
#pragma GCC unroll 16
    for (int n = 0; n < N; ++n) v[n] = load(values + n * kLanes);
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
      const V weight = splat(p[r]);
#pragma GCC unroll 16
      for (int n = 0; n < N; ++n) s[r][n] = fma(weight, v[n], s[r][n]);
    }
  }
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 16
    for (int n = 0; n < N; ++n) store(out + r * out_stride + n * kLanes, s[r][n]);
  }
}

template <int R>
void weigh_lanes_all(const RowsWork& w, const float* p, int tokens, float* out) {
  constexpr int kWide = kLanes == 16 ? 4 : 2;
  int c = 0;
  const auto values = [&](int at) {
    return w.values + (int64_t)(at / kChunkDims) * kAttentionBlock * kChunkDims + at % kChunkDims;
  };
  for (; c + kWide * kLanes <= w.v_pad; c += kWide * kLanes) {
    weigh_lanes<R, kWide>(p, values(c), tokens, out + c, w.v_pad);
  }
  for (; c < w.v_pad; c += kLanes) weigh_lanes<R, 1>(p, values(c), tokens, out + c, w.v_pad);
}

void weigh_tile(const AttentionTask& t, const RowsWork& w, int tile, int tokens) {
  const int rows = t.rows - tile * kLanes < kLanes ? t.rows - tile * kLanes : kLanes;
  for (int r = 0; r < rows;) {
    const float* p = w.scores + (int64_t)tile * kLanes * kAttentionBlock + r;
    float* out = w.out + ((int64_t)tile * kLanes + r) * w.v_pad;
    if (rows - r >= 4) {
      weigh_lanes_all<4>(w, p, tokens, out);
      r += 4;
    } else {
      weigh_lanes_all<1>(w, p, tokens, out);
      r += 1;
    }
  }
}

template <class Element>
void rows_blocks(const AttentionTask& t, const RowsWork& w) {
  const int context = t.positions[t.rows - 1] + 1;
  for (int start = 0, tile = 0; start < context; start += kAttentionBlock) {
    while (w.last[tile * kLanes + kLanes - 1] < start) ++tile;
    const int tokens = context - start < kAttentionBlock ? context - start : kAttentionBlock;
    widen_block<Element>(t, t.k_base, t.k_row, t.k_dim, start, tokens, w.keys);
    if (w.values != w.keys) widen_block<Element>(t, t.v_base, t.v_row, t.v_dim, start, tokens, w.values);
    NextBlock next = next_block(t, start, context);
    for (int i = tile; i < w.tiles; ++i, next.pages = nullptr) {
      if (t.rows - i * kLanes <= kLanes / 2) {
        score_tile<HalfV>(t, w, i, tokens, next);
      } else {
        score_tile<V>(t, w, i, tokens, next);
      }
      soften_tile(t, w, i, start, tokens);
      weigh_tile(t, w, i, tokens);
    }
  }
}

void attention_of_rows(const AttentionTask& t) {
  const RowsWork w = split_rows_work(t);
  const int head = t.k_dim - t.k_tail;
  for (int i = 0; i < w.tiles; ++i) {
    float* q = w.q + (int64_t)i * kLanes * t.k_dim;
    lanes_of_rows(t.q, i * kLanes, t.rows, head, q);
    if (t.k_tail > 0) lanes_of_rows(t.q_tail, i * kLanes, t.rows, t.k_tail, q + head * kLanes);
  }
  for (int r = 0; r < w.tiles * kLanes; ++r) {
    w.maxima[r] = -__builtin_inff();
    w.sums[r] = 0.0f;
    w.last[r] = t.positions[r < t.rows ? r : t.rows - 1];
  }
  for (int64_t i = 0; i < (int64_t)t.rows * w.v_pad; i += kLanes) store(w.out + i, V{});
  if (t.bf16) {
    rows_blocks<uint16_t>(t, w);
  } else {
    rows_blocks<float>(t, w);
  }
  for (int r = 0; r < t.rows; ++r) {
    const float inverse = 1.0f / w.sums[r];
    const float* out = w.out + (int64_t)r * w.v_pad;
    for_each_vector(t.v_dim, [&](int64_t d, int lanes) { store_some(t.out[r] + d, load(out + d) * inverse, lanes); });
  }
}
