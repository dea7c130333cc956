// Register tiles of the float32 product, and the widening of stored types. See kernel_table.h for the shapes.

// Two neighbouring k of kLanes outputs from output c of a panel, widened exactly.
struct Pair {
  V first, second;
};
SW_INLINE Pair load_pair(const float* w, int c) { return {load(w + c), load(w + kPanel + c)}; }
SW_INLINE Pair load_pair(const uint16_t* bf16, int c) {
  VU pairs;
  __builtin_memcpy(&pairs, bf16 + 2 * c, sizeof(pairs));
  return {from_bits(pairs << 16), from_bits(pairs & 0xffff0000u)};
}

// Bytes of kLanes outputs from output c on of one pair of k: the first k in the low byte, the second in the next.
SW_INLINE VU load_f8_pairs(const uint8_t* w, int c) {
  uint64_t words[kLanes / 4];
  for (int j = 0; j < kLanes / 4; ++j) {
    const int column = c + 4 * j;
    __builtin_memcpy(&words[j], w + 16 * ((column & 15) / 4) + 8 * (column / 16), 8);
  }
  VH pairs;
  __builtin_memcpy(&pairs, words, sizeof(pairs));
  return __builtin_convertvector(pairs, VU);
}
// The exponent field keeps its bits; the difference of the biases, 120, is multiplied back (exact for subnormals too).
SW_INLINE V f8_to_float(VU byte) { return from_bits(((byte & 0x80) << 24) | ((byte & 0x7f) << 20)) * 0x1p120f; }

SW_INLINE Pair load_pair(const uint8_t* f8, int c) {
  const VU pairs = load_f8_pairs(f8, c);
  return {f8_to_float(pairs & 0xff), f8_to_float(pairs >> 8)};
}

// The panel as stored: float, uint16_t (bf16 pairs) or uint8_t (f8). Every one sums in the same order.
template <int R, class Element>
void tile_f32_rows(const Tile& t, int row) {
  const float* scale = t.scale;
  float* acc = t.acc + row * t.acc_stride;
  for (int c = 0; c < kPanel; c += 2 * kLanes) {
    V s0[R], s1[R];
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
      s0[r] = scale != nullptr ? V{} : sums_before(t, acc + r * t.acc_stride + c);
      s1[r] = scale != nullptr ? V{} : sums_before(t, acc + r * t.acc_stride + c + kLanes);
    }
    const float* b = (const float*)t.x + row;
    const auto* panel = (const Element*)t.w;
    for (int64_t i = 0; i < t.k; i += 2, b += 2 * t.rows, panel += 2 * kPanel) {
      const Pair w0 = load_pair(panel, c);
      const Pair w1 = load_pair(panel, c + kLanes);
#pragma GCC unroll 16
      for (int r = 0; r < R; ++r) {
        s0[r] = fma(splat(b[r]), w0.first, s0[r]);
        s1[r] = fma(splat(b[r]), w1.first, s1[r]);
      }
#pragma GCC unroll 16
      for (int r = 0; r < R; ++r) {
        s0[r] = fma(splat(b[t.rows + r]), w0.second, s0[r]);
        s1[r] = fma(splat(b[t.rows + r]), w1.second, s1[r]);
      }
    }
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
      float* a = acc + r * t.acc_stride + c;
      store(a, scale != nullptr ? fma(s0[r], load(scale + c), sums_before(t, a)) : s0[r]);
      store(a + kLanes, scale != nullptr ? fma(s1[r], load(scale + c + kLanes), sums_before(t, a + kLanes)) : s1[r]);
    }
  }
}

template <int R, class Element>
void tile_f32_exactly(const Tile& t, int row, int rows) {
  if (rows == R) {
    tile_f32_rows<R, Element>(t, row);
  } else if constexpr (R > 1) {
    tile_f32_exactly<R - 1, Element>(t, row, rows);
  }
}

template <class Element>
void tile_f32_of(const Tile& t) {
  for (int row = 0; row < t.rows; row += kRowsF32) {
    tile_f32_exactly<kRowsF32, Element>(t, row, t.rows - row < kRowsF32 ? t.rows - row : kRowsF32);
  }
}

void widen_f16(const uint16_t* w, int64_t k, float* out) {
  for (int64_t i = 0; i < k * kPanel; i += kLanes) store(out + i, load_f16(w + i));
}

template <class Element>
void widen(const Element* w, int64_t k, float* out) {
  for (int64_t i = 0; i < k; i += 2) {
    for (int c = 0; c < kPanel; c += kLanes) {
      const Pair pair = load_pair(w + i * kPanel, c);
      store(out + i * kPanel + c, pair.first);
      store(out + (i + 1) * kPanel + c, pair.second);
    }
  }
}

void widen_row_f8(const uint8_t* x, int64_t count, float* out) {
  typedef uint8_t Bytes __attribute__((vector_size(kLanes)));
  for_each_vector(count, [&](int64_t i, int lanes) {
    Bytes bytes = {};
    if (lanes == kLanes) {
      __builtin_memcpy(&bytes, x + i, sizeof(bytes));
    } else {
      for (int j = 0; j < lanes; ++j) bytes[j] = x[i + j];
    }
    store_some(out + i, f8_to_float(__builtin_convertvector(bytes, VU)), lanes);
  });
}
