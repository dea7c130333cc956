// Which rows a block of a prefill kernel computes. Rows are packed: row r of a sequence's kv head is query head r %
// group of new token r / group, so that every key and value read serves the whole group and a causal tile spans few
// positions.
#pragma once

#include <cstdint>

#include "kernels/cuda/paging.h"

namespace spillway::kernels::cuda {

// Tiles of `tile_rows` packed rows that a batch may need: known on the host, an upper bound.
inline int64_t row_tiles_max(const Batch& batch, int group, int tile_rows) {
  return int64_t{batch.rows} * group / tile_rows + batch.sequences;
}

struct RowTile {
  int sequence;   // -1: there is no such tile
  int first;      // packed row within the sequence
  int rows;       // packed rows of the sequence
  int row_begin;  // of the sequence in the batch
};

// Tile `tile` of the batch, the same in every lane; all lanes of a warp call it.
__device__ inline RowTile find_row_tile(const Batch& batch, int group, int tile_rows, int tile) {
  const int lane = threadIdx.x & 31;
  int before = 0;
  for (int base = 0; base < batch.sequences; base += 32) {
    const int s = base + lane;
    int begin = 0, rows = 0;
    if (s < batch.sequences) {
      begin = batch.row_begin[s];
      rows = (batch.row_begin[s + 1] - begin) * group;
    }
    const int tiles = (rows + tile_rows - 1) / tile_rows;
    int sum = tiles;
    for (int step = 1; step < 32; step *= 2) {
      const int other = __shfl_up_sync(0xffffffffu, sum, step);
      if (lane >= step) sum += other;
    }
    const unsigned holds = __ballot_sync(0xffffffffu, before + sum > tile);
    if (holds != 0) {
      const int owner = __ffs(static_cast<int>(holds)) - 1;
      const int in_sequence = tile - (before + __shfl_sync(0xffffffffu, sum - tiles, owner));
      return {base + owner, in_sequence * tile_rows, __shfl_sync(0xffffffffu, rows, owner),
              __shfl_sync(0xffffffffu, begin, owner)};
    }
    before += __shfl_sync(0xffffffffu, sum, 31);
  }
  return {-1, 0, 0, 0};
}

}  // namespace spillway::kernels::cuda
