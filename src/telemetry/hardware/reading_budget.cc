#include "telemetry/hardware/reading_budget.h"

#include <cmath>

namespace spillway::telemetry {
namespace {

constexpr double kNewest = 0.2;      // share of the newest cost in the mean
constexpr double kWorthMin_s = 0.1;  // a kind that is cheap enough for this period is read whenever asked

}  // namespace

ReadingBudget::ReadingBudget(double share, std::vector<double> weights, size_t units) : share_(share) {
  for (const double weight : weights) kinds_.push_back({weight, 0, std::vector<TimePoint>(units)});
}

double ReadingBudget::period_s(size_t kind) const {
  double sum = 0;
  for (const Kind& each : kinds_) sum += double(each.taken.size()) * std::sqrt(each.cost_s * each.weight);
  const double period = std::sqrt(kinds_[kind].cost_s / kinds_[kind].weight) * sum / share_;
  return period < kWorthMin_s ? 0 : period;
}

bool ReadingBudget::is_due(size_t kind, size_t unit, TimePoint now) const {
  const TimePoint taken = kinds_[kind].taken[unit];
  return taken == TimePoint{} || seconds(now - taken) >= period_s(kind);
}

void ReadingBudget::note(size_t kind, size_t unit, TimePoint now, double cpu_s) {
  Kind& each = kinds_[kind];
  each.cost_s = each.cost_s == 0 ? cpu_s : each.cost_s + kNewest * (cpu_s - each.cost_s);
  each.taken[unit] = now;
}

}  // namespace spillway::telemetry
