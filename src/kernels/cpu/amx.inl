// Products by the tile unit (AMX). A register tile holds 16 rows of 64 bytes; one instruction multiplies 16 rows of 64
// bytes of K with a panel's half, 64 bytes of K for 16 outputs, which the panels' pairs (bf16) and fours (bytes) are as
// they lie. Up to 32 rows and the whole width of a panel are held: four tiles of sums, two of x, two of w, so that each
// step of 64 bytes of K loads four tiles for four products.
// x of a tile of rows: steps of 64 bytes of K, the last maybe shorter, each [rows][bytes]; of kInt8 a row's low bytes
// and then its high ones.
// Wants: configure(), zero_tile<T>(), load_tile<T>(), store_tile<T>(), multiply_bf16<C, A, B>() and
// multiply_bytes<C, A, B>().

constexpr int kTileRows = 16;
constexpr int kRowTileAmx = 2 * kTileRows;
constexpr int kStepBytes = 64;                          // of K in a row
constexpr int kStepPanelBytes = 2048;                   // of a panel's step
constexpr int kPanelRow = kStepPanelBytes / kTileRows;  // from one pair or four of K to the next

// Tiles 0 and 1: sums of the first rows; 2 and 3: of the others; 4 and 5: x of these; 6 and 7: the panel's halves.
struct TileConfig {
  uint8_t palette = 1;
  uint8_t start_row = 0;
  uint8_t reserved[14] = {};
  uint16_t row_bytes[16] = {};
  uint8_t rows[16] = {};
};

// What the thread's tiles are configured for: rows, other rows, bytes of K; 0: not known.
thread_local uint32_t configured = 0;

// Somebody else may have used the tiles since.
void enter_tiles() { configured = 0; }

SW_INLINE void want_tiles(int rows, int others, int k_bytes) {
  const uint32_t wanted = (uint32_t)(rows | others << 8 | k_bytes << 16);
  if (configured == wanted) return;
  TileConfig config;
  for (int t = 0; t < 8; ++t) {
    config.rows[t] = (uint8_t)(t >= 6 ? k_bytes / 4 : t == 2 || t == 3 || t == 5 ? others : rows);
    config.row_bytes[t] = (uint16_t)(config.rows[t] == 0 ? 0 : t == 4 || t == 5 ? k_bytes : kStepBytes);
  }
  configure(config);
  configured = wanted;
}

// Rows of x within a step.
struct StepRows {
  const char* x;
  int64_t stride;
  int64_t others;  // bytes to the other rows
};

enum class Number { kBf16, kBytes };

template <Number N, int C, int A, int B>
SW_INLINE void multiply_tiles() {
  if constexpr (N == Number::kBf16) {
    multiply_bf16<C, A, B>();
  } else {
    multiply_bytes<C, A, B>();
  }
}

template <Number N, bool kOthers>
SW_INLINE void take_step(const StepRows& rows, const char* w) {
  load_tile<6>(w, kPanelRow);
  load_tile<7>(w + kStepBytes, kPanelRow);
  load_tile<4>(rows.x, rows.stride);
  multiply_tiles<N, 0, 4, 6>();
  multiply_tiles<N, 1, 4, 7>();
  if constexpr (kOthers) {
    load_tile<5>(rows.x + rows.others, rows.stride);
    multiply_tiles<N, 2, 5, 6>();
    multiply_tiles<N, 3, 5, 7>();
  }
}

// Four bytes each: [rows], and the others from `others` on.
struct TileSums {
  char* at;
  int64_t stride;  // bytes
  char* others;
};

template <bool kOthers>
SW_INLINE void load_sums(const TileSums& sums, bool fresh) {
  if (fresh) {
    zero_tile<0>();
    zero_tile<1>();
    if constexpr (kOthers) zero_tile<2>();
    if constexpr (kOthers) zero_tile<3>();
    return;
  }
  load_tile<0>(sums.at, sums.stride);
  load_tile<1>(sums.at + kStepBytes, sums.stride);
  if constexpr (kOthers) load_tile<2>(sums.others, sums.stride);
  if constexpr (kOthers) load_tile<3>(sums.others + kStepBytes, sums.stride);
}

template <bool kOthers>
SW_INLINE void store_sums(const TileSums& sums) {
  store_tile<0>(sums.at, sums.stride);
  store_tile<1>(sums.at + kStepBytes, sums.stride);
  if constexpr (kOthers) store_tile<2>(sums.others, sums.stride);
  if constexpr (kOthers) store_tile<3>(sums.others + kStepBytes, sums.stride);
}

