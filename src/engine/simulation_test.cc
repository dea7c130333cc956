// A day of traffic in simulated time through the real core: same actions, same pages, a clock that the fake model
// moves. The invariants are checked as it goes.
#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <random>

#include "engine/core.h"
#include "engine/testing/collector.h"
#include "engine/testing/fake_model.h"

namespace spillway::engine {
namespace {

using testing::Collector;
using testing::FakeModel;
using testing::FakeOptions;

struct Traffic {
  double hours = 24;
  double requests_per_s = 0.15;
  int pages = 80;
  int sequences_max = 12;
  bool draft = false;
  bool device_draws = false;
};

class Day {
 public:
  Day(uint64_t seed, Traffic traffic) : traffic_(traffic), random_(seed) {
    FakeOptions fake{.context = 600, .draft = traffic.draft, .draws = traffic.device_draws};
    fake.on_forward = [this](std::span<const models::SequenceInput> batch) { forward(batch); };
    auto model = std::make_unique<FakeModel>(fake);
    auto storage = std::move(nn::KvStorage::create(model->info().kv, 16, traffic.pages, {})).value();
    runner_ = std::make_unique<Runner>(std::move(model), std::move(storage), tensor::Stream(1));
    EngineOptions options;
    options.sequences_max = traffic.sequences_max;
    options.batch_tokens_max = kBudget;
    Limits limits{.context_tokens = 600, .batch_tokens = kBudget, .prompt_logprob_rows = 64, .vocab = 64};
    core_ = std::make_unique<Core>(options, limits, *runner_, clock_);
  }

  void run() {
    const TimePoint end = clock_.now() + from_seconds(traffic_.hours * 3600);
    TimePoint next = clock_.now();
    while (clock_.now() < end || !core_->idle()) {
      while (next <= clock_.now() && next < end) {
        arrive();
        next += from_seconds(exponential(rate_at(next)));
      }
      if (core_->idle()) {
        clock_.advance(std::max(next, clock_.now() + std::chrono::milliseconds(1)) - clock_.now());
        continue;
      }
      step();
      if (::testing::Test::HasFatalFailure()) return;
    }
    finish();
  }

 private:
  static constexpr int kBudget = 128;
  struct Live {
    std::shared_ptr<Collector> sink;
    TimePoint submitted;
    int prompt = 0;
    Priority priority;
  };

  double exponential(double rate) { return std::exponential_distribution<double>(rate)(random_); }
  int uniform(int low, int high) { return std::uniform_int_distribution<int>(low, high)(random_); }
  // A wave over the day with two sharp bursts.
  double rate_at(TimePoint at) const {
    const double hour = seconds(at.time_since_epoch()) / 3600;
    const double burst = (hour > 9 && hour < 9.1) || (hour > 15 && hour < 15.05) ? 8 : 1;
    return traffic_.requests_per_s * burst * (1 + 0.8 * std::sin(hour / 24 * 6.2832));
  }

  void arrive() {
    const RequestId id = ++ids_;
    const int length = uniform(0, 9) == 0 ? uniform(200, 500) : uniform(1, 60);
    std::vector<int32_t> prompt(length);
    std::mt19937_64 words(uniform(0, 4) == 0 ? 77 : id);  // some share a system prompt
    for (auto& token : prompt) token = static_cast<int32_t>(words() % 64);
    auto request = testing::make_request(id, std::move(prompt), uniform(1, 80), traffic_.device_draws ? 0.0f : 0.9f);
    request->priority = static_cast<Priority>(uniform(0, 9) == 0 ? 1 : uniform(0, 4) == 0 ? -1 : 0);
    request->sampling.seed = id;
    if (uniform(0, 19) == 0) request->deadline = clock_.now() + from_seconds(uniform(1, 20));
    if (uniform(0, 19) == 0) cancels_.emplace(clock_.now() + from_seconds(uniform(0, 5)), id);
    Live live{std::make_shared<Collector>(), clock_.now(), length, request->priority};
    core_->submit(std::make_unique<Sequence>(std::move(request), live.sink, 16, clock_.now()));
    live_.emplace(id, std::move(live));
  }

