// The engine's thread where things go wrong: cancels, deadlines, failed and stalled steps, refusals, the end.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <thread>

#include "engine/engine.h"
#include "engine/testing/small_engine.h"

namespace spillway::engine {
namespace {

using namespace testing;  // NOLINT: the small engine and what it is asked

TEST(Engine, CancelStormLeavesTheOthersAlone) {
  auto engine = start({.draft = true});
  std::vector<std::shared_ptr<Collector>> kept, cancelled;
  for (int i = 0; i < 60; ++i) {
    auto sink = submit(*engine, make_request(i, random_prompt(i % 7, 40 + i), i % 3 == 0 ? 40 : 400));
    (i % 3 == 0 ? kept : cancelled).push_back(sink);
  }
  std::thread canceller([&] {
    for (int round = 0; round < 3; ++round) {
      for (int i = 0; i < 60; ++i) {
        if (i % 3 != 0) engine->cancel(i);
      }
    }
    engine->cancel(12345);
  });
  for (size_t i = 0; i < kept.size(); ++i) {
    EXPECT_EQ(kept[i]->wait(), FinishReason::kLength);
    const int id = static_cast<int>(i) * 3;
    EXPECT_EQ(kept[i]->tokens(), greedy(random_prompt(id % 7, 40 + id), 40));
  }
  canceller.join();
  for (auto& sink : cancelled) {
    EXPECT_THAT(sink->wait(), ::testing::AnyOf(FinishReason::kCancelled, FinishReason::kLength));
    EXPECT_TRUE(sink->well_formed());
  }
  expect_no_leak(*engine);
}

TEST(Engine, DeadlinesEndRequestsWhereTheyStand) {
  auto engine =
      start({.context = 100000, .on_forward = [](auto) { std::this_thread::sleep_for(std::chrono::milliseconds(1)); }});
  auto request = make_request(1, random_prompt(1, 5), 90000);
  request->deadline = SteadyClock().now() + std::chrono::milliseconds(40);
  auto sink = submit(*engine, std::move(request));
  EXPECT_EQ(sink->wait(), FinishReason::kDeadline);
  EXPECT_GT(sink->tokens().size(), 0u);
  expect_no_leak(*engine);
}

TEST(Engine, AFailedStepFailsOnlyTheRequestConcerned) {
  const auto poison = [](std::span<const models::SequenceInput> batch) {
    for (const auto& slice : batch) {
      if (std::ranges::find(slice.tokens, 63) != slice.tokens.end() && slice.position == 0)
        throw std::runtime_error("poison");
    }
  };
  auto engine = start({.on_forward = poison});
  Tokens bad = random_prompt(1, 8, 63);
  bad[3] = 63;
  std::vector<std::shared_ptr<Collector>> good;
  for (int i = 0; i < 10; ++i) good.push_back(submit(*engine, make_request(i, random_prompt(i, 12, 63), 10)));
  auto failed = submit(*engine, make_request(100, bad, 10));
  EXPECT_EQ(failed->wait(), FinishReason::kFailed);
  for (int i = 0; i < 10; ++i) {
    EXPECT_EQ(good[i]->wait(), FinishReason::kLength);
    EXPECT_EQ(good[i]->tokens(), greedy(random_prompt(i, 12, 63), 10));
  }
  expect_no_leak(*engine);
}

TEST(Engine, OutOfDeviceMemoryFailsOnlyTheRequestsConcerned) {
  // Prompts whose sixth token is 63 want memory that the driver refuses, with others and alone.
  const auto refuse = [](std::span<const models::SequenceInput> batch) {
    for (const auto& slice : batch) {
      const int64_t at = 5 - slice.position;
      if (at >= 0 && at < static_cast<int64_t>(slice.tokens.size()) && slice.tokens[at] == 63)
        throw std::runtime_error("cudaMalloc of 2.0 GiB: out of memory");
    }
  };
  Tokens refused = random_prompt(1, 20, 63);
  refused[5] = 63;
  for (const bool draft : {false, true}) {
    auto engine = start({.draft = draft, .draws = true, .on_forward = refuse});
    std::vector<std::shared_ptr<Collector>> good, bad;
    for (int i = 0; i < 12; ++i) {
      good.push_back(submit(*engine, make_request(i, random_prompt(i, 12, 63), 20)));
      if (i % 4 == 0) bad.push_back(submit(*engine, make_request(100 + i, refused, 20)));
    }
    for (const auto& sink : bad) EXPECT_EQ(sink->wait(), FinishReason::kFailed);
    for (int i = 0; i < 12; ++i) {
      EXPECT_EQ(good[i]->wait(), FinishReason::kLength);
      EXPECT_EQ(good[i]->tokens(), greedy(random_prompt(i, 12, 63), 20));
    }
    expect_no_leak(*engine);
  }
}

TEST(Engine, RefusalsSayWhatWasFoundAndTheLimit) {
  EngineOptions options = small_options();
  auto engine = start({.context = 64}, options);
  const auto refused = [&](std::unique_ptr<Request> request) {
    auto refusal = engine->submit(std::move(request), std::make_shared<Collector>());
    SW_CHECK(refusal.has_value(), "expected a refusal");
    return *refusal;
  };
  const Refusal too_long = refused(make_request(1, random_prompt(1, 64), 1));
  EXPECT_EQ(too_long.reason, Refusal::Reason::kTooLong);
  EXPECT_EQ(too_long.found, 64);
  EXPECT_EQ(too_long.limit, 63);
  EXPECT_EQ(refused(make_request(1, {}, 1)).reason, Refusal::Reason::kInvalid);
  EXPECT_EQ(refused(make_request(1, {64}, 1)).reason, Refusal::Reason::kInvalid);
  EXPECT_EQ(refused(make_request(1, {-1}, 1)).reason, Refusal::Reason::kInvalid);
  EXPECT_EQ(refused(make_request(1, {1}, 0)).reason, Refusal::Reason::kInvalid);
  auto past = make_request(1, {1}, 1);
  past->deadline = SteadyClock().now() - std::chrono::seconds(1);
  EXPECT_EQ(refused(std::move(past)).reason, Refusal::Reason::kDeadline);
  ASSERT_TRUE(engine->drain(TimePoint::max()));
  const Refusal draining = refused(make_request(1, {1}, 1));
  EXPECT_EQ(draining.reason, Refusal::Reason::kDraining);
  EXPECT_GT(draining.retry_after_s, 0);
}

TEST(Engine, AStalledStepShowsAndRefuses) {
  std::mutex mutex;
  std::condition_variable changed;
  bool entered = false, go_on = false;
  EngineOptions options = small_options();
  options.stall_s = 0;  // any step under way counts
  auto engine = start({.on_forward =
                           [&](auto) {
                             std::unique_lock lock(mutex);
                             entered = true;
                             changed.notify_all();
                             changed.wait(lock, [&] { return go_on; });
                           }},
                      options);
  auto sink = submit(*engine, make_request(1, {1, 2, 3}, 2));
  {
    std::unique_lock lock(mutex);
    changed.wait(lock, [&] { return entered; });
  }
  EXPECT_GT(engine->state().seconds_since_progress, 0);
  EXPECT_TRUE(engine->state().stalled);
  const auto refusal = engine->submit(make_request(2, {1}, 1), std::make_shared<Collector>());
  ASSERT_TRUE(refusal);
  EXPECT_EQ(refusal->reason, Refusal::Reason::kStalled);
  EXPECT_FALSE(engine->drain(SteadyClock().now())) << "the deadline passed first";
  {
    std::lock_guard lock(mutex);
    go_on = true;
  }
  changed.notify_all();
  EXPECT_EQ(sink->wait(), FinishReason::kLength);
  expect_no_leak(*engine);
  EXPECT_EQ(engine->state().seconds_since_progress, 0);
}

TEST(Engine, ASoakOfShortRequestsLosesNoPage) {
  EngineOptions options = small_options();
  options.kv_cache_bytes = 1 << 16;
  options.queue_requests_max = 4000;
  auto engine = start({.draft = true}, options);
  std::mt19937_64 random(1);
  std::vector<std::shared_ptr<Collector>> sinks;
  for (int i = 0; i < 3000; ++i) {
    auto sink = std::make_shared<Collector>();
    auto request =
        make_request(i, random_prompt(random() % 50, 1 + random() % 60), 1 + static_cast<int>(random() % 12), 0.7f);
    if (!engine->submit(std::move(request), sink)) sinks.push_back(sink);
    if (random() % 3 == 0) engine->cancel(random() % (i + 1));
  }
  for (auto& sink : sinks) sink->wait();
  EXPECT_GT(sinks.size(), 1000u);
  expect_no_leak(*engine);
}

TEST(Engine, StoppingEndsEveryRequest) {
  std::vector<std::shared_ptr<Collector>> sinks;
  {
    auto engine = start({.context = 100000});
    for (int i = 0; i < 20; ++i) sinks.push_back(submit(*engine, make_request(i, random_prompt(i, 20), 90000)));
    sinks[0]->wait_tokens(3);
  }
  for (auto& sink : sinks) EXPECT_EQ(sink->finish(), FinishReason::kCancelled);
}

}  // namespace
}  // namespace spillway::engine