// k_bytes of K of a row; rows_at(bytes of K before, bytes of the step) says where a step's rows lie.
template <Number N, bool kOthers, class RowsAt>
SW_INLINE void run_steps(int rows, int others, int64_t k_bytes, const char* w, RowsAt rows_at, const TileSums& sums,
                         bool fresh) {
  const int64_t whole = k_bytes / kStepBytes * kStepBytes;
  if (whole > 0) {
    want_tiles(rows, others, kStepBytes);
    load_sums<kOthers>(sums, fresh);
    for (int64_t at = 0; at < whole; at += kStepBytes, w += kStepPanelBytes)
      take_step<N, kOthers>(rows_at(at, kStepBytes), w);
    store_sums<kOthers>(sums);
  }
  if (whole < k_bytes) {
    const int left = (int)(k_bytes - whole);
    want_tiles(rows, others, left);
    load_sums<kOthers>(sums, fresh && whole == 0);
    take_step<N, kOthers>(rows_at(whole, left), w);
    store_sums<kOthers>(sums);
  }
}

// Rows of x of one part each: [rows][bytes] a step.
template <Number N>
SW_INLINE void run_rows(const Tile& t, int64_t k_bytes, char* sums, int64_t stride, bool fresh) {
  const int rows = t.rows < kTileRows ? t.rows : kTileRows, others = t.rows - rows;
  const auto rows_at = [&](int64_t before, int width) -> StepRows {
    return {(const char*)t.x + before * t.rows, width, (int64_t)width * kTileRows};
  };
  const TileSums to{sums, stride, sums + kTileRows * stride};
  if (others > 0) {
    run_steps<N, true>(rows, others, k_bytes, (const char*)t.w, rows_at, to, fresh);
  } else {
    run_steps<N, false>(rows, 0, k_bytes, (const char*)t.w, rows_at, to, fresh);
  }
}

void tile_bf16_amx(const Tile& t) {
  if (t.scale == nullptr) return run_rows<Number::kBf16>(t, 2 * t.k, (char*)t.acc, t.acc_stride * 4, t.fresh);
  alignas(64) float sums[kRowTileAmx * kPanel];
  run_rows<Number::kBf16>(t, 2 * t.k, (char*)sums, kPanel * 4, true);
  const V scale[2] = {load(t.scale), load(t.scale + kLanes)};
  for (int r = 0; r < t.rows; ++r) {
    float* a = t.acc + r * t.acc_stride;
    store(a, fma(load(sums + r * kPanel), scale[0], sums_before(t, a)));
    store(a + kLanes, fma(load(sums + r * kPanel + kLanes), scale[1], sums_before(t, a + kLanes)));
  }
}

SW_INLINE VI load_integers(const int32_t* p) {
  VI v;
  __builtin_memcpy(&v, p, sizeof(v));
  return v;
}

void tile_bytes_amx(const Tile& t) {
  alignas(64) int32_t sums[kRowTileAmx * kPanel];
  run_rows<Number::kBytes>(t, t.k, (char*)sums, kPanel * 4, true);
  for (int r = 0; r < t.rows; ++r) {
    for (int c = 0; c < kPanel; c += kLanes) finish_bytes(t, r, c, load_integers(sums + r * kPanel + c) - t.x_sum[r]);
  }
}

// Low and high bytes of the same rows are what the two halves of the tiles are for.
void tile_int8_amx(const Tile& t) {
  alignas(64) int32_t low[kTileRows * kPanel], high[kTileRows * kPanel];
  for (int first = 0; first < t.rows; first += kTileRows) {
    const int rows = t.rows - first < kTileRows ? t.rows - first : kTileRows;
    const auto rows_at = [&](int64_t before, int width) -> StepRows {
      return {(const char*)t.x + 2 * (before * t.rows + (int64_t)first * width), 2 * (int64_t)width, width};
    };
    run_steps<Number::kBytes, true>(rows, rows, t.k, (const char*)t.w, rows_at, {(char*)low, kPanel * 4, (char*)high},
                                    true);
    for (int r = 0; r < rows; ++r) {
      for (int c = 0; c < kPanel; c += kLanes) {
        const int at = r * kPanel + c;
        finish_int8(t, first + r, c, load_integers(low + at) + (load_integers(high + at) << 8) - t.x_sum[first + r]);
      }
    }
  }
}

// [step][count][32], the last step as short as K (to a multiple of 4) leaves it.
void pack_pairs_amx(const float* const* rows, int count, int64_t k, uint32_t* out) {
  const int64_t padded = (k + 3) / 4 * 4;
  for (int64_t at = 0; at < k; at += 2 * kLanes) {
    const int pairs = padded - at < 2 * kLanes ? (int)(padded - at) / 2 : kLanes;
    const auto lanes = (__mmask16)((1u << pairs) - 1);
    for (int r = 0; r < count; ++r, out += pairs) _mm512_mask_storeu_epi32(out, lanes, load_pairs(rows[r], at, k));
  }
}

constexpr TileUnit kAmx{.rows = kRowTileAmx,
                        .step = kStepBytes,
                        .enter = enter_tiles,
                        .tile_bf16 = tile_bf16_amx,
                        .tile_int8 = tile_int8_amx,
                        .tile_bytes = tile_bytes_amx,
                        .pack_pairs = pack_pairs_amx};

KernelTable tile_kernels() {
  KernelTable table = avx512_bf16_kernels();
  table.unit = &kAmx;
  return table;
}