  void forward(std::span<const models::SequenceInput> batch) {
    int rows = 0;
    for (const auto& slice : batch) rows += static_cast<int>(slice.tokens.size());
    EXPECT_LE(rows, kBudget);
    EXPECT_LE(static_cast<int>(batch.size()), traffic_.sequences_max);
    clock_.advance(from_seconds(0.060 + 0.002 * rows));
  }

  void step() {
    while (!cancels_.empty() && cancels_.begin()->first <= clock_.now()) {
      core_->cancel(cancels_.begin()->second);
      cancelled_.push_back(cancels_.begin()->second);
      cancels_.erase(cancels_.begin());
    }
    core_->step();
    const State& state = core_->state();
    ASSERT_TRUE(state.record.slices > 0 || !state.flight.empty() || core_->idle())
        << "there was work, and nothing was done";
    for (const RequestId id : cancelled_) {
      const auto it = live_.find(id);
      ASSERT_TRUE(it == live_.end() || it->second.sink->finish() != FinishReason::kNone)
          << "cancelled, and still there";
    }
    cancelled_.clear();
    if (++steps_ % 16 == 0) {
      const Status pages = core_->check();
      ASSERT_TRUE(pages.ok()) << pages.error().message;
      collect();
    }
  }

  void collect() {
    for (auto it = live_.begin(); it != live_.end();) {
      const Live& live = it->second;
      const FinishReason reason = live.sink->finish();
      ASSERT_LT(seconds(clock_.now() - live.submitted), 1800) << "starved";
      if (reason == FinishReason::kNone) {
        ++it;
        continue;
      }
      ASSERT_TRUE(live.sink->well_formed());
      ASSERT_NE(reason, FinishReason::kFailed);
      ++finished_[reason];
      preemptions_ += live.sink->usage().preemptions;
      cached_ += live.sink->usage().cached_tokens;
      if (reason == FinishReason::kLength) {
        auto& [count, sum] = latency_[{live.priority, live.prompt > 100}];
        ++count;
        sum += seconds(clock_.now() - live.submitted);
      }
      it = live_.erase(it);
    }
  }

  void finish() {
    collect();
    EXPECT_TRUE(live_.empty());
    const Status pages = core_->check();
    EXPECT_TRUE(pages.ok()) << pages.error().message;
    EXPECT_EQ(core_->state().cache.pages_available(), traffic_.pages);
    EXPECT_GT(finished_[FinishReason::kCancelled], 0);
    EXPECT_GT(preemptions_, 0) << "the traffic must be heavy enough to preempt";
    EXPECT_GT(cached_, 0);
    const auto mean = [&](Priority priority, bool is_long) {
      const auto& [count, sum] = latency_[{priority, is_long}];
      return sum / count;
    };
    EXPECT_LT(mean(Priority::kHigh, false), 1.1 * mean(Priority::kNormal, false));
    EXPECT_LT(mean(Priority::kNormal, false), 1.1 * mean(Priority::kLow, false));
    EXPECT_LT(mean(Priority::kNormal, false), mean(Priority::kNormal, true))
        << "short ones are not stuck behind long ones";
  }

  const Traffic traffic_;
  std::mt19937_64 random_;
  SimulatedClock clock_;
  std::unique_ptr<Runner> runner_;
  std::unique_ptr<Core> core_;
  RequestId ids_ = 0;
  int64_t steps_ = 0;
  std::map<RequestId, Live> live_;
  std::multimap<TimePoint, RequestId> cancels_;
  std::vector<RequestId> cancelled_;
  std::map<FinishReason, int> finished_;
  std::map<std::pair<Priority, bool>, std::pair<int, double>> latency_;
  int64_t preemptions_ = 0, cached_ = 0;
};

TEST(Simulation, ADayOfTraffic) { Day(1, {}).run(); }
TEST(Simulation, ADayWithTokensDrawnByTheDevice) {
  Day(3, {.hours = 8, .requests_per_s = 0.2, .pages = 50, .device_draws = true}).run();
}
TEST(Simulation, ADayWithDraftsAndScarcePages) {
  Day(2, {.hours = 4, .requests_per_s = 0.2, .pages = 60, .draft = true}).run();
}
TEST(Simulation, ADayWithDraftsVerifiedByTheDevice) {
  Day(4, {.hours = 6, .requests_per_s = 0.2, .pages = 60, .draft = true, .device_draws = true}).run();
}

}  // namespace
}  // namespace spillway::engine
