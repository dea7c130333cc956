// How decode attention divides a step's contexts among thread blocks; shared by the grouped-query and latent kernels.
//
// Contexts are counted in grains: 64 tokens when balanced, split_tokens when split at fixed places. The grains of all
// (sequence, unit) pairs form one line, a unit being a kv head or a group of heads; block b of G gets the stretch
// [total * b / G, total * (b + 1) / G), known to each block from the context lengths alone. Balanced, a block's
// neighbouring grains of a unit make one piece; split at fixed places, every grain is a piece. A unit of one piece
// writes its output; otherwise every piece leaves a partial result in its slot of the workspace, and the block that
// arrives last (a counter a unit) combines them in order. Where whole units a block are nearly as even (a batch of
// similar lengths), stretches end at the nearest units instead and nothing is split.
#pragma once

#include <cstdint>

#include "kernels/cuda/paging.h"

namespace spillway::kernels::cuda {

constexpr int kTileTokens = 64;

__host__ __device__ inline int ceil_div(int a, int b) { return (a + b - 1) / b; }

struct WorkShape {
  int units = 1;        // of a sequence
  int grain_tiles = 1;  // of kTileTokens tokens
  bool merge = true;    // balanced
  int blocks = 1;       // G: blocks, or groups of blocks that share a stretch
  int grains_min = 1;   // balanced: a block gets no less, so that few blocks work on little
  int split_cost = 1;   // balanced: what a split costs, in grains
};

// What a block does next: tiles [tile_begin, tile_end) of a unit's context, piece `index` of `pieces`.
struct Piece {
  int sequence, unit, tile_begin, tile_end, pieces, index, slot;
};

// A block's stretch of the line; held in registers, the same in all threads.
struct WorkCursor {
  bool whole;         // units are not split; by plan_work
  const int* prefix;  // [sequences + 1] grains before each sequence, in shared memory
  WorkShape shape;
  int sequences, total, blocks;
  int block, next, end, sequence;
  int quotient, rest;  // of total by blocks: blocks squared fits 32 bits
  float per_grain;     // sequences, on average

  __device__ __forceinline__ int block_of(int grain) const {
    const uint64_t product = static_cast<uint64_t>(grain + 1) * static_cast<uint32_t>(blocks) - 1;
    if (product >> 32 == 0) return static_cast<int>(static_cast<uint32_t>(product) / static_cast<uint32_t>(total));
    return static_cast<int>(product / static_cast<uint32_t>(total));
  }

  // Positions the cursor at the stretch of a block.
  __device__ __forceinline__ void start(const int* prefix_, WorkShape shape_, int sequences_, int block_, bool whole_) {
    whole = whole_;
    prefix = prefix_;
    shape = shape_;
    sequences = sequences_;
    total = prefix[sequences];
    blocks = shape.merge ? max(1, min(shape.blocks, total / shape.grains_min)) : min(shape.blocks, total);
    // As many blocks for each unit where few are left over: stretches of like units then end where units do.
    const int all_units = sequences * shape.units, even = blocks / max(all_units, 1) * all_units;
    if (shape.merge && even * 8 >= blocks * 7) blocks = even;
    quotient = total / max(blocks, 1), rest = total - quotient * blocks;
    per_grain = static_cast<float>(sequences) / static_cast<float>(max(total, 1));
    block = block_;
    next = end = sequence = 0;
    if (block >= blocks) return;
    next = boundary(block);
    end = boundary(block + 1);
    sequence = sequence_of(next);
  }

  // The last sequence that begins at or before a grain and is not empty. Where lengths are alike the first guess is it.
  __device__ __forceinline__ int sequence_of(int grain) const {
    const int guess = static_cast<int>((static_cast<float>(grain) + 0.5f) * per_grain);
    if (guess < sequences && prefix[guess] <= grain && grain < prefix[guess + 1]) return guess;
    int low = 0, high = sequences;
    while (high - low > 1) {
      const int middle = (low + high) / 2;
      if (prefix[middle] <= grain)
        low = middle;
      else
        high = middle;
    }
    return low;
  }
  // Where the stretch of block b begins.
  __device__ __forceinline__ int boundary(int b) const {
    const int even = quotient * b + static_cast<int>(static_cast<uint32_t>(rest * b) / static_cast<uint32_t>(blocks));
    return whole ? nearest_unit(even) : even;
  }
  __device__ __forceinline__ int nearest_unit(int grain) const {
    if (grain >= total) return total;
    const int s = sequence_of(grain), grains = (prefix[s + 1] - prefix[s]) / shape.units;
    return prefix[s] + (grain - prefix[s] + grains / 2) / grains * grains;
  }

  __device__ __forceinline__ bool take(Piece& piece) {
    if (next >= end) return false;
    while (prefix[sequence + 1] <= next) ++sequence;
    const int grains = (prefix[sequence + 1] - prefix[sequence]) / shape.units;
    const int local = next - prefix[sequence];
    const int unit = local / grains, grain = local - unit * grains;
    const int unit_begin = next - grain;
    const int taken = shape.merge ? min(end - next, grains - grain) : 1;
    piece.sequence = sequence;
    piece.unit = unit;
    piece.tile_begin = grain * shape.grain_tiles;
    piece.tile_end = (grain + taken) * shape.grain_tiles;
    if (whole) {
      piece.pieces = 1;
      piece.index = piece.slot = 0;
    } else if (shape.merge) {
      const int first = block_of(unit_begin);
      piece.pieces = block_of(unit_begin + grains - 1) - first + 1;
      piece.index = block - first;
      piece.slot = merged_slot(first, piece.index);
    } else {
      piece.pieces = grains;
      piece.index = grain;
      piece.slot = next;
    }
    next += taken;
    return true;
  }

