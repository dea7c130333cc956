// Decode steps that verify drafts and propose the next ones on the device, launched ahead of the host: everyone gets
// the model's own continuation, whatever is kept of the drafts and whoever ends meanwhile.
#include <gtest/gtest.h>

#include "engine/testing/small_engine.h"

namespace spillway::engine {
namespace {

using testing::Collector;
using testing::expect_no_leak;
using testing::FakeModel;
using testing::FakeOptions;
using testing::greedy;
using testing::make_request;
using testing::random_prompt;
using testing::small_options;
using testing::submit;
using testing::Tokens;

struct Fake {
  std::unique_ptr<Engine> engine;
  const FakeModel& model;
};

Fake start_fake(FakeOptions fake, EngineOptions options = small_options()) {
  auto model = std::make_unique<FakeModel>(std::move(fake));
  const FakeModel& view = *model;
  auto engine = Engine::start(std::move(model), options);
  SW_CHECK(engine.ok(), engine.error().message);
  return {std::move(engine).value(), view};
}

const FakeOptions kDrafted{.draft = true, .draws = true};

// Beside requests without drafts, with the host's sampler, with early ends and cancels.
TEST(DraftedSteps, EveryoneGetsTheModelsContinuation) {
  const auto [engine, model] = start_fake(kDrafted);
  std::vector<std::shared_ptr<Collector>> sinks;
  std::vector<Tokens> expected;
  for (int i = 0; i < 60; ++i) {
    const Tokens prompt = random_prompt(100 + i, 1 + 3 * i);
    const int count = i % 5 == 3 ? 1 + i % 4 : 25;
    auto request = make_request(i, prompt, count);
    expected.push_back(greedy(prompt, count));
    if (i % 4 == 1 && count == 25) {  // a stop token somewhere on the way, kept as a draft or drawn after one
      request->stop_tokens = {expected[i][5 + i % 10]};
      const auto at = std::find(expected[i].begin(), expected[i].end(), request->stop_tokens[0]);
      expected[i].erase(at + 1, expected[i].end());
    }
    if (i % 7 == 2) request->top_logprobs = 1;
    request->speculate = i % 6 != 5;
    sinks.push_back(submit(*engine, std::move(request)));
    if (i % 11 == 6) engine->cancel(i);
  }
  for (int i = 0; i < 60; ++i) {
    const FinishReason reason = sinks[i]->wait();
    EXPECT_TRUE(sinks[i]->well_formed());
    Tokens found = sinks[i]->tokens();
    if (reason == FinishReason::kCancelled && i % 11 == 6)
      expected[i].resize(std::min(found.size(), expected[i].size()));
    EXPECT_EQ(found, expected[i]) << i;
    if (i % 6 == 5) {
      EXPECT_EQ(sinks[i]->usage().draft_tokens, 0) << "asked for none";
    }
  }
  EXPECT_GT(model.drafted_steps, 0);
  expect_no_leak(*engine);
}

TEST(DraftedSteps, AreLaunchedAheadAndLeaveNoHoles) {
  for (const int wrong : {0, 3, 16}) {
    FakeOptions fake = kDrafted;
    fake.draft_wrong_of_16 = wrong;
    EngineOptions options = small_options();
    options.prefix_cache = false;
    const auto [engine, model] = start_fake(fake, options);
    std::vector<std::shared_ptr<Collector>> sinks;
    for (int i = 0; i < 6; ++i) sinks.push_back(submit(*engine, make_request(i, random_prompt(i, 5 + 7 * i), 100)));
    for (int i = 0; i < 6; ++i) {
      EXPECT_EQ(sinks[i]->wait(), FinishReason::kLength);
      EXPECT_EQ(sinks[i]->tokens(), greedy(random_prompt(i, 5 + 7 * i), 100));
    }
    EXPECT_EQ(model.draft_holes, 0) << "an entry that a refused draft left was read";
    EXPECT_EQ(model.host_steps, 0);
    // All but the first after others joined or ended.
    EXPECT_GT(model.carried_steps, 3 * model.drafted_steps);
    expect_no_leak(*engine);
  }
}

// The drafts proposed and kept are those of steps that the host takes part in.
TEST(DraftedSteps, KeepWhatTheHostWouldKeep) {
  for (int length = 1; length < 40; length += 3) {
    Usage usage[2];
    for (const bool in_step : {false, true}) {
      FakeOptions fake = kDrafted;
      fake.drafts_in_step = in_step;
      const auto [engine, model] = start_fake(fake);
      auto sink = submit(*engine, make_request(1, random_prompt(uint64_t(length), length), 50));
      sink->wait();
      EXPECT_EQ(sink->tokens(), greedy(random_prompt(uint64_t(length), length), 50));
      EXPECT_EQ(model.drafted_steps > 0, in_step);
      usage[in_step] = sink->usage();
    }
    EXPECT_EQ(usage[0].draft_tokens, usage[1].draft_tokens) << length;
    EXPECT_EQ(usage[0].accepted_tokens, usage[1].accepted_tokens) << length;
    EXPECT_GT(usage[1].accepted_tokens, 0);
  }
}

// The fake device refuses rows beyond the context and pages that do not cover what a kept draft would need.
TEST(DraftedSteps, ToTheLastTokenOfTheContext) {
  FakeOptions fake = kDrafted;
  fake.context = 64;
  for (const int wrong : {0, 5}) {
    fake.draft_wrong_of_16 = wrong;
    const auto [engine, model] = start_fake(fake);
    std::vector<std::shared_ptr<Collector>> sinks;
    for (int i = 0; i < 8; ++i) sinks.push_back(submit(*engine, make_request(i, random_prompt(i, 10 + i), 1000)));
    for (int i = 0; i < 8; ++i) {
      EXPECT_EQ(sinks[i]->wait(), FinishReason::kLength);
      EXPECT_EQ(sinks[i]->tokens(), greedy(random_prompt(i, 10 + i), 54 - i));
    }
    EXPECT_GT(model.carried_steps, 0);
    expect_no_leak(*engine);
  }
}

TEST(DraftedSteps, PagesThatRunOutPreemptAsEver) {
  EngineOptions options = small_options();
  options.kv_cache_bytes = 24 * 16 * 6 * 4;  // 24 pages of 16 tokens
  options.prefix_cache = false;
  const auto [engine, model] = start_fake(kDrafted, options);
  std::vector<std::shared_ptr<Collector>> sinks;
  int preemptions = 0;
  for (int i = 0; i < 8; ++i) sinks.push_back(submit(*engine, make_request(i, random_prompt(i, 20), 80)));
  for (int i = 0; i < 8; ++i) {
    EXPECT_EQ(sinks[i]->wait(), FinishReason::kLength);
    EXPECT_EQ(sinks[i]->tokens(), greedy(random_prompt(i, 20), 80));
    preemptions += sinks[i]->usage().preemptions;
  }
  EXPECT_GT(preemptions, 0) << "the test must force some";
  EXPECT_GT(model.carried_steps, 0);
  EXPECT_EQ(model.draft_holes, 0);
  expect_no_leak(*engine);
}

// A step that cannot be started is computed by the host's way; what cannot be computed at all ends its request alone.
TEST(DraftedSteps, OneThatFailsToStartIsTakenByTheHost) {
  FakeOptions fake = kDrafted;
  auto calls = std::make_shared<std::atomic<int>>(0);
  fake.on_forward = [calls](std::span<const models::SequenceInput> batch) {
    const bool drafted = batch.front().tokens.size() == 2 && batch.front().logits_rows == 2;
    if (drafted && ++*calls % 5 == 0) throw std::runtime_error("no memory");
  };
  const auto [engine, model] = start_fake(fake);
  std::vector<std::shared_ptr<Collector>> sinks;
  for (int i = 0; i < 4; ++i) sinks.push_back(submit(*engine, make_request(i, random_prompt(i, 9), 60)));
  for (int i = 0; i < 4; ++i) {
    EXPECT_EQ(sinks[i]->wait(), FinishReason::kLength);
    EXPECT_EQ(sinks[i]->tokens(), greedy(random_prompt(i, 9), 60));
  }
  EXPECT_GT(*calls, 10);
  expect_no_leak(*engine);
}

}  // namespace
}  // namespace spillway::engine
