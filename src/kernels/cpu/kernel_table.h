// KernelTable: the inner loops of the CPU kernels, one table for each instruction set, filled by cpu/isa_*.cc. They run
// on one thread and allocate nothing; threads, scratch memory and checks are their callers' job. Plain data only: this
// header is read by translation units of different instruction sets, so it must define no inline function.
#pragma once

#include <cstdint>

#include "kernels/activation.h"

namespace spillway::kernels::cpu {

constexpr int kPanel = 32;           // outputs of a panel of packed weights
constexpr int kRowTile = 12;         // most rows of a packed tile of x
constexpr int kRowTileMost = 32;     // of a tile unit's
constexpr int kInt8Group = 128;      // K elements that share an int8 scale
constexpr int kAttentionBlock = 64;  // context positions between two updates of a softmax
constexpr int kAttentionUnit = 16;   // pages hold multiples of this
constexpr int kChunkDims = 64;       // elements of keys in rows that lie together once widened

// One tile: acc[r][c] += sum over k of x[k][r] * w[k][c], r < rows <= kRowTileMost, c < kPanel.
struct Tile {
  // f32 [k][rows], bf16 [k / 2][rows][2], int8 [k / 4][rows][lo 4, hi 4] or bytes [k / 4][rows][4]; see also TileUnit
  const void* x = nullptr;
  const void* w = nullptr;  // the panel from the same k
  int64_t k = 0;
  int rows = 0;
  float* acc = nullptr;  // [rows][acc_stride], of which kPanel each
  int64_t acc_stride = kPanel;
  bool fresh = false;              // acc holds nothing yet: as if zeros
  const float* scale = nullptr;    // [kPanel]: acc += scale * sum; null: acc continues the chain of sums
  const float* x_scale = nullptr;  // int8: [rows]
  const int32_t* x_sum = nullptr;  // int8: [rows], 128 * sum of the quantised x
  const float* x_zero = nullptr;   // bytes: [rows], the integer that stands for 0; scale[kPanel..] sums w's integers
};

// Bytes of each of kPanel rows from byte `at` on, to a panel.
struct LineCopy {
  const char* const* rows = nullptr;
  int64_t at = 0;
  int64_t bytes = 0;
  bool aligned = false;               // all rows have the same place in their lines: those are read whole
  const char* const* next = nullptr;  // rows to be fetched meanwhile, as many bytes from next_at on; or null
  int64_t next_at = 0;
  char* out = nullptr;
};

// Groups of kInt8Group bf16 weights of each of kPanel rows, from byte `at` on, to the same of an int8 panel.
struct QuantizeTask {
  const char* const* rows = nullptr;
  int64_t at = 0;
  int64_t groups = 0;
  const char* const* next = nullptr;  // rows to be fetched meanwhile, as LineCopy's
  int64_t next_at = 0;
  uint8_t* out = nullptr;
  float* scales = nullptr;  // [groups][kPanel]
};

// Rows of queries against one kv head of one sequence.
struct AttentionTask {
  int rows = 0;
  const int32_t* positions = nullptr;    // [rows], not falling: row r attends to context 0..positions[r]
  const float* const* q = nullptr;       // [rows] pointers to k_dim floats
  const float* const* q_tail = nullptr;  // or null: the last k_tail of k_dim come from here
  float* const* out = nullptr;           // [rows] pointers to v_dim floats
  int k_dim = 0;
  int k_tail = 0;
  int v_dim = 0;
  float scale = 1.0f;
  const int32_t* pages = nullptr;
  int page_tokens = 0;
  bool bf16 = false;             // pages hold bf16, else f32
  bool transposed = false;       // keys are [k_dim][page_tokens], else rows of k_row elements
  const char* k_base = nullptr;  // of page 0
  const char* v_base = nullptr;
  int64_t page_stride = 0;  // bytes
  int64_t k_row = 0;        // elements between keys of neighbouring positions (rows) or dimensions (transposed)
  int64_t v_row = 0;
  // Keys in rows: what is likely to be asked for next, of the same pages' layout, to be fetched meanwhile; or null.
  const int32_t* next_pages = nullptr;
  int next_context = 0;
  float* work = nullptr;  // attention_work_floats()
};

// A panel's sums to their place: y[r][0..width) = activation(sums[r] (+ bias) (+ y[r])).
struct RowSums {
  const float* sums = nullptr;  // [rows][kPanel]
  const float* bias = nullptr;
  bool accumulate = false;
  Activation activation = Activation::kNone;
  int64_t rows = 0;
  int width = 0;
  float* y = nullptr;
  int64_t y_stride = 0;
};

// One head over one sequence: each row attends to all rows, or to those at most `window` away.
struct SequenceAttentionTask {
  const float *q = nullptr, *k = nullptr, *v = nullptr;  // the head's columns; rows are `row` elements apart
  int64_t row = 0;
  int tokens = 0;
  int queries = 0;  // of them, from the first on
  int dim = 0;
  float scale = 1.0f;
  int window = 0;     // 0: all
  bool half = false;  // products in bf16 where there is an instruction for them
  float* out = nullptr;
  int64_t out_row = 0;
  void* work = nullptr;  // sequence_attention_bytes()
};

// x = scale * (byte - zero).
struct QuantizedGroup {
  float scale;
  float zero;
  int32_t sum128;  // 128 times the sum of the bytes
};

struct RopeTask {
  float* x = nullptr;  // the rotary elements of one head
  const float* cosines = nullptr;
  const float* sines = nullptr;
  int pairs = 0;
  bool interleaved = false;
};

// A unit that multiplies tiles of rows with panels (AMX), and what it wants. Its bf16 sums are in an order of their
// own.
struct TileUnit {
  int rows = 0;               // most of a tile, up to kRowTileMost
  int step = 0;               // bytes of K of a row that lie together
  void (*enter)() = nullptr;  // before a thread's first tile of a group of panels
  // x of bf16 and bytes: [step][rows][bytes of K], of int8 [step][rows][low, high][bytes of K]; the last step may be
  // shorter.
  void (*tile_bf16)(const Tile&) = nullptr;
  void (*tile_int8)(const Tile&) = nullptr;
  void (*tile_bytes)(const Tile&) = nullptr;
  void (*pack_pairs)(const float* const* rows, int count, int64_t k, uint32_t* out) = nullptr;
};

struct KernelTable {
  bool native_bf16 = false;  // tile_bf16 is there; else bf16 weights are widened for tile_f32
  const TileUnit* unit = nullptr;

