#include "telemetry/outcomes/statistics.h"

#include <algorithm>
#include <boost/math/distributions/normal.hpp>
#include <boost/math/distributions/students_t.hpp>
#include <cmath>
#include <functional>
#include <limits>
#include <vector>

namespace spillway::telemetry {
namespace {

constexpr double kUnknown = std::numeric_limits<double>::quiet_NaN();
constexpr double kUpper = (1 + kConfidence) / 2;

double normal_quantile() {
  static const double z = boost::math::quantile(boost::math::normal(), kUpper);
  return z;
}

double dcg(std::span<const double> grades) {
  double sum = 0;
  for (size_t i = 0; i < grades.size(); ++i) sum += (std::exp2(grades[i]) - 1) / std::log2(double(i) + 2);
  return sum;
}

}  // namespace

Estimate proportion(double successes, double n) {
  if (n <= 0) return {kUnknown, kUnknown, kUnknown, 0};
  const double z = normal_quantile(), p = successes / n, scale = 1 + z * z / n;
  const double middle = (p + z * z / (2 * n)) / scale;
  const double half = z / scale * std::sqrt(p * (1 - p) / n + z * z / (4 * n * n));
  return {p, std::max(0.0, middle - half), std::min(1.0, middle + half), n};
}

Estimate mean(double n, double sum, double sum_of_squares) {
  if (n <= 0) return {kUnknown, kUnknown, kUnknown, 0};
  const double value = sum / n;
  if (n < 2) return {value, kUnknown, kUnknown, n};
  const double variance = std::max(0.0, (sum_of_squares - sum * value) / (n - 1));
  const double half = boost::math::quantile(boost::math::students_t(n - 1), kUpper) * std::sqrt(variance / n);
  return {value, value - half, value + half, n};
}

void PairSums::add(double x_value, double y_value) {
  n += 1;
  x += x_value;
  y += y_value;
  xx += x_value * x_value;
  yy += y_value * y_value;
  xy += x_value * y_value;
}

void PairSums::add(const PairSums& other) {
  n += other.n;
  x += other.x;
  y += other.y;
  xx += other.xx;
  yy += other.yy;
  xy += other.xy;
}

Estimate ratio(const PairSums& s) {
  if (s.y <= 0) return {kUnknown, kUnknown, kUnknown, s.n};
  const double value = s.x / s.y;
  if (s.n < 2) return {value, kUnknown, kUnknown, s.n};
  const double degrees = s.n - 1, mean_y = s.y / s.n;
  const double variance_x = (s.xx - s.x * s.x / s.n) / degrees, variance_y = (s.yy - s.y * s.y / s.n) / degrees;
  const double covariance = (s.xy - s.x * s.y / s.n) / degrees;
  const double variance = (variance_x - 2 * value * covariance + value * value * variance_y) / (s.n * mean_y * mean_y);
  const double half = normal_quantile() * std::sqrt(std::max(0.0, variance));
  return {value, value - half, value + half, s.n};
}

double ndcg(std::span<const double> grades) {
  std::vector<double> ideal(grades.begin(), grades.end());
  std::ranges::sort(ideal, std::greater<>());
  const double best = dcg(ideal);
  return best > 0 ? dcg(grades) / best : 0;
}

double reciprocal_rank(std::span<const double> grades) {
  for (size_t i = 0; i < grades.size(); ++i) {
    if (grades[i] > 0) return 1 / double(i + 1);
  }
  return 0;
}

}  // namespace spillway::telemetry
