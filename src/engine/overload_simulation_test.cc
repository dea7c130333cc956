// Overload in simulated time: a model of tiny-r1's speed with drafts, Poisson arrivals at multiples of what it can do,
// and admission as the server asks for it.
#include <gtest/gtest.h>

#include <algorithm>
#include <random>

#include "engine/admission.h"
#include "engine/core.h"
#include "engine/testing/collector.h"
#include "engine/testing/fake_model.h"

namespace spillway::engine {
namespace {

using testing::Collector;
using testing::FakeModel;
using testing::FakeOptions;

constexpr int kPrompt = 30, kOutput = 32;

struct Outcome {
  double answers_per_s = 0;
  double first_token_p50_s = 0, first_token_p99_s = 0;
};

class Overload {
 public:
  explicit Overload(double offered_per_s) : offered_per_s_(offered_per_s) {
    FakeOptions fake{.context = 128, .draft = true, .draft_wrong_of_16 = 0};
    fake.on_forward = [this](std::span<const models::SequenceInput> batch) {
      double rows = 0;
      for (const auto& slice : batch) rows += double(slice.tokens.size());
      clock_.advance(from_seconds(0.0005 + 0.00008 * rows));
    };
    auto model = std::make_unique<FakeModel>(fake);
    auto storage = std::move(nn::KvStorage::create(model->info().kv, 16, 2048, {})).value();
    runner_ = std::make_unique<Runner>(std::move(model), std::move(storage), tensor::Stream(1));
    options_.queue_wait_max_s = 0.3;
    options_.speculate_adaptively = false;
    core_ = std::make_unique<Core>(options_, limits_, *runner_, clock_);
  }

  Outcome run(double duration_s) {
    const TimePoint end = clock_.now() + from_seconds(duration_s);
    TimePoint next = clock_.now();
    while (clock_.now() < end) {
      inbox_ = {};
      const Load published = load_of(*core_);
      for (; next <= clock_.now(); next += from_seconds(std::exponential_distribution<double>(offered_per_s_)(random_)))
        arrive(published);
      if (core_->idle()) {
        clock_.advance(std::max(next - clock_.now(), Duration(std::chrono::microseconds(100))));
        continue;
      }
      core_->step();
      observe();
    }
    std::ranges::sort(first_tokens_s_);
    const auto at = [&](double share) { return first_tokens_s_[size_t(share * double(first_tokens_s_.size() - 1))]; };
    return {answered_ / duration_s, at(0.5), at(0.99)};
  }

 private:
  struct Live {
    std::shared_ptr<Collector> sink;
    TimePoint submitted;
    bool begun = false;
  };

  void arrive(Load load) {
    load.waiting.add(inbox_);
    std::vector<int32_t> prompt(kPrompt);
    for (auto& token : prompt) token = int32_t(random_() % 64);
    auto request = testing::make_request(++ids_, std::move(prompt), kOutput, 0.0f);
    if (check_load(*request, load, options_, limits_, clock_.now())) return;
    inbox_.add(request->priority, kPrompt);
    Live live{std::make_shared<Collector>(), clock_.now()};
    core_->submit(std::make_unique<Sequence>(std::move(request), live.sink, 16, clock_.now()));
    live_.push_back(std::move(live));
  }

  void observe() {
    for (Live& live : live_) {
      if (!live.begun && !live.sink->events().empty()) {
        live.begun = true;
        first_tokens_s_.push_back(seconds(clock_.now() - live.submitted));
      }
    }
    answered_ += double(std::erase_if(live_, [](const Live& l) { return l.sink->finish() != FinishReason::kNone; }));
  }

  const double offered_per_s_;
  std::mt19937_64 random_{7};
  SimulatedClock clock_;
  EngineOptions options_;
  Limits limits_{.context_tokens = 128, .batch_tokens = 512, .prompt_logprob_rows = 64, .vocab = 64};
  std::unique_ptr<Runner> runner_;
  std::unique_ptr<Core> core_;
  RequestId ids_ = 0;
  Queued inbox_;
  std::vector<Live> live_;
  std::vector<double> first_tokens_s_;
  double answered_ = 0;
};

// The admitted wait as long as was predicted, and nothing is lost by refusing the others.
TEST(OverloadSimulation, TheAdmittedWaitAsPredictedAndCapacityIsKept) {
  const double peak = Overload(2000).run(10).answers_per_s;
  EXPECT_GT(peak, 100);
  for (const double multiple : {2.0, 5.0, 10.0}) {
    const Outcome outcome = Overload(multiple * peak).run(10);
    EXPECT_GE(outcome.answers_per_s, 0.95 * peak) << multiple;
    EXPECT_LE(outcome.first_token_p99_s, 0.3 + 0.1) << multiple << ": the bound, and two steps";
  }
}

}  // namespace
}  // namespace spillway::engine
