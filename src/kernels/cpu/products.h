// Products of packed rows and packed weights: the one loop nest behind linear(), expert_mlp() and linear_by_head().
// Rows are packed once into tiles; the outputs are then handed to the threads by groups of panels.
#pragma once

#include <span>

#include "kernels/cpu/kernel_table.h"
#include "kernels/linear.h"

namespace spillway::kernels::cpu {

// kRounded: bf16 values held in float32; kInt8: 16-bit integers in two bytes; kBytes: bytes.
enum class RowFormat : uint8_t { kF32, kRounded, kBf16, kInt8, kBytes };
int64_t row_element_bytes(RowFormat format);

// The format that a weight's products want of x with the active kernels.
RowFormat row_format(const PackedLinear& weight);

// Rows of x, packed in tiles, the last one maybe shorter. Borrowed memory of packed_bytes().
struct PackedRows {
  RowFormat format = RowFormat::kF32;
  int64_t rows = 0;
  int64_t k = 0;
  std::byte* data = nullptr;
  const float* by = nullptr;  // kBytes: [k] that x is multiplied with first; null: ones; multipliers_of(weight)

  // Who multiplies them; null: the vector units. By the weight alone for bf16, whose bits must not depend on how many
  // rows there are; sums of integers are exact, and few rows do not fill a tile.
  const TileUnit* unit() const;
  int64_t tile_most() const;  // rows of a tile
  // As few tiles as that allows, and those of even height: 16 rows are 8 and 8, for a low tile wastes the multipliers.
  int64_t tiles() const;
  int64_t tile_height() const;
  int64_t tile_capacity() const { return tiles() * tile_most(); }  // rows that there is room for
};

size_t packed_bytes(RowFormat format, int64_t rows, int64_t k);

// Packs tile `tile` from its rows' pointers (as many as the tile has rows).
void pack_tile(const PackedRows& packed, int64_t tile, const float* const* rows);

struct Product {
  const PackedLinear* weight = nullptr;
  PackedRows x;
  float* y = nullptr;  // [x.rows, y_stride]
  int64_t y_stride = 0;
  const float* bias = nullptr;
  bool accumulate = false;
  Activation activation = Activation::kNone;  // after bias and accumulation
};

// Scratch bytes that run_products needs for these products.
size_t products_bytes(std::span<const Product> products, const tensor::Stream& stream);
void run_products(std::span<const Product> products, std::byte* scratch, tensor::Stream& stream);

}  // namespace spillway::kernels::cpu
