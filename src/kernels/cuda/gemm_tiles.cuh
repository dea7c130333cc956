// Which tile a persistent block works on next. The warp that loads and those that multiply walk the same way, each with
// a walk of its own. Blocks of a cluster get neighbouring outputs of the same rows.
#pragma once

#include <cstdint>

namespace spillway::kernels::cuda {

// kDense: one weight. kContiguous: rows sorted by expert in blocks of kRows. kMasked: rows_max rows an expert, counts
// of them valid.
enum class TileMode : uint8_t { kDense, kContiguous, kMasked };

struct TilePlan {
  int m, n, experts, rows_max;
  const int32_t* block_experts;
  const int32_t* counts;
};

constexpr int kExpertsMax = 1024;

// starts[e]: row tiles of the experts before e; starts[experts]: of all. One warp runs it.
template <int kRows>
__device__ void count_row_tiles(const TilePlan& plan, int* starts) {
  const int lane = threadIdx.x % 32;
  int before = 0;
  for (int first = 0; first < plan.experts; first += 32) {
    const int e = first + lane;
    int tiles = e < plan.experts ? (plan.counts[e] + kRows - 1) / kRows : 0;
    int sum = tiles;
#pragma unroll
    for (int step = 1; step < 32; step *= 2) {
      const int lower = __shfl_up_sync(~0u, sum, step);
      if (lane >= step) sum += lower;
    }
    if (e < plan.experts) starts[e] = before + sum - tiles;
    before += __shfl_sync(~0u, sum, 31);
  }
  if (lane == 0) starts[plan.experts] = before;
}

struct TilePlace {
  int x_row;      // first row of x and y
  int rows_end;   // rows from here on are not written
  int column;     // first output
  int w_row;      // first row of the weight (all experts stacked)
  int scale_row;  // row of the weight's scales
};

template <int kRows, int kColumns, int kCluster, TileMode kMode>
class TileWalk {
 public:
  // starts: kMasked's, from count_row_tiles.
  __device__ TileWalk(const TilePlan& plan, const int* starts)
      : plan_(plan),
        starts_(starts),
        column_tiles_((plan.n + kColumns * kCluster - 1) / (kColumns * kCluster)),
        at_(static_cast<int>(blockIdx.x) / kCluster) {}

  __device__ bool next(TilePlace* place) {
    if constexpr (kMode == TileMode::kMasked) return next_masked(place);
    const int row_tiles = (plan_.m + kRows - 1) / kRows, all = row_tiles * column_tiles_;
    while (at_ < all) {
      // Bands of kBand row tiles: what is in flight at once shares rows of x and of W in the L2.
      const int band = at_ / (kBand * column_tiles_), in_band = at_ % (kBand * column_tiles_);
      const int band_rows = min(kBand, row_tiles - band * kBand);
      const int row_tile = band * kBand + in_band % band_rows, column_tile = in_band / band_rows;
      at_ += static_cast<int>(gridDim.x) / kCluster;
      int expert = 0;
      if constexpr (kMode == TileMode::kContiguous) {
        expert = __ldcg(plan_.block_experts + row_tile);  // written by the previous kernel: not through L1
        if (expert < 0) continue;
      }
      set(place, row_tile * kRows, plan_.m, column_tile, expert);
      return true;
    }
    return false;
  }

 private:
  static constexpr int kBand = 8;

  __device__ bool next_masked(TilePlace* place) {
    if (at_ >= starts_[plan_.experts] * column_tiles_) return false;
    int expert = 0;  // the last one that starts at or before this tile
    for (int step = kExpertsMax / 2; step > 0; step /= 2) {
      if (expert + step <= plan_.experts && starts_[expert + step] * column_tiles_ <= at_) expert += step;
    }
    const int row_tiles = starts_[expert + 1] - starts_[expert], in_expert = at_ - starts_[expert] * column_tiles_;
    const int first = expert * plan_.rows_max;
    set(place, first + in_expert % row_tiles * kRows, first + plan_.counts[expert], in_expert / row_tiles, expert);
    at_ += static_cast<int>(gridDim.x) / kCluster;
    return true;
  }

  __device__ void set(TilePlace* place, int x_row, int rows_end, int column_tile, int expert) {
    const int rank = static_cast<int>(blockIdx.x) % kCluster;
    place->x_row = x_row;
    place->rows_end = rows_end;
    place->column = (column_tile * kCluster + rank) * kColumns;
    place->w_row = expert * plan_.n + place->column;
    const int scale_rows = (plan_.n + 127) / 128;
    place->scale_row = expert * scale_rows + min(place->column / 128, scale_rows - 1);
  }

  const TilePlan& plan_;
  const int* starts_;
  int column_tiles_;
  int at_;
};

}  // namespace spillway::kernels::cuda
