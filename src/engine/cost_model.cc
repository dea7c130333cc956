#include "engine/cost_model.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <sstream>
#include <utility>

namespace spillway::engine {
namespace {

constexpr const char* kLine = "step_cost";
constexpr double kFade = 0.99;      // a step ago counts 1 % less
constexpr double kRidge = 1e-6;     // keeps the system solvable when every step looks the same
constexpr double kTokenScale = 64;  // prefill tokens come by the hundred, rows by the one
// A rate remembers some events, so that what happens often is followed quickly when the machine slows down.
constexpr double kRateEvents = 200, kRateMemoryMin_s = 3, kRateMemoryMax_s = 30;

}  // namespace

std::string to_text(const StepCost& cost) {
  return fmt::format("{} {:.9g} {:.9g} {:.9g}\n", kLine, cost.base_s, cost.row_s, cost.token_s);
}

StepCost parse_step_cost(const std::string& text) {
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    std::istringstream words(line);
    std::string name;
    StepCost cost;
    if (!(words >> name >> cost.base_s >> cost.row_s >> cost.token_s) || name != kLine) continue;
    const double least = std::min({cost.base_s, cost.row_s, cost.token_s});
    cost.measured = least >= 0 && cost.step_s(1, 1) > 0 && std::isfinite(cost.step_s(1, 1));
    return cost.measured ? cost : StepCost{};
  }
  return {};
}

void CostModel::remember(const StepCost& cost) {
  if (!cost.measured) return;
  cost_ = cost;
  remembered_ = true;
}

void CostModel::observe(int decode_rows, int prefill_tokens, double step_s) {
  const std::array<double, 3> x = {1, static_cast<double>(decode_rows), prefill_tokens / kTokenScale};
  for (int i = 0; i < 3; ++i) {
    for (int j = 0; j < 3; ++j) products_[i][j] = products_[i][j] * kFade + x[i] * x[j];
    targets_[i] = targets_[i] * kFade + x[i] * step_s;
  }
  ++steps_;
  if (remembered_ && !settled()) return;
  if (steps_ < 8 || steps_ % 8 == 0) solve();
}

void CostModel::solve() {
  // Negative terms make no sense: drop the most negative one and solve for the others.
  std::array<bool, 3> used = {true, true, true};
  std::array<double, 3> x{};
  for (int round = 0; round < 3; ++round) {
    auto a = products_;
    auto b = targets_;
    for (int i = 0; i < 3; ++i) {
      a[i][i] += kRidge * (1 + a[i][i]);
      if (used[i]) continue;
      for (int j = 0; j < 3; ++j) a[i][j] = a[j][i] = 0;
      a[i][i] = 1;
      b[i] = 0;
    }
    for (int i = 0; i < 3; ++i) {  // positive definite: no pivoting
      for (int k = i + 1; k < 3; ++k) {
        const double factor = a[k][i] / a[i][i];
        for (int j = i; j < 3; ++j) a[k][j] -= factor * a[i][j];
        b[k] -= factor * b[i];
      }
    }
    for (int i = 2; i >= 0; --i) {
      x[i] = b[i];
      for (int j = i + 1; j < 3; ++j) x[i] -= a[i][j] * x[j];
      x[i] /= a[i][i];
    }
    const auto least = std::min_element(x.begin(), x.end());
    if (*least >= 0) break;
    used[least - x.begin()] = false;
    x[least - x.begin()] = 0;
  }
  cost_ = {std::max(0.0, x[0]), std::max(0.0, x[1]), std::max(0.0, x[2]) / kTokenScale, true};
}

void Rate::observe(double events, double busy_s) {
  const double memory_s = std::clamp(kRateEvents / std::max(per_s(), 1e-9), kRateMemoryMin_s, kRateMemoryMax_s);
  const double keep = std::exp(-busy_s / memory_s);
  events_ = events_ * keep + events;
  seconds_ = seconds_ * keep + busy_s;
}

}  // namespace spillway::engine
