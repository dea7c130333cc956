// What a block of gemm_fp8_few_rows.cu works on: which experts there are, which tiles of theirs it computes.
//
// A tile is 256 rows of the weight by one block of rows of x, all of K; where outputs are summed over experts, 256 rows
// by the K of all experts in a row. Of few tokens' tiles every block has an even share along K (Walk). Rows by expert,
// whose tiles are many, are claimed one after the other, the last ones in pieces of K (Claims): memory is shared evenly
// among blocks while all of them read, so whoever falls behind stays behind, and with fixed shares the rest waited.
//
// What several blocks share belongs to the one that has its beginning. The others leave their parts and go on; it adds
// them up, in order, when it ends. Nobody waits for an answer while weights are to be read: behind all that is under
// way each takes several us.
#pragma once

#include <cstdint>

#include "kernels/cuda/gemm_fp8_few_rows.h"

namespace spillway::kernels::cuda {

constexpr int kTileOutputs = 256;  // rows of the weight
constexpr int kBand = 8;       // row blocks whose tiles are in flight together: an expert of two blocks is read once
constexpr int kListMax = 160;  // experts of few tokens
constexpr int kBitWords = 16;  // experts in all: 32 times this
constexpr int kPiecesMax = 4;  // of a tile

// What the tokens of a call chose, where there are few: every block finds it out for itself, from the ids.
template <int kRows>
struct ExpertList {
  alignas(16) uint32_t bits[kBitWords];  // alone in what wide loads of it take
  int experts[kListMax];
  float factors[kListMax][kRows];  // of a token's row: its weight, 0 where the expert was not chosen
  int used;

  // All threads, of which there are more than items; rising by number of the expert.
  __device__ __forceinline__ void find(const ExpertChoice& c, int experts_of_all) {
    const int slots = c.slots + (c.shared ? 1 : 0), thread = static_cast<int>(threadIdx.x),
              threads = static_cast<int>(blockDim.x), token = thread / slots, slot = thread % slots;
    if (c.slots == 0) {  // a dense product
      if (thread == 0) experts[0] = experts_of_all, used = 1;
      return __syncthreads();
    }
    const bool mine = token < c.tokens;
    int e = experts_of_all, at = 0;
    float weight = 1.0f;
    if (mine && slot < c.slots) {
      e = __ldcg(c.ids + token * c.slots + slot);
      weight = __ldcg(c.weights + token * c.slots + slot);
    }
    for (int i = thread; i < kBitWords; i += threads) bits[i] = 0;
    for (int i = thread; i < c.tokens * slots * kRows; i += threads) factors[i / kRows][i % kRows] = 0;
    __syncthreads();
    if (mine) atomicOr(&bits[e / 32], 1u << (e % 32));
    __syncthreads();
    if (mine) {
#pragma unroll
      for (int w = 0; w < kBitWords; ++w) {
        const uint32_t below = w < e / 32 ? ~0u : w == e / 32 ? (1u << (e % 32)) - 1 : 0u;
        at += __popc(bits[w] & below);
      }
      atomicExch(&experts[at], e);
      atomicAdd(&factors[at][token], weight);
    }
    if (thread == threads - 1) {
      int count = 0;
#pragma unroll
      for (int w = 0; w < kBitWords; ++w) count += __popc(bits[w]);
      used = count;
    }
    __syncthreads();
  }
};

struct Segment {
  int tile;
  int begin, end;  // of the tile's steps along K
  int shared;      // number of the tile among those that several blocks share; -1: all of it is this block's
};

// Who has what of a shared tile, by places in the workspace.
struct Sharing {
  int counter;
  int mine;         // of a part that is not the beginning
  int from, count;  // of all those
};

// The segments of a block in order; both sides of its ring walk them alike.
class Walk {
 public:
  // steps: of a tile. rounds: whether tiles are taken whole at first.
  __device__ __forceinline__ Walk(int tiles, int steps, bool rounds) : steps_(steps) {
    const int blocks = static_cast<int>(gridDim.x), block = static_cast<int>(blockIdx.x);
    rounds_ = rounds ? max(tiles / blocks - 1, 0) : 0;
    first_shared_ = rounds_ * blocks;
    units_ = (tiles - first_shared_) * steps;
    sharers_ = min(blocks, units_);
    at_ = block < sharers_ ? begin_of(block) : 0;
    end_ = block < sharers_ ? begin_of(block + 1) : 0;
  }
  __device__ __forceinline__ bool next(Segment* s) {
    if (round_ < rounds_) {
      *s = {round_++ * static_cast<int>(gridDim.x) + static_cast<int>(blockIdx.x), 0, steps_, -1};
      return true;
    }
    if (at_ >= end_) return false;
    const int tile = at_ / steps_, begin = at_ % steps_, end = min(steps_, begin + end_ - at_);
    *s = {first_shared_ + tile, begin, end, begin == 0 && end == steps_ ? -1 : tile};
    at_ += end - begin;
    return true;
  }
  // A block has at most one part of a tile that it did not begin.
  __device__ __forceinline__ Sharing sharing(const Segment& s) const {
    const int first = block_of(s.shared * steps_), last = block_of((s.shared + 1) * steps_ - 1);
    return {s.shared, static_cast<int>(blockIdx.x), first + 1, last - first};
  }

 private:
  __device__ __forceinline__ int begin_of(int block) const {
    return static_cast<int>(static_cast<int64_t>(block) * units_ / sharers_);
  }
  __device__ __forceinline__ int block_of(int unit) const {
    return static_cast<int>((static_cast<int64_t>(unit + 1) * sharers_ - 1) / units_);
  }

  int steps_, rounds_, first_shared_, units_, sharers_, at_, end_, round_ = 0;
};

// What a claim's number means. The last tiles, one a block, are claimed in pieces, the one with the beginning last, so
// that the others are under way when it ends.
class Claims {
 public:
  __device__ __forceinline__ Claims(int tiles, int steps)
      : steps_(steps), pieces_(max(min(steps / kPieceSteps, kPiecesMax), 1)) {
    const int split = pieces_ > 1 ? min(tiles, static_cast<int>(gridDim.x)) : 0;
    whole_ = tiles - split, total_ = whole_ + split * pieces_;
  }
  __device__ __forceinline__ int total() const { return total_; }
  __device__ __forceinline__ Segment segment(int claim) const {
    if (claim < whole_) return {claim, 0, steps_, -1};
    const int tile = (claim - whole_) / pieces_, piece = pieces_ - 1 - (claim - whole_) % pieces_;
    return {whole_ + tile, piece * steps_ / pieces_, (piece + 1) * steps_ / pieces_, tile};
  }
  __device__ __forceinline__ Sharing sharing(int claim) const {
    const int tile = (claim - whole_) / pieces_, piece = pieces_ - 1 - (claim - whole_) % pieces_;
    return {tile, tile * pieces_ + piece, tile * pieces_ + 1, pieces_ - 1};
  }

 private:
  static constexpr int kPieceSteps = 8;

  int steps_, pieces_, whole_, total_;
};

}  // namespace spillway::kernels::cuda
