// LatencyTable: how long batches took, measured by (cost, inputs), and what a batch of any size is expected to take:
// its cell where that was measured lately, else a plane laid through all cells. Values; the scheduler's.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <utility>
#include <vector>

#include "base/clock.h"

namespace spillway::engine {

class LatencyTable {
 public:
  // A cell that was not measured for this long is worth measuring again, and begins anew when it is.
  static constexpr double kFresh_s = 120;
  static constexpr int kTrusted = 3;  // samples that make a cell

  void add(int64_t cost, int inputs, double latency_s, TimePoint now);

  bool measured() const { return !cells_.empty(); }
  // 0 while nothing is measured.
  double predict(int64_t cost, int inputs) const;

  // Measured batches by cost, smallest first: what each cost and took in the mean. One point a bucket of cost.
  struct Point {
    double cost = 0;
    double inputs = 0;
    double latency_s = 0;
    int samples = 0;
    TimePoint last;
    double cost_per_s() const { return latency_s > 0 ? cost / latency_s : 0; }
  };
  std::vector<Point> by_cost(int samples_min = kTrusted) const;

  static int cost_bucket(int64_t cost);  // four an octave
  static int inputs_bucket(int inputs);  // two an octave

 private:
  struct Cell {
    double cost = 0, inputs = 0, latency_s = 0;  // moving means
    int samples = 0;
    TimePoint last;
  };
  void fit() const;

  std::map<std::pair<int, int>, Cell> cells_;
  mutable std::array<double, 3> plane_{};  // base, a cost, an input
  mutable int unfitted_ = 0;               // samples since the plane was laid
  mutable bool fitted_ = false;
};

}  // namespace spillway::engine
