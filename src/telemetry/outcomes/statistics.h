// Means, proportions and ratios with confidence intervals, and measures of ranked results. Pure functions.
#pragma once

#include <cstdint>
#include <span>

namespace spillway::telemetry {

struct Estimate {
  double value = 0, low = 0, high = 0;  // not a number where nothing was observed, or too little for an interval
  double n = 0;
};

inline constexpr double kConfidence = 0.95;

// Wilson's score interval.
Estimate proportion(double successes, double n);

// Student's t interval of a mean, from the sum and the sum of squares.
Estimate mean(double n, double sum, double sum_of_squares);

// Sums over n pairs (x, y).
struct PairSums {
  double n = 0, x = 0, y = 0, xx = 0, yy = 0, xy = 0;
  void add(double x_value, double y_value);
  void add(const PairSums& other);
};

// Sum of x over sum of y, with the interval of the delta method; not a number where y sums to nothing.
Estimate ratio(const PairSums& sums);

// Grades of results in the order they were shown; nDCG with gain 2^grade - 1, 0 where nothing is relevant.
double ndcg(std::span<const double> grades);
// 1 / rank of the first result with a grade over 0; 0 where there is none.
double reciprocal_rank(std::span<const double> grades);

}  // namespace spillway::telemetry
