// The scheduler's decisions, the cost model and admission, as the pure functions that they are.
#include "engine/schedule.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "engine/admission.h"
#include "engine/cost_model.h"

namespace spillway::engine {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

SequenceView decoding(int index, int tokens, int pages, Priority priority = Priority::kNormal) {
  return {.index = index,
          .priority = priority,
          .arrival = index,
          .tokens = tokens,
          .computed = tokens - 1,
          .pages = pages,
          .pages_freed = pages};
}

SequenceView prefilling(int index, int tokens, double wait_s = 0, Priority priority = Priority::kNormal) {
  return {.index = index,
          .priority = priority,
          .arrival = index,
          .wait_s = wait_s,
          .tokens = tokens,
          .computed = 0,
          .pages = 1000,
          .pages_freed = 1000};
}

std::vector<std::pair<int, int>> slices(const StepPlan& plan) {
  std::vector<std::pair<int, int>> pairs;
  for (const Slice& slice : plan.slices) pairs.emplace_back(slice.index, slice.tokens);
  return pairs;
}

using P = std::pair<int, int>;

TEST(PlanStep, DecodesFirstAndPrefillFillsTheRest) {
  const std::vector<SequenceView> running = {prefilling(0, 100), decoding(1, 10, 1), decoding(2, 20, 2)};
  const auto plan = plan_step({.running = running, .budget_tokens = 32, .prefill_tokens = 32, .pages_available = 10});
  EXPECT_THAT(slices(plan), ElementsAre(P(1, 1), P(2, 1), P(0, 30)));
}

TEST(PlanStep, ShortPromptsGoBeforeALongOneUntilItHasWaitedInProportion) {
  std::vector<SequenceView> running = {prefilling(0, 1000, 1.0), prefilling(1, 10, 0.1)};
  StepView view{.running = running, .budget_tokens = 64, .prefill_tokens = 64, .pages_available = 10, .token_s = 0.001};
  EXPECT_THAT(slices(plan_step(view)), ElementsAre(P(1, 10), P(0, 54)));
  running[0].wait_s = 20;  // 20 s for 1 s of work, against 0.1 s for 0.01 s
  EXPECT_THAT(slices(plan_step(view)), ElementsAre(P(0, 64)));
  running[1].priority = Priority::kHigh;
  EXPECT_THAT(slices(plan_step(view)), ElementsAre(P(1, 10), P(0, 54)));
}

TEST(PlanStep, ADraftIsDroppedBeforeAnyoneIsPreempted) {
  std::vector<SequenceView> running = {decoding(0, 16, 1)};  // its draft needs a second page
  running[0].draft = 1;
  StepView view{.running = running, .budget_tokens = 8, .prefill_tokens = 8, .pages_available = 1};
  EXPECT_THAT(slices(plan_step(view)), ElementsAre(P(0, 2)));
  view.pages_available = 0;
  const auto plan = plan_step(view);
  EXPECT_THAT(slices(plan), ElementsAre(P(0, 1)));
  EXPECT_THAT(plan.preempted, IsEmpty());
}

TEST(PlanStep, TheLowestPriorityThatArrivedLastGivesWay) {
  const std::vector<SequenceView> running = {decoding(0, 17, 1), decoding(1, 17, 1, Priority::kLow), decoding(2, 17, 1),
                                             decoding(3, 17, 1, Priority::kHigh), decoding(4, 17, 1)};
  const auto plan = plan_step({.running = running, .budget_tokens = 64, .prefill_tokens = 64, .pages_available = 2});
  EXPECT_THAT(plan.preempted, ElementsAre(1, 4));
  EXPECT_THAT(slices(plan), ElementsAre(P(3, 1), P(0, 1), P(2, 1)));
}

TEST(PlanStep, MoreDecodersThanRowsTakeTurns) {
  std::vector<SequenceView> running = {decoding(0, 5, 1), decoding(1, 5, 1), decoding(2, 5, 1)};
  running[0].last_step = 9;
  running[1].last_step = 8;
  running[2].last_step = 7;
  const auto plan = plan_step({.running = running, .budget_tokens = 2, .prefill_tokens = 2, .pages_available = 9});
  EXPECT_THAT(slices(plan), ElementsAre(P(1, 1), P(2, 1)));
}

TEST(OrderWaiting, WhatWasPreemptedGoesOnBeforeItsEqualsBegin) {
  std::vector<SequenceView> waiting(4);
  for (int i = 0; i < 4; ++i) {
    waiting[i].index = i;
    waiting[i].arrival = i;
    waiting[i].wait_s = 1;
    waiting[i].tokens = 100 - 20 * i;  // the last is the shortest
  }
  EXPECT_THAT(order_waiting(waiting, 1e-3), ElementsAre(3, 2, 1, 0));
  waiting[0].started = waiting[1].started = true;
  EXPECT_THAT(order_waiting(waiting, 1e-3), ElementsAre(0, 1, 3, 2));
  waiting[2].priority = Priority::kHigh;
  waiting[1].priority = Priority::kLow;
  EXPECT_THAT(order_waiting(waiting, 1e-3), ElementsAre(2, 0, 3, 1));
}

TEST(ChooseVictims, OnlyLowerPrioritiesAndOnlyIfItHelps) {
  const std::vector<SequenceView> running = {decoding(0, 17, 2, Priority::kLow), decoding(1, 17, 3, Priority::kLow),
                                             decoding(2, 17, 4)};
  EXPECT_THAT(choose_victims(running, Priority::kNormal, 0, 3), ElementsAre(1));
  EXPECT_THAT(choose_victims(running, Priority::kNormal, 0, 5), ElementsAre(1, 0));
  EXPECT_THAT(choose_victims(running, Priority::kNormal, 0, 6), IsEmpty());
  EXPECT_THAT(choose_victims(running, Priority::kHigh, 3, 0), ElementsAre(1, 0, 2));
  EXPECT_THAT(choose_victims(running, Priority::kLow, 1, 0), IsEmpty());
}

TEST(CostModel, LearnsTheTermsOfAStep) {
  CostModel model;
  for (int i = 0; i < 400; ++i) {
    const int rows = 1 + i % 17, tokens = i % 3 == 0 ? 32 * (i % 7) : 0;
    model.observe(rows, tokens, 0.010 + 0.0005 * rows + 0.0002 * tokens);
  }
  EXPECT_NEAR(model.cost().base_s, 0.010, 1e-4);
  EXPECT_NEAR(model.cost().row_s, 0.0005, 1e-5);
  EXPECT_NEAR(model.cost().token_s, 0.0002, 1e-6);
}

TEST(CostModel, HoldsWhatAnEarlierStartLearnedUntilItHasSeenEnough) {
  const StepCost learned = parse_step_cost("other 1 2\n" + to_text({.base_s = 0.01, .row_s = 0.001, .token_s = 2e-5}));
  ASSERT_TRUE(learned.measured);
  EXPECT_DOUBLE_EQ(learned.base_s, 0.01);
  EXPECT_DOUBLE_EQ(learned.token_s, 2e-5);
  CostModel model;
  model.remember(learned);
  for (int i = 0; i < 63; ++i) model.observe(i % 8, i % 3 * 50, 0.02);
  EXPECT_FALSE(model.settled());
  EXPECT_DOUBLE_EQ(model.cost().base_s, 0.01);
  model.observe(3, 0, 0.02);
  EXPECT_TRUE(model.settled());
  EXPECT_NEAR(model.cost().base_s, 0.02, 1e-3);
}

TEST(CostModel, LearnsNothingFromLinesWithoutSense) {
  for (const char* text : {"", "step_cost", "step_cost 1 2", "step_cost -1 1 1\n", "step_cost 0 0 0",
                           "step_cost inf 1 1", "step_cost nan 1 1", "step_cost x y z"}) {
    EXPECT_FALSE(parse_step_cost(text).measured) << text;
  }
  CostModel model;
  model.remember({});
  EXPECT_FALSE(model.cost().measured);
}

TEST(CostModel, NeverGivesNegativeTerms) {
  CostModel model;
  for (int i = 0; i < 100; ++i) model.observe(i % 10, i % 5 * 100, 1.0 - 0.05 * (i % 10));
  EXPECT_GE(model.cost().row_s, 0);
  EXPECT_GE(model.cost().base_s, 0);
  EXPECT_GE(model.cost().token_s, 0);
}

TEST(Rate, FollowsFrequentEventsWithinSecondsAndRemembersRareOnes) {
  Rate often, rare;
  for (int i = 0; i < 1000; ++i) often.observe(10, 0.05);  // 200 a second
  for (int i = 0; i < 200; ++i) often.observe(1, 0.05);    // 20, for ten seconds
  EXPECT_NEAR(often.per_s(), 20, 15);
  for (int i = 0; i < 1000; ++i) rare.observe(i % 100 == 0 ? 1 : 0, 0.05);  // one in five seconds
  EXPECT_NEAR(rare.per_s(), 0.2, 0.05);
}

class AdmissionTest : public ::testing::Test {
 protected:
  std::optional<Refusal::Reason> reason() {
    const auto refusal = check_load(request_, load_, options_, limits_, TimePoint{});
    if (refusal) {
      EXPECT_FALSE(refusal->message.empty());
      EXPECT_GT(refusal->retry_after_s, 0);
      return refusal->reason;
    }
    return std::nullopt;
  }
  AdmissionTest() {
    request_.prompt.assign(100, 1);
    limits_.batch_tokens = 100;
    load_.cost = {.base_s = 0.01, .row_s = 0.001, .token_s = 0.001, .measured = true};
    load_.completions_per_s = 2;
  }
  EngineOptions options_;
  Limits limits_;
  Load load_;
  Request request_;
};

TEST_F(AdmissionTest, BoundsRequestsTokensAndWait) {
  EXPECT_EQ(reason(), std::nullopt);
  options_.queue_requests_max = 1;
  load_.waiting.add(Priority::kLow, 10);
  EXPECT_EQ(reason(), Refusal::Reason::kQueueRequests);
  options_.queue_requests_max = 10;
  options_.queue_tokens_max = 109;
  EXPECT_EQ(reason(), Refusal::Reason::kQueueTokens);
  options_.queue_tokens_max = 1 << 20;
  EXPECT_EQ(reason(), std::nullopt);
  for (int i = 0; i < 3; ++i) load_.waiting.add(Priority::kNormal, 30000);  // about 100 s of prefill
  EXPECT_EQ(reason(), Refusal::Reason::kPredictedWait);
  request_.priority = Priority::kHigh;
  EXPECT_EQ(reason(), std::nullopt) << "those of lower priority are not ahead of it";
}

TEST_F(AdmissionTest, WaitForPlacesComesFromTheMeasuredCompletions) {
  load_.running = options_.sequences_max;
  for (int i = 0; i < 9; ++i) load_.waiting.add(Priority::kNormal, 1);
  EXPECT_NEAR(predicted_wait_s(load_, options_, limits_, Priority::kNormal), 5, 1e-9);
}

TEST_F(AdmissionTest, DraftsTakeRowsAndTimeFromPrefill) {
  load_.completions_per_s = 0;
  load_.waiting.add(Priority::kNormal, 100);
  load_.decode_rows = 20;
  // Two steps of 20 decode rows: two bases, 40 rows and 100 tokens.
  EXPECT_NEAR(predicted_wait_s(load_, options_, limits_, Priority::kNormal), 0.160, 1e-9);
  load_.decode_rows = 60;  // three steps of 60
  EXPECT_NEAR(predicted_wait_s(load_, options_, limits_, Priority::kNormal), 0.310, 1e-9);
  load_.draft_row_s = 0.001;
  EXPECT_NEAR(predicted_wait_s(load_, options_, limits_, Priority::kNormal), 0.310 + 0.280, 1e-9);
}

TEST_F(AdmissionTest, PrefillGoesOnAsDecodingSequencesEnd) {
  load_.decode_rows = 100;  // no row is left
  load_.completions_per_s = 10;
  load_.prefilling = 3;
  load_.prefill_tokens = 100;
  load_.waiting.add(Priority::kNormal, 50);
  EXPECT_NEAR(predicted_wait_s(load_, options_, limits_, Priority::kNormal), 0.4, 1e-9);
  load_.completions_per_s = 1000;  // but not faster than it can be computed
  EXPECT_NEAR(predicted_wait_s(load_, options_, limits_, Priority::kNormal), 2 * 0.01 + 0.15, 1e-9);
}

TEST_F(AdmissionTest, DeadlinesThatCannotBeMetAreRefused) {
  load_.waiting.add(Priority::kNormal, 5000);  // 5 s and more
  request_.deadline = TimePoint(from_seconds(3));
  EXPECT_EQ(reason(), Refusal::Reason::kDeadline);
  request_.deadline = TimePoint(from_seconds(30));
  EXPECT_EQ(reason(), std::nullopt);
}

TEST_F(AdmissionTest, StalledAndDrainingRefuse) {
  load_.seconds_since_progress = 11;
  EXPECT_EQ(reason(), Refusal::Reason::kStalled);
  load_.draining = true;
  EXPECT_EQ(reason(), Refusal::Reason::kDraining);
}

}  // namespace
}  // namespace spillway::engine
