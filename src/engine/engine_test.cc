// The engine's thread over a fake model: everything a client can see.
#include "engine/engine.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <thread>

#include "engine/live_view.h"
#include "engine/testing/small_engine.h"
#include "metrics/timeline.h"

namespace spillway::engine {
namespace {

using namespace testing;  // NOLINT: the small engine and what it is asked

TEST(Engine, GreedyAloneAndTogetherIsTheModelsOwnContinuation) {
  for (const bool draft : {false, true}) {
    FakeOptions fake{.draft = draft};
    auto engine = start(fake);
    std::vector<std::shared_ptr<Collector>> sinks;
    for (int i = 0; i < 40; ++i) sinks.push_back(submit(*engine, make_request(i, random_prompt(i, 1 + 5 * i), 20)));
    for (int i = 0; i < 40; ++i) {
      EXPECT_EQ(sinks[i]->wait(), FinishReason::kLength);
      EXPECT_EQ(sinks[i]->tokens(), greedy(random_prompt(i, 1 + 5 * i), 20)) << i;
      EXPECT_TRUE(sinks[i]->well_formed());
      EXPECT_EQ(sinks[i]->usage().prompt_tokens, 1 + 5 * i);
      EXPECT_EQ(sinks[i]->usage().completion_tokens, 20);
      EXPECT_EQ(sinks[i]->usage().draft_tokens > 0, draft);
    }
    expect_no_leak(*engine);
  }
}

TEST(Engine, TheLiveViewAndTimelinesTellWhatHappens) {
  EngineOptions options = small_options();
  options.sequences_max = 2;
  // Slow enough that a busy machine looks in while two of the six run.
  auto engine =
      start({.on_forward = [](auto) { std::this_thread::sleep_for(std::chrono::microseconds(500)); }}, options);
  std::vector<std::shared_ptr<Collector>> sinks;
  auto timeline = std::make_shared<metrics::Timeline>("named", "/", TimePoint{});
  for (int i = 0; i < 6; ++i) {
    auto request = make_request(i, random_prompt(i, 100), 400);
    if (i == 0) request->timeline = timeline;
    sinks.push_back(submit(*engine, std::move(request)));
  }
  std::shared_ptr<const LiveView> view;
  for (int tries = 0; tries < 2000 && (!view || view->running < 2 || view->waiting < 4); ++tries) {
    view = engine->live_view();
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  ASSERT_TRUE(view);
  EXPECT_EQ(view->running, 2);
  ASSERT_EQ(view->streams.size(), static_cast<size_t>(view->running + view->waiting));
  EXPECT_NE(view->streams[0].phase, LiveStream::Phase::kWaiting);
  EXPECT_EQ(view->streams[0].name, "named");
  EXPECT_EQ(view->streams.back().phase, LiveStream::Phase::kWaiting);
  EXPECT_GE(view->streams.back().predicted_wait_s, view->streams[2].predicted_wait_s);
  EXPECT_EQ(view->page_map.size(), LiveView::kMapCells) << "thinned: there are more pages";
  EXPECT_EQ(view->page_tokens, 16);
  for (auto& sink : sinks) EXPECT_EQ(sink->wait(), FinishReason::kLength);
  expect_no_leak(*engine);
  int64_t prefilled = 0, last = 0;
  for (const metrics::Moment& moment : timeline->snapshot().moments) {
    if (moment.kind == metrics::Moment::Kind::kPrefill) prefilled += moment.b;
    if (moment.kind == metrics::Moment::Kind::kTokens) last = moment.a;
  }
  EXPECT_EQ(prefilled, 100);
  EXPECT_GT(last, 300);
  EXPECT_EQ(timeline->snapshot().moments.back().kind, metrics::Moment::Kind::kFinished);
  engine->live_view();
  for (int tries = 0; tries < 2000 && engine->live_view()->running > 0; ++tries)
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  EXPECT_EQ(engine->live_view()->streams.size(), 0u) << "the last view is of an idle engine";
}

// Requests whose tokens the device draws a step ahead, beside some that need the host's sampler, early ends and
// cancels: everyone gets the model's own continuation.
TEST(Engine, TokensDrawnByTheDeviceAreTheSame) {
  auto engine = start({.draws = true});
  std::vector<std::shared_ptr<Collector>> sinks;
  std::vector<Tokens> expected;
  std::vector<FinishReason> reasons;
  for (int i = 0; i < 60; ++i) {
    const Tokens prompt = random_prompt(100 + i, 1 + 3 * i);
    auto request = make_request(i, prompt, 25);
    expected.push_back(greedy(prompt, 25));
    reasons.push_back(FinishReason::kLength);
    if (i % 4 == 1) {  // a stop token somewhere on the way
      request->stop_tokens = {expected[i][5 + i % 10]};
      const auto at = std::find(expected[i].begin(), expected[i].end(), request->stop_tokens[0]);
      expected[i].erase(at + 1, expected[i].end());
      reasons[i] = FinishReason::kStop;
    }
    if (i % 7 == 2) request->top_logprobs = 1;
    if (i % 5 == 3)
      request->max_tokens = 1 + i % 3, expected[i].resize(std::min<size_t>(expected[i].size(), 1 + i % 3));
    if (i % 5 == 3) reasons[i] = expected[i].size() == size_t(1 + i % 3) ? FinishReason::kLength : reasons[i];
    sinks.push_back(submit(*engine, std::move(request)));
    if (i % 11 == 6) engine->cancel(i);
  }
  for (int i = 0; i < 60; ++i) {
    const FinishReason reason = sinks[i]->wait();
    EXPECT_TRUE(sinks[i]->well_formed());
    const Tokens found = sinks[i]->tokens();
    if (reason == FinishReason::kCancelled && i % 11 == 6) {
      EXPECT_TRUE(found.size() <= expected[i].size() && std::equal(found.begin(), found.end(), expected[i].begin()))
          << i;
      continue;
    }
    EXPECT_EQ(reason, reasons[i]) << i;
    EXPECT_EQ(found, expected[i]) << i;
  }
  expect_no_leak(*engine);
}

TEST(Engine, StopTokensMinTokensAndContextEnd) {
  const Tokens prompt = random_prompt(1, 10), expected = greedy(prompt, 30);
  auto engine = start({.context = 64});
  auto request = make_request(1, prompt, 30);
  request->stop_tokens = {expected[7]};
  const size_t first = std::find(expected.begin(), expected.end(), expected[7]) - expected.begin();
  auto stopped = submit(*engine, std::move(request));
  EXPECT_EQ(stopped->wait(), FinishReason::kStop);
  EXPECT_EQ(stopped->tokens(), Tokens(expected.begin(), expected.begin() + first + 1));

  request = make_request(2, prompt, 30);
  request->stop_tokens = {expected[0]};
  request->min_tokens = 5;
  auto later = submit(*engine, std::move(request));
  later->wait();
  EXPECT_GE(later->tokens().size(), 5u);
  EXPECT_THAT(later->tokens()[0], ::testing::Ne(expected[0]));

  auto full = submit(*engine, make_request(3, prompt, 1000));
  EXPECT_EQ(full->wait(), FinishReason::kLength);
  EXPECT_EQ(full->tokens().size(), 54u);
  expect_no_leak(*engine);
}

TEST(Engine, PreemptionLosesNothingAndChangesNothing) {
  for (const bool draft : {false, true}) {
    EngineOptions options = small_options();
    options.kv_cache_bytes = 12 * 16 * (draft ? 24 : 12);  // 12 pages of 16 tokens: a few sequences at most
    auto engine = start({.context = 128, .draft = draft}, options);
    std::vector<std::shared_ptr<Collector>> sinks;
    for (int i = 0; i < 12; ++i) {
      auto request = make_request(i, random_prompt(i, 10 + i), 60, i % 2 == 0 ? 0.0f : 0.8f);
      request->sampling.seed = 100 + i;
      sinks.push_back(submit(*engine, std::move(request)));
    }
    int preemptions = 0;
    for (auto& sink : sinks) {
      EXPECT_EQ(sink->wait(), FinishReason::kLength);
      preemptions += sink->usage().preemptions;
    }
    EXPECT_GT(preemptions, 0) << "the test must force some";
    auto roomy = start({.context = 128});
    for (int i = 0; i < 12; ++i) {
      auto request = make_request(i, random_prompt(i, 10 + i), 60, i % 2 == 0 ? 0.0f : 0.8f);
      request->sampling.seed = 100 + i;
      auto alone = submit(*roomy, std::move(request));
      alone->wait();
      EXPECT_EQ(sinks[i]->tokens(), alone->tokens()) << i;
    }
    expect_no_leak(*engine);
  }
}

TEST(Engine, SamplesOfOneSeedDoNotDependOnLoadOrDrafts) {
  const auto request = [] {
    auto made = make_request(1000, random_prompt(7, 20), 50, 1.1f);
    made->sampling.seed = 42;
    made->sampling.top_p = 0.9f;
    made->sampling.frequency_penalty = 0.3f;
    return made;
  };
  auto quiet = start();
  auto alone = submit(*quiet, request());
  alone->wait();
  for (const bool draft : {false, true}) {
    auto busy = start({.draft = draft});
    std::vector<std::shared_ptr<Collector>> others;
    for (int i = 0; i < 30; ++i) others.push_back(submit(*busy, make_request(i, random_prompt(i, 30), 40, 1)));
    auto sink = submit(*busy, request());
    sink->wait();
    EXPECT_EQ(sink->tokens(), alone->tokens());
    EXPECT_EQ(sink->usage().accepted_tokens > 0, draft);
    expect_no_leak(*busy);
  }
}

TEST(Engine, ManyWithOnePrefixComputeItOnce) {
  auto model = std::make_unique<FakeModel>(FakeOptions{});
  const FakeModel& fake = *model;
  auto engine = std::move(Engine::start(std::move(model), small_options())).value();
  const Tokens prompt = random_prompt(3, 200);
  std::vector<std::shared_ptr<Collector>> sinks;
  for (int i = 0; i < 8; ++i) sinks.push_back(submit(*engine, make_request(i, prompt, 5)));
  int cached = 0;
  for (auto& sink : sinks) {
    sink->wait();
    EXPECT_EQ(sink->tokens(), greedy(prompt, 5));
    cached += sink->usage().cached_tokens;
  }
  EXPECT_EQ(cached, 7 * 192) << "all but the first take every full page but the last token's";
  ASSERT_TRUE(engine->drain(TimePoint::max()));
  EXPECT_EQ(fake.rows(), 200 + 7 * 8 + 8 * 4);
}

TEST(Engine, DraftsAreDrawnAndVerifiedWithoutLogitsOnTheHost) {
  auto model = std::make_unique<FakeModel>(FakeOptions{.draft = true, .draws = true});
  FakeModel& fake = *model;
  auto engine = Engine::start(std::move(model), small_options());
  ASSERT_TRUE(engine.ok());
  std::vector<std::shared_ptr<Collector>> sinks;
  for (int i = 0; i < 5; ++i) sinks.push_back(submit(**engine, make_request(i, random_prompt(i, 9 + 7 * i), 40)));
  int64_t accepted = 0;
  for (int i = 0; i < 5; ++i) {
    EXPECT_EQ(sinks[i]->wait(), FinishReason::kLength);
    EXPECT_EQ(sinks[i]->tokens(), greedy(random_prompt(i, 9 + 7 * i), 40));
    accepted += sinks[i]->usage().accepted_tokens;
  }
  EXPECT_GT(accepted, 0);
  EXPECT_EQ(fake.host_steps, 0);
  // A request whose logits the host has to see takes the other way.
  auto request = make_request(9, random_prompt(9, 20), 10);
  request->top_logprobs = 2;
  auto sink = submit(**engine, std::move(request));
  EXPECT_EQ(sink->wait(), FinishReason::kLength);
  EXPECT_EQ(sink->tokens(), greedy(random_prompt(9, 20), 10));
  EXPECT_GT(fake.host_steps, 0);
}

TEST(Engine, PromptLogprobsCoverTheWholePromptInChunks) {
  EngineOptions options = small_options();
  auto engine = start({}, options);
  const Tokens prompt = random_prompt(5, 150);
  submit(*engine, make_request(1, prompt, 1))->wait();  // in the cache now
  auto request = make_request(2, prompt, 2);
  request->prompt_logprobs = true;
  request->top_logprobs = 3;
  auto sink = submit(*engine, std::move(request));
  sink->wait();
  ASSERT_EQ(sink->prompt().size(), prompt.size());
  EXPECT_EQ(sink->prompt()[0].logprob, 0);
  for (size_t i = 1; i < prompt.size(); ++i) {
    const auto row = FakeModel::logits_after(std::span(prompt).first(i), {});
    double sum = 0;
    for (const float logit : row) sum += std::exp(logit);
    EXPECT_EQ(sink->prompt()[i].token, prompt[i]);
    EXPECT_NEAR(sink->prompt()[i].logprob, row[prompt[i]] - std::log(sum), 1e-5);
    EXPECT_EQ(sink->prompt()[i].top.size(), 3u);
  }
  EXPECT_EQ(sink->tokens(), greedy(prompt, 2));
  EXPECT_EQ(sink->events()[0].top[0].token, sink->tokens()[0]);

  request = make_request(3, prompt, 0);
  request->prompt_logprobs = true;
  auto only = submit(*engine, std::move(request));
  EXPECT_EQ(only->wait(), FinishReason::kLength);
  EXPECT_EQ(only->prompt().size(), prompt.size());
  EXPECT_TRUE(only->tokens().empty());
  expect_no_leak(*engine);
}

TEST(Engine, DraftRowsHaveNoHoles) {
  auto model = std::make_unique<FakeModel>(FakeOptions{.draft = true});
  const FakeModel& fake = *model;
  EngineOptions options = small_options();
  options.prefix_cache = false;
  auto engine = std::move(Engine::start(std::move(model), options)).value();
  std::vector<std::shared_ptr<Collector>> sinks;
  for (int i = 0; i < 20; ++i) sinks.push_back(submit(*engine, make_request(i, random_prompt(i, 1 + 9 * i), 60)));
  Usage sum;
  for (auto& sink : sinks) {
    sink->wait();
    sum.draft_tokens += sink->usage().draft_tokens;
    sum.accepted_tokens += sink->usage().accepted_tokens;
  }
  EXPECT_EQ(fake.draft_holes, 0);
  const double acceptance = static_cast<double>(sum.accepted_tokens) / sum.draft_tokens;
  EXPECT_NEAR(acceptance, 13.0 / 16, 0.06);
  expect_no_leak(*engine);
}

// Any bits, as a grammar would: only even tokens, and the end after `left` of them.
class EvenTokens final : public TokenConstraint {
 public:
  EvenTokens(int left, bool fails) : left_(left), fails_(fails) {}
  void allowed(std::span<uint64_t> words) override {
    if (fails_ && left_ < 3) throw std::runtime_error("a broken grammar");
    for (auto& word : words) word = left_ > 0 ? 0x5555555555555554ull : 1ull;
  }
  void accept(int32_t token) override {
    SW_CHECK(token % 2 == 0, "a token that was not allowed");
    --left_;
  }
  std::unique_ptr<TokenConstraint> clone() const override { return std::make_unique<EvenTokens>(*this); }

 private:
  int left_;
  bool fails_;
};

TEST(Engine, ConstraintsHoldWithDraftsAndFailAlone) {
  std::vector<Tokens> outputs;
  for (const bool draft : {false, true}) {
    auto engine = start({.draft = draft});
    auto request = make_request(1, random_prompt(1, 10), 100, 1);
    request->sampling.seed = 3;
    request->stop_tokens = {0};
    request->constraint = std::make_unique<EvenTokens>(30, false);
    auto broken = make_request(2, random_prompt(2, 10), 100);
    broken->constraint = std::make_unique<EvenTokens>(10, true);
    auto sink = submit(*engine, std::move(request));
    auto failing = submit(*engine, std::move(broken));
    EXPECT_EQ(sink->wait(), FinishReason::kStop);
    EXPECT_EQ(sink->tokens().size(), 31u);
    EXPECT_EQ(failing->wait(), FinishReason::kFailed);
    outputs.push_back(sink->tokens());
    expect_no_leak(*engine);
  }
  EXPECT_EQ(outputs[0], outputs[1]);
}

TEST(Engine, HighPriorityTakesThePlaceOfLow) {
  EngineOptions options = small_options();
  options.sequences_max = 2;
  auto engine = start({.context = 2000}, options);
  std::vector<std::shared_ptr<Collector>> low;
  for (int i = 0; i < 2; ++i) {
    auto request = make_request(i, random_prompt(i, 10), 1500);
    request->priority = Priority::kLow;
    low.push_back(submit(*engine, std::move(request)));
    low.back()->wait_tokens(1);
  }
  auto request = make_request(9, random_prompt(9, 10), 5);
  request->priority = Priority::kHigh;
  auto high = submit(*engine, std::move(request));
  EXPECT_EQ(high->wait(), FinishReason::kLength);
  for (int i = 0; i < 2; ++i) {
    EXPECT_EQ(low[i]->wait(), FinishReason::kLength);
    EXPECT_EQ(low[i]->tokens(), greedy(random_prompt(i, 10), 1500, {}));
  }
  EXPECT_EQ(low[1]->usage().preemptions, 1) << "the one that came last gave way";
  EXPECT_EQ(low[0]->usage().preemptions, 0);
}

}  // namespace
}  // namespace spillway::engine
