// The batch scheduler in simulated time, against policies of a fixed size, over steady, recorded, square-wave and
// adversarial traffic. The device's latency is a function of the batch; the clock is moved by hand, so a seed gives the
// same figures on every machine.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <deque>
#include <fstream>
#include <functional>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "engine/batching/batch_scheduler.h"

namespace spillway::engine {
namespace {

constexpr int kInputsMax = 64;
constexpr int64_t kCostMax = 16384;

struct Input {
  double at_s;
  int64_t cost;
};
using Trace = std::vector<Input>;

// Seconds of a batch.
using Device = std::function<double(int64_t cost, int inputs)>;

// A GPU: mostly a fixed time until it is filled, then by tokens. A CPU: by tokens nearly alone. A device whose large
// batches fall out of its cache. One that computes in tiles.
double gpu(int64_t cost, int inputs) { return 0.0008 + 4e-6 * inputs + std::max(0.0005, 2.0e-7 * double(cost)); }
double cpu(int64_t cost, int inputs) { return 0.0004 + 2e-5 * inputs + 2.0e-5 * double(cost); }
double cache_bound(int64_t cost, int inputs) { return cpu(cost, inputs) * (cost > 2048 ? 1.3 : 1); }
double tiled(int64_t cost, int inputs) { return 0.0003 + 1e-5 * inputs + 0.002 * std::ceil(double(cost) / 2048); }

const std::pair<const char*, Device> kDevices[] = {
    {"gpu", gpu}, {"cpu", cpu}, {"cache-bound", cache_bound}, {"tiled", tiled}};

struct Outcome {
  std::vector<double> latency_s;
  std::vector<double> moves_s;  // when the cap or the delay moved
  double end_s = 0;
  int64_t cost = 0;

