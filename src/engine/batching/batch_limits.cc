#include "engine/batching/batch_limits.h"

#include <algorithm>
#include <cmath>

namespace spillway::engine {
namespace {

constexpr double kNearBest = 0.995;     // of the best throughput: what the smallest cap must keep
constexpr double kGoodEnough = 0.98;    // of the best throughput: no reason for a larger cap
constexpr double kMuchBetter = 1.15;    // than the largest size: a few samples are enough to say so
constexpr double kCapStep = 1.25;       // a cap nearer to the present one than this is no reason to move
constexpr double kDelayGain = 0.9;      // a delay must lower the waits to this share
constexpr int kBatchesMin = 64;         // measured before anything moves
constexpr int kBurstsMin = 50;          // watched before a delay is judged
constexpr size_t kBurstArrivals = 512;  // kept of one burst

double fourth(double x) { return x * x * x * x; }

}  // namespace

void BatchLimits::arrived(int64_t cost, int inputs, bool found_idle, const LatencyTable& table, TimePoint now) {
  if (options_.delay_max_s <= 0 || !table.measured()) return;
  if (!burst_.empty() && seconds(now - burst_began_) > burst_span_s_) judge_burst(table);
  if (burst_.empty()) {
    if (!found_idle) return;
    burst_began_ = now;
    burst_span_s_ = table.predict(cost, inputs);
  }
  if (burst_.size() < kBurstArrivals) burst_.push_back({seconds(now - burst_began_), cost, inputs});
}

void BatchLimits::judge_burst(const LatencyTable& table) {
  for (int k = 0; k < kDelays; ++k) {
    const double delay_s = std::min(kShares[k] * burst_span_s_, options_.delay_max_s);
    int64_t cost = 0, rest_cost = 0;
    int inputs = 0, rest_inputs = 0;
    double last_s = 0;
    for (const Arrival& arrival : burst_) {
      const bool first = arrival.at_s <= delay_s;
      (first ? cost : rest_cost) += arrival.cost;
      (first ? inputs : rest_inputs) += arrival.inputs;
      last_s = arrival.at_s;
    }
    const double first_end_s = delay_s + table.predict(cost, inputs);
    // What came after the first batch began waits for its end, or comes to a device that is free again.
    const double rest_end_s =
        std::max(first_end_s, last_s) + (rest_inputs > 0 ? table.predict(rest_cost, rest_inputs) : 0);
    double sum = 0;
    for (const Arrival& arrival : burst_) {
      sum += arrival.inputs * fourth((arrival.at_s <= delay_s ? first_end_s : rest_end_s) - arrival.at_s);
    }
    regret_[k] += sum;
    delay_sum_s_[k] += delay_s;
  }
  ++bursts_;
  burst_.clear();
}

double BatchLimits::best_delay() const {
  if (bursts_ < kBurstsMin) return delay_s_;
  // The candidate that the present delay is nearest to, and the best.
  int present = 0, best = 0;
  for (int k = 1; k < kDelays; ++k) {
    const auto off = [&](int i) { return std::abs(delay_sum_s_[i] / bursts_ - delay_s_); };
    if (off(k) < off(present)) present = k;
    if (regret_[k] < regret_[best]) best = k;
  }
  if (best == present || regret_[best] > fourth(kDelayGain) * regret_[present]) return delay_s_;
  return delay_sum_s_[best] / bursts_;
}

int64_t BatchLimits::best_cap(const LatencyTable& table) const {
  const auto points = table.by_cost();
  if (points.empty()) return options_.cost_max;
  double best = 0;
  for (const auto& point : points) best = std::max(best, point.cost_per_s());
  // What is larger than all that was measured is as the table expects it.
  const auto& largest = points.back();
  const double each = largest.cost / std::max(1.0, largest.inputs);
  const double reach = std::min(static_cast<double>(options_.cost_max), each * options_.inputs_max);
  const double reach_s = table.predict(std::llround(reach), static_cast<int>(std::lround(reach / each)));
  const double reach_rate = reach_s > 0 ? reach / reach_s : 0;
  if (reach > largest.cost * kCapStep) best = std::max(best, reach_rate);
  // The smallest size that is as good as the best, and well known or much better than the largest.
  double cap = static_cast<double>(options_.cost_max);
  for (auto point = points.rbegin(); point != points.rend(); ++point) {
    const double rate = point->cost_per_s();
    const bool known = point->samples >= kSamplesMin || rate >= kMuchBetter * reach_rate;
    if (known && rate >= kNearBest * best) cap = point->cost;
  }
  if (cap * kCapStep > reach) cap = static_cast<double>(options_.cost_max);
  // A larger cap than the present one must be worth it.
  const auto present = static_cast<double>(cap_);
  for (const auto& point : points) {
    const bool near = point.cost <= present && point.cost * kCapStep > present;
    if (cap > present && near && point.cost_per_s() >= kGoodEnough * best) cap = present;
  }
  if (options_.latency_target_s > 0) {
    // One batch to wait for and one to be in.
    for (auto point = points.rbegin();
         point != points.rend() && 2 * table.predict(int64_t(cap), 1) > options_.latency_target_s; ++point) {
      if (point->cost < cap) cap = point->cost;
    }
  }
  return std::max<int64_t>(1, std::llround(cap));
}

bool BatchLimits::update(const LatencyTable& table, TimePoint now) {
  if (!started_) settle(table);
  ++batches_;
  if (moves_ > 0 && seconds(now - moved_) < options_.cooldown_s) return false;
  if (batches_ < kBatchesMin) return false;
  const int64_t cap = best_cap(table);
  const double delay_s = best_delay();
  const double ratio = static_cast<double>(std::max(cap, cap_)) / static_cast<double>(std::min(cap, cap_));
  const bool cap_moves = ratio >= kCapStep;
  const bool delay_moves = delay_s != delay_s_;
  if (bursts_ >= kBurstsMin) {
    regret_ = {};
    delay_sum_s_ = {};
    bursts_ = 0;
  }
  if (!cap_moves && !delay_moves) return false;
  if (cap_moves) cap_ = cap;
  delay_s_ = delay_s;
  moved_ = now;
  batches_ = 0;
  ++moves_;
  return true;
}

void BatchLimits::settle(const LatencyTable& table) {
  cap_ = best_cap(table);
  started_ = true;
}

}  // namespace spillway::engine