  void (*tile_f32)(const Tile&) = nullptr;
  void (*tile_bf16)(const Tile&) = nullptr;
  void (*tile_int8)(const Tile&) = nullptr;
  void (*tile_bytes)(const Tile&) = nullptr;
  // The same products straight from a stored panel: better for few rows. tile_f8 is tile_bf16's.
  void (*tile_f32_of_bf16)(const Tile&) = nullptr;
  void (*tile_f32_of_f8)(const Tile&) = nullptr;
  void (*tile_f8)(const Tile&) = nullptr;
  int f8_rows_max = 0;

  // Panels of k elements to f32 [k][kPanel], or f8 to bf16 pairs.
  void (*widen_f16)(const uint16_t* w, int64_t k, float* out) = nullptr;
  void (*widen_bf16)(const uint16_t* w, int64_t k, float* out) = nullptr;
  void (*widen_f8)(const uint8_t* w, int64_t k, float* out) = nullptr;
  void (*widen_f8_to_bf16)(const uint8_t* w, int64_t k, uint16_t* out) = nullptr;

  // Rows of weights to panels, of formats by words and of f8; null: no faster than the generic way.
  void (*copy_words)(const LineCopy&) = nullptr;
  void (*copy_pairs)(const LineCopy&) = nullptr;
  void (*quantize_panel)(const QuantizeTask&) = nullptr;  // the bits of quantize_weights of widened rows

  // Rows.
  // The first `count` rows (at most kRowTile) rounded to bf16 as tile_bf16 wants them: [padded k / 2][count][2].
  void (*pack_pairs)(const float* const* rows, int count, int64_t k, uint32_t* out) = nullptr;
  // The same in f32, [padded k][count]; null: no faster than one by one.
  void (*pack_floats)(const float* const* rows, int count, int64_t k, float* out) = nullptr;
  void (*round_to_bf16)(const float* x, int64_t count, uint16_t* out) = nullptr;
  // One group: out lo/hi bytes of round(x / scale); returns the scale and 128 * the sum.
  float (*quantize_group)(const float* x, int count, int8_t* low, int8_t* high, int32_t* sum128) = nullptr;
  void (*widen_row_bf16)(const uint16_t* x, int64_t count, float* out) = nullptr;
  void (*widen_row_f8)(const uint8_t* x, int64_t count, float* out) = nullptr;
  // A group of x (times `by`, unless null) to bytes, `count` padded with zeros to a multiple of 4.
  QuantizedGroup (*quantize_bytes)(const float* x, const float* by, int64_t count, int8_t* out) = nullptr;
  // A group of one row of weights to bytes (128 added); returns the scale.
  float (*quantize_weights)(const float* w, int64_t count, uint8_t* bytes) = nullptr;
  void (*rms_norm)(const float* x, const float* weight, float eps, int64_t count, float* y) = nullptr;
  void (*add_rms_norm)(float* residual, const float* x, const float* weight, float eps, int64_t count,
                       float* y) = nullptr;
  void (*silu_mul)(const float* gate, const float* up, int64_t count, float* y) = nullptr;
  void (*finish_rows)(const RowSums&) = nullptr;
  void (*layer_norm)(const float* x, const float* weight, const float* bias, float eps, int64_t count,
                     float* y) = nullptr;
  void (*activate)(Activation activation, float* x, int64_t count) = nullptr;
  void (*gated_activation)(Activation activation, const float* gate, const float* up, int64_t count,
                           float* y) = nullptr;
  void (*add)(float* y, const float* x, int64_t count) = nullptr;
  void (*add_scaled)(float* y, const float* x, float scale, int64_t count) = nullptr;
  void (*rope)(const RopeTask&) = nullptr;
  void (*attention)(const AttentionTask&) = nullptr;          // transposed keys
  void (*attention_of_rows)(const AttentionTask&) = nullptr;  // keys in rows
  void (*sequence_attention)(const SequenceAttentionTask&) = nullptr;
};

KernelTable scalar_kernels();
KernelTable avx2_kernels();
KernelTable avx512_kernels();
KernelTable avx512_bf16_kernels();
KernelTable amx_kernels();
KernelTable amx_emulated_kernels();

// The table of the active level (isa.h).
const KernelTable& kernel_table();

}  // namespace spillway::kernels::cpu