  double percentile(double p) {
    std::ranges::sort(latency_s);
    return latency_s[std::min(latency_s.size() - 1, size_t(p * double(latency_s.size())))];
  }
  double cost_per_s() const { return double(cost) / end_s; }
};

// Lengths like SQuAD's: mean 165, at most 384.
int64_t length(std::mt19937_64& random) {
  const double drawn = std::lognormal_distribution<double>(std::log(155.0), 0.35)(random);
  return std::clamp<int64_t>(std::llround(drawn), 16, 384);
}

// Arrivals of a rate that changes with time.
Trace arrivals(uint64_t seed, double duration_s, const std::function<double(double)>& rate, int burst = 1) {
  std::mt19937_64 random(seed);
  Trace trace;
  for (double at = 0; at < duration_s;) {
    at += std::exponential_distribution<double>(std::max(1e-3, rate(at)) / burst)(random);
    for (int i = 0; i < burst; ++i) trace.push_back({at + i * 2e-5, length(random)});
  }
  return trace;
}

TimePoint time_of(double at_s) { return TimePoint(from_seconds(at_s)); }

// The scheduler, driven as the engine drives it.
Outcome simulate(const Trace& trace, const Device& device, BatchLimitOptions limits = {.delay_max_s = 0.002}) {
  limits.cost_max = kCostMax;
  limits.inputs_max = kInputsMax;
  BatchScheduler scheduler(limits, {});
  double now = 0;
  // As the warm-up does.
  for (int inputs = 1; inputs <= kInputsMax; inputs *= 2) {
    for (int i = 0; i < 3; ++i) scheduler.measured(128 * inputs, inputs, device(128 * inputs, inputs), time_of(now));
  }
  scheduler.warmed_up();
  Outcome outcome;
  std::vector<double> arrived(trace.size() + 1);
  size_t next = 0;
  double busy_until = 0;
  const auto admit = [&](double until, bool device_free) {
    for (; next < trace.size() && trace[next].at_s <= until; ++next) {
      const OneShotId id = next + 1;
      arrived[id] = trace[next].at_s;
      scheduler.add({{id, trace[next].cost, Priority::kNormal, time_of(trace[next].at_s), TimePoint::max()}},
                    device_free, time_of(trace[next].at_s));
    }
  };
  while (next < trace.size() || !scheduler.line().empty()) {
    const TimePoint due = scheduler.due(time_of(now));
    if (due > time_of(now)) {
      const double wake = due == TimePoint::max() ? 1e18 : seconds(due.time_since_epoch());
      const double arrival = next < trace.size() ? trace[next].at_s : 1e18;
      now = std::max(now, std::min(wake + 2e-9, arrival));  // a rounded time must not be before it
      admit(now, true);
      continue;
    }
    BatchDecision decision = scheduler.next(time_of(now));
    if (decision.launch.empty()) {
      now += 1e-6;
      continue;
    }
    const auto inputs = static_cast<int>(decision.launch.size());
    EXPECT_LE(inputs, kInputsMax);
    EXPECT_LE(decision.cost, kCostMax);
    const double taken = device(decision.cost, inputs);
    busy_until = now + taken;
    admit(busy_until, false);
    now = busy_until;
    for (const WaitingInput& input : decision.launch) outcome.latency_s.push_back(now - arrived[input.id]);
    outcome.cost += decision.cost;
    if (scheduler.finished(decision.cost, inputs, taken, time_of(now))) outcome.moves_s.push_back(now);
  }
  outcome.end_s = now;
  EXPECT_EQ(outcome.latency_s.size(), trace.size());
  return outcome;
}

// What others do: batches of at most `size`, started when so many wait or the oldest has waited `delay`.
Outcome simulate_fixed(const Trace& trace, const Device& device, int size, double delay_s) {
  Outcome outcome;
  std::deque<Input> line;
  size_t next = 0;
  double now = 0;
  while (next < trace.size() || !line.empty()) {
    for (; next < trace.size() && trace[next].at_s <= now; ++next) line.push_back(trace[next]);
    if (line.empty()) {
      now = trace[next].at_s;
      continue;
    }
    const double held = line.front().at_s + delay_s;
    if (int(line.size()) < size && now < held) {
      now = next < trace.size() ? std::min(held, trace[next].at_s) : held;
      if (now < held) continue;
    }
    int64_t cost = 0;
    int inputs = 0;
    while (inputs < size && inputs < int(line.size()) && cost + line[size_t(inputs)].cost <= kCostMax)
      cost += line[size_t(inputs++)].cost;
    now += device(cost, inputs);
    for (int i = 0; i < inputs; ++i) {
      outcome.latency_s.push_back(now - line.front().at_s);
      line.pop_front();
    }
    outcome.cost += cost;
  }
  outcome.end_s = now;
  return outcome;
}

constexpr int kSizes[] = {1, 2, 4, 8, 16, 32, 64};
constexpr double kDelays_s[] = {0, 0.0005, 0.002, 0.005, 0.02};

struct Case {
  const char* name;
  Device device;
  Trace trace;
  double bound = 1.06;  // of the best fixed policy's p99
};

double capacity(const Device& device) {  // inputs a second of the largest batches
  double best = 0;
  for (const int size : kSizes) best = std::max(best, size / device(165 * size, size));
  return best;
}

// More at once than any device can do: the line does not empty before the end.
Trace flood() {
  return arrivals(7, 1, [](double) { return 60'000; });
}

double saturated(const Device& device, int size) { return simulate_fixed(flood(), device, size, 0).cost_per_s(); }

// What triton_load.py --poisson sent to a server in 60 seconds with bursts of three times the rate, as it was measured:
// microseconds and tokens a line. Its time is stretched so that the device gets the given share of what it can do. A
// seed other than 0 puts its thirtieths into another order.
Trace recorded(const Device& device, double load, uint64_t seed) {
  std::ifstream in(SPILLWAY_SOURCE_DIR "/tests/data/arrivals.txt");
  Trace trace;
  double at_us = 0;
  int64_t tokens = 0, all = 0;
  while (in >> at_us >> tokens) {
    trace.push_back({at_us * 1e-6, tokens});
    all += tokens;
  }
  EXPECT_GT(trace.size(), 5000u);
  double best = 0;
  const double mean = double(all) / double(trace.size());
  for (const int size : kSizes) best = std::max(best, size / device(std::llround(mean * size), size));
  const double stretch = double(trace.size()) / trace.back().at_s / (load * best);
  for (Input& input : trace) input.at_s *= stretch;
  if (seed == 0) return trace;
  constexpr int kParts = 30;
  const double span_s = trace.back().at_s / kParts;
  std::vector<Trace> parts(kParts);
  for (const Input& input : trace) {
    const int part = std::min(kParts - 1, int(input.at_s / span_s));
    parts[size_t(part)].push_back({input.at_s - part * span_s, input.cost});
  }
  std::mt19937_64 random(seed);
  std::ranges::shuffle(parts, random);
  trace.clear();
  for (int part = 0; part < kParts; ++part) {
    for (const Input& input : parts[size_t(part)]) trace.push_back({input.at_s + part * span_s, input.cost});
  }
  return trace;
}

std::vector<Case> cases(uint64_t seed) {
  std::vector<Case> all;
  for (const auto& [name, device] : kDevices) {
    const double most = capacity(device);
    const double duration_s = std::min(120.0, 40'000 / most);
    for (const double load : {0.1, 0.5, 0.8, 0.95}) {
      // Near saturation a few queues are the whole percentile.
      all.push_back({name, device, arrivals(seed + 1, duration_s, [=](double) { return load * most; }),
                     load > 0.9 ? 1.25 : 1.06});
    }
    // A tile's time is the same however little of it is filled, and these traces end before a delay could be learned.
    for (const double load : {0.4, 0.7})
      all.push_back({name, device, recorded(device, load, seed), std::string(name) == "tiled" ? 1.25 : 1.06});
    // A square wave, and one whose period is the cooldown's.
    all.push_back({name, device, arrivals(seed + 2, duration_s, [=](double at) {
                     return std::fmod(at, 2) < 1 ? 0.1 * most : 0.9 * most;
                   })});
    all.push_back({name, device, arrivals(seed + 3, duration_s, [=](double at) {
                     return std::fmod(at, 60) < 30 ? 0.05 * most : 0.9 * most;
                   })});
    // Bursts of one client, and rare bursts above what the device can do.
    all.push_back({name, device,
                   arrivals(
                       seed + 4, std::max(duration_s, 20.0), [=](double) { return 0.3 * most; }, 16)});
    all.push_back({name, device, arrivals(seed + 5, duration_s, [=](double at) {
                     return std::fmod(at, 10) < 1 ? 3 * most : 0.4 * most;
                   })});
  }
  return all;
}

// The 99th percentile over that of the best of the fixed policies that can deliver the same throughput, with its size
// and delay chosen for this very trace in hindsight.
std::vector<double> tails_of_the_best(uint64_t seed) {
  std::vector<double> ratios;
  std::map<std::string, std::map<int, double>> saturated_rates;
  for (const Case& one : cases(seed)) {
    Outcome ours = simulate(one.trace, one.device);
    std::map<int, double>& rates = saturated_rates[one.name];
    if (rates.empty()) {
      for (const int size : kSizes) rates[size] = saturated(one.device, size);
    }
    const double most = std::ranges::max_element(rates, {}, [](const auto& rate) { return rate.second; })->second;
    double best = 1e18;
    for (const int size : kSizes) {
      if (rates[size] < 0.99 * most) continue;
      for (const double delay_s : kDelays_s) {
        best = std::min(best, simulate_fixed(one.trace, one.device, size, delay_s).percentile(0.99));
      }
    }
    ratios.push_back(ours.percentile(0.99) / best);
    EXPECT_LE(ratios.back(), one.bound) << one.name << " case " << ratios.size() - 1 << " of seed " << seed;
  }
  return ratios;
}

// Lower in the mean, and where not, near, on traces that no constant was chosen by as well (seeds other than 0 and
// 100).
TEST(BatchingSimulation, NoFixedPolicyOfTheSameThroughputHasALowerTail) {
  for (const uint64_t seed : {0, 40}) {
    double log_sum = 0;
    const std::vector<double> ratios = tails_of_the_best(seed);
    for (const double ratio : ratios) log_sum += std::log(ratio);
    EXPECT_LT(std::exp(log_sum / static_cast<double>(ratios.size())), 0.985) << "seed " << seed;
  }
}

TEST(BatchingSimulation, SaturationIsNearTheBestFixedBatch) {
  for (const auto& [name, device] : kDevices) {
    double best = 0;
    for (const int size : kSizes) best = std::max(best, saturated(device, size));
    const double ours = simulate(flood(), device).cost_per_s();
    EXPECT_GE(ours, 0.97 * best) << name;
  }
}

// Whatever comes: traffic made to swing the limits, by its lengths and its rate, around the cooldown.
TEST(BatchingSimulation, LimitsMoveAtMostOnceInACooldown) {
  for (const auto& [name, device] : kDevices) {
    const double most = capacity(device);
    for (const double period_s : {0.5, 1.0, 1.9, 4.0}) {
      BatchLimitOptions limits;
      limits.cooldown_s = 1;
      limits.delay_max_s = 0.002;
      std::mt19937_64 random(11);
      Trace trace;
      for (double at = 0; at < 20 && trace.size() < 100'000;) {
        const bool even = std::fmod(at, 2 * period_s) < period_s;
        at += std::exponential_distribution<double>((even ? 0.2 : 1.2) * most / (even ? 16 : 1))(random);
        for (int i = 0; i < (even ? 16 : 1); ++i)
          trace.push_back({at + i * 1e-5, even ? 384 : 16 + int64_t(random() % 64)});
      }
      // A device that is slow now and then, as one with neighbours is.
      int batches = 0;
      const Device unsteady = [&, steady = device](int64_t cost, int inputs) {
        return steady(cost, inputs) * (++batches % 97 < 10 ? 2.5 : 1);
      };
      const Outcome outcome = simulate(trace, unsteady, limits);
      for (size_t i = 1; i < outcome.moves_s.size(); ++i) {
        EXPECT_GE(outcome.moves_s[i] - outcome.moves_s[i - 1], limits.cooldown_s)
            << name << " at " << outcome.moves_s[i];
      }
    }
  }
}

TEST(BatchingSimulation, LimitsDoMove) {
  BatchLimitOptions limits;
  limits.delay_max_s = 0.002;
  const Outcome capped = simulate(flood(), cache_bound);
  EXPECT_GE(capped.moves_s.size() + (capped.cost_per_s() > 48'000), 1u);
  // Clients that send sixteen at a time, to a device for which one takes as long as all: waiting for the rest pays.
  const Trace bursts = arrivals(
      4, 20, [](double) { return 2000; }, 16);
  Outcome waiting = simulate(bursts, gpu, limits), greedy = simulate(bursts, gpu, {.delay_max_s = 0});
  EXPECT_EQ(waiting.moves_s.size(), 1u);
  EXPECT_LT(waiting.percentile(0.5), 0.9 * greedy.percentile(0.5));
}

}  // namespace
}  // namespace spillway::engine
