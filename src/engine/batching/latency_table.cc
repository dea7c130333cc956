#include "engine/batching/latency_table.h"

#include <algorithm>
#include <cmath>

namespace spillway::engine {
namespace {

constexpr double kGain = 0.1;   // of a new sample in a cell's means
constexpr int kRefit = 16;      // samples between two fits
constexpr double kOutlier = 4;  // a sample above this many times its cell's mean counts as this

using Matrix = std::array<std::array<double, 4>, 3>;

// Gauss-Jordan with pivots; a row without pivot gives 0.
std::array<double, 3> solve(Matrix m) {
  for (int column = 0; column < 3; ++column) {
    int pivot = column;
    for (int row = column + 1; row < 3; ++row) {
      if (std::abs(m[row][column]) > std::abs(m[pivot][column])) pivot = row;
    }
    std::swap(m[column], m[pivot]);
    if (std::abs(m[column][column]) < 1e-30) continue;
    for (int row = 0; row < 3; ++row) {
      if (row == column) continue;
      const double factor = m[row][column] / m[column][column];
      for (int k = column; k < 4; ++k) m[row][k] -= factor * m[column][k];
    }
  }
  std::array<double, 3> x{};
  for (int i = 0; i < 3; ++i) x[i] = std::abs(m[i][i]) < 1e-30 ? 0 : m[i][3] / m[i][i];
  return x;
}

}  // namespace

int LatencyTable::cost_bucket(int64_t cost) {
  return static_cast<int>(std::floor(4 * std::log2(static_cast<double>(std::max<int64_t>(cost, 1))) + 1e-9));
}

int LatencyTable::inputs_bucket(int inputs) {
  return static_cast<int>(std::floor(2 * std::log2(static_cast<double>(std::max(inputs, 1))) + 1e-9));
}

void LatencyTable::add(int64_t cost, int inputs, double latency_s, TimePoint now) {
  Cell& cell = cells_[{cost_bucket(cost), inputs_bucket(inputs)}];
  if (cell.samples > 0 && seconds(now - cell.last) > kFresh_s) cell = {};
  if (cell.samples >= kTrusted) latency_s = std::min(latency_s, kOutlier * cell.latency_s);
  const double gain = std::max(kGain, 1.0 / ++cell.samples);
  cell.cost += gain * (static_cast<double>(cost) - cell.cost);
  cell.inputs += gain * (inputs - cell.inputs);
  cell.latency_s += gain * (latency_s - cell.latency_s);
  cell.last = now;
  ++unfitted_;
}

void LatencyTable::fit() const {
  // Least squares over the cells; relative errors count, so that small batches are met as well as large ones.
  Matrix m{};
  for (const auto& [key, cell] : cells_) {
    const double weight = std::min(cell.samples, 8) / (cell.latency_s * cell.latency_s + 1e-18);
    const std::array<double, 3> row{1, cell.cost, cell.inputs};
    for (int i = 0; i < 3; ++i) {
      for (int j = 0; j < 3; ++j) m[i][j] += weight * row[i] * row[j];
      m[i][3] += weight * row[i] * cell.latency_s;
    }
  }
  // Cost and inputs may say the same (images): a slight pull to zero keeps the answer small, the inputs' first.
  m[0][0] *= 1 + 1e-9;
  m[1][1] *= 1 + 1e-6;
  m[2][2] *= 1 + 1e-3;
  plane_ = solve(m);
  if (plane_[2] < 0) {
    m[2] = {0, 0, 1, 0};
    m[0][2] = m[1][2] = 0;
    plane_ = solve(m);
  }
  for (double& part : plane_) part = std::max(part, 0.0);
  fitted_ = true;
  unfitted_ = 0;
}

double LatencyTable::predict(int64_t cost, int inputs) const {
  if (cells_.empty()) return 0;
  if (!fitted_ || unfitted_ >= kRefit) fit();
  const auto plane = [&](double at_cost, double at_inputs) {
    return plane_[0] + plane_[1] * at_cost + plane_[2] * at_inputs;
  };
  const double expected = plane(static_cast<double>(cost), inputs);
  const auto found = cells_.find({cost_bucket(cost), inputs_bucket(inputs)});
  if (found == cells_.end() || found->second.samples < kTrusted) return expected;
  const Cell& cell = found->second;
  // The plane only carries the cell's mean to where the batch lies in the cell.
  const double at_mean = plane(cell.cost, cell.inputs);
  return at_mean > 0 ? cell.latency_s * expected / at_mean : cell.latency_s;
}

std::vector<LatencyTable::Point> LatencyTable::by_cost(int samples_min) const {
  std::vector<Point> points;
  int bucket = -1;
  for (const auto& [key, cell] : cells_) {
    if (points.empty() || key.first != bucket) points.push_back({});
    bucket = key.first;
    Point& point = points.back();
    const int samples = std::min(cell.samples, 64);
    const double share = static_cast<double>(samples) / (point.samples + samples);
    point.cost += share * (cell.cost - point.cost);
    point.inputs += share * (cell.inputs - point.inputs);
    point.latency_s += share * (cell.latency_s - point.latency_s);
    point.samples += samples;
    point.last = std::max(point.last, cell.last);
  }
  std::erase_if(points, [&](const Point& point) { return point.samples < samples_min; });
  return points;
}

}  // namespace spillway::engine
