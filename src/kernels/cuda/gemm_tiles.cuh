// Which tile a persistent block works on next. The warp that loads and those that multiply walk the same way, each with
// a walk of its own. Blocks of a cluster get neighbouring outputs of the same rows.
#pragma once

#include <cstdint>

namespace spillway::kernels::cuda {

// kDense: one weight. kContiguous: rows sorted by expert in blocks of 128. kMasked: rows_max rows an expert, counts of
// them valid.
enum class TileMode : uint8_t { kDense, kContiguous, kMasked };

struct TilePlan {
  int m, n, experts, rows_max;
  const int32_t* block_experts;
  const int32_t* counts;
};

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
  __device__ explicit TileWalk(const TilePlan& plan)
      : plan_(plan),
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
        expert = __ldg(plan_.block_experts + row_tile * kRows / 128);
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
    while (expert_ < plan_.experts) {
      const int count = __ldg(plan_.counts + expert_);
      const int row_tiles = (count + kRows - 1) / kRows, tiles = row_tiles * column_tiles_;
      if (at_ - before_ < tiles) {
        const int in_expert = at_ - before_;
        const int first = expert_ * plan_.rows_max;
        set(place, first + in_expert % row_tiles * kRows, first + count, in_expert / row_tiles, expert_);
        at_ += static_cast<int>(gridDim.x) / kCluster;
        return true;
      }
      before_ += tiles;
      ++expert_;
    }
    return false;
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
  int column_tiles_;
  int at_;
  int expert_ = 0;
  int before_ = 0;
};

}  // namespace spillway::kernels::cuda