  // A block leaves at most two partial results when balanced: of the unit it ends within, of the unit it begins within.
  static __device__ __forceinline__ int merged_slot(int first_block, int index) {
    return index == 0 ? 2 * first_block + 1 : 2 * (first_block + index);
  }
  // Piece 0 of a unit, wherever it is computed; its tiles are not filled in. For the combination of pieces.
  __device__ __forceinline__ Piece first_piece(int of_sequence, int unit) {
    const int grains = (prefix[of_sequence + 1] - prefix[of_sequence]) / shape.units;
    const int begin = prefix[of_sequence] + unit * grains;
    if (grains == 0 || whole) return {of_sequence, unit, 0, 0, 1, 0, 0};
    if (!shape.merge) return {of_sequence, unit, 0, 0, grains, 0, begin};
    block = block_of(begin);
    return {of_sequence, unit, 0, 0, block_of(begin + grains - 1) - block + 1, 0, merged_slot(block, 0)};
  }
  // The slot of another piece of the same unit.
  __device__ __forceinline__ int slot_of(const Piece& piece, int index) const {
    if (!shape.merge) return piece.slot - piece.index + index;
    return merged_slot(block - piece.index, index);
  }
};

// Starts the reading of page_table while lengths are still on their way, when it is small: a step of few sequences is a
// chain of dependent loads.
__device__ inline void prefetch_page_table(const Batch& batch) {
  const int lines = (batch.pages_max + 31) / 32, line = static_cast<int>(threadIdx.x);
  if (static_cast<int64_t>(lines) * batch.sequences > blockDim.x || line >= lines * batch.sequences) return;
  const int32_t* at = batch.page_table + static_cast<int64_t>(line / lines) * batch.pages_max + line % lines * 32;
  asm volatile("prefetch.global.L1 [%0];" ::"l"(at));
}

// Whether units are better left whole: the longest stretch then against the even one and what its splits cost. All
// threads of the block call it.
__device__ inline bool units_whole(const Batch& batch, WorkShape shape, const int* prefix, int* scratch) {
  if (!shape.merge || batch.sequences * shape.units * 4 < shape.blocks * 3) return false;
  WorkCursor cursor;
  cursor.start(prefix, shape, batch.sequences, 0, true);
  if (cursor.total == 0) return false;
  // A warp finds 32 boundaries at once, between which there are 31 stretches.
  const int lane = static_cast<int>(threadIdx.x & 31), step_blocks = static_cast<int>(blockDim.x / 32) * 31;
  int most = 0;
  for (int first = static_cast<int>(threadIdx.x / 32) * 31; first < cursor.blocks; first += step_blocks) {
    const int here = cursor.boundary(min(first + lane, cursor.blocks));
    const int before = __shfl_up_sync(0xffffffffu, here, 1);
    if (lane > 0) most = max(most, here - before);
  }
  if (threadIdx.x == 0) scratch[33] = 0;
  __syncthreads();
  for (int step = 16; step > 0; step /= 2) most = max(most, __shfl_xor_sync(0xffffffffu, most, step));
  if ((threadIdx.x & 31) == 0) atomicMax(scratch + 33, most);
  __syncthreads();
  return scratch[33] <= ceil_div(cursor.total, cursor.blocks) + shape.split_cost;
}

// Fills prefix [sequences + 1] (shared memory); all threads of the block call it. scratch: 34 ints of shared memory.
// Answers WorkCursor::whole.
__device__ inline bool plan_work(const Batch& batch, WorkShape shape, int* prefix, int* scratch) {
  const int thread = static_cast<int>(threadIdx.x), threads = static_cast<int>(blockDim.x);
  const int lane = thread & 31, warp = thread >> 5, warps = threads >> 5;
  int before = 0;
  for (int base = 0; base < batch.sequences; base += threads) {
    const int s = base + thread;
    int grains = 0;
    if (s < batch.sequences && batch.row_begin[s + 1] > batch.row_begin[s]) {
      grains = ceil_div(batch.contexts[s], kTileTokens * shape.grain_tiles) * shape.units;
    }
    int sum = grains;
    for (int step = 1; step < 32; step *= 2) {
      const int other = __shfl_up_sync(0xffffffffu, sum, step);
      if (lane >= step) sum += other;
    }
    if (lane == 31) scratch[warp] = sum;
    __syncthreads();
    int offset = before, all = before;
    for (int w = 0; w < warps; ++w) {
      if (w < warp) offset += scratch[w];
      all += scratch[w];
    }
    if (s < batch.sequences) prefix[s] = offset + sum - grains;
    before = all;
    __syncthreads();
  }
  if (thread == 0) prefix[batch.sequences] = before;
  __syncthreads();
  return units_whole(batch, shape, prefix, scratch);
}

// Counts a finished piece; true in all threads of the block that finishes the unit. Its partial results must have been
// written by this block's threads before.
__device__ inline bool finish_piece(int* counter, int pieces, int* flag) {
  __threadfence();
  __syncthreads();
  if (threadIdx.x == 0) {
    const int arrived = atomicAdd(counter, 1);
    *flag = arrived == pieces - 1;
    if (arrived == pieces - 1) *counter = 0;
  }
  __syncthreads();
  const bool last = *flag != 0;
  if (last) __threadfence();
  return last;
}

}  // namespace spillway::kernels::cuda
