// The parts of the batch scheduler, one decision at a time.
#include <gtest/gtest.h>

#include "engine/batching/answer_margin.h"
#include "engine/batching/batch_scheduler.h"
#include "engine/batching/one_shot_admission.h"

namespace spillway::engine {
namespace {

TimePoint at(double time_s) { return TimePoint(from_seconds(time_s)); }

WaitingInput input(OneShotId id, int64_t cost, Priority priority = Priority::kNormal, double arrived_s = 0,
                   double deadline_s = 0) {
  return {id, cost, priority, at(arrived_s), deadline_s > 0 ? at(deadline_s) : TimePoint::max()};
}

std::vector<OneShotId> ids(const std::vector<WaitingInput>& inputs) {
  std::vector<OneShotId> ids;
  for (const WaitingInput& one : inputs) ids.push_back(one.id);
  return ids;
}

using Ids = std::vector<OneShotId>;

TEST(WaitingLine, TakesByPriorityThenArrivalWithinTheBounds) {
  WaitingLine line({});
  line.add(input(1, 10, Priority::kLow));
  line.add(input(2, 10));
  line.add(input(3, 10, Priority::kHigh));
  line.add(input(4, 10));
  auto choice = line.choose(30, 8);
  EXPECT_TRUE(choice.full);
  EXPECT_EQ(choice.cost, 30);
  EXPECT_EQ(ids(line.take(choice, 3)), (Ids{3, 2, 4}));
  EXPECT_EQ(line.size(), 1);
  EXPECT_EQ(line.cost(), 10);
  choice = line.choose(30, 8);
  EXPECT_FALSE(choice.full);
  EXPECT_EQ(ids(line.take(choice, 1)), (Ids{1}));
  EXPECT_TRUE(line.empty());
}

TEST(WaitingLine, SmallOnesFillABatchAndWhatDoesNotFitIsNotPassedForEver) {
  WaitingLine line({});
  line.add(input(1, 100));
  OneShotId next = 2;
  for (int round = 0; round < WaitingLine::kPassesMax; ++round) {
    const OneShotId urgent = next++, small = next++;
    line.add(input(urgent, 10, Priority::kHigh));
    line.add(input(small, 10));
    const auto choice = line.choose(30, 8);
    EXPECT_EQ(ids(line.take(choice, choice.inputs.size())), (Ids{urgent, small})) << "the large one does not fit";
  }
  line.add(input(next, 10, Priority::kHigh));
  line.add(input(next + 1, 10));
  auto choice = line.choose(30, 8);
  EXPECT_EQ(ids(line.take(choice, choice.inputs.size())), (Ids{next})) << "nothing passes it any more";
  choice = line.choose(30, 8);
  EXPECT_EQ(ids(line.take(choice, choice.inputs.size())), (Ids{1})) << "as the first it is taken whatever it costs";
}

TEST(WaitingLine, TimeoutsRejectOrDelayAsThePolicySays) {
  std::array<QueuePolicy, 3> policies;
  policies[WaitingLine::level(Priority::kNormal)] = {.timeout_s = 1, .reject = true};
  policies[WaitingLine::level(Priority::kLow)] = {.timeout_s = 1, .timeout_override = false, .reject = false};
  WaitingLine line(policies);
  line.add(input(1, 1, Priority::kNormal, 0));
  line.add(input(2, 1, Priority::kNormal, 0, 5));  // its own deadline counts
  line.add(input(3, 1, Priority::kLow, 0, 0.1));   // its own does not
  line.add(input(4, 1, Priority::kLow, 0.5));
  EXPECT_TRUE(line.expire(at(0.9)).empty());
  EXPECT_EQ(ids(line.expire(at(1.0))), (Ids{1}));
  EXPECT_EQ(line.size(), 3);
  // 3 is past its time and goes behind 4.
  const auto choice = line.choose(100, 8);
  EXPECT_EQ(ids(line.take(choice, 3)), (Ids{2, 4, 3}));
}

TEST(WaitingLine, CancelsARange) {
  WaitingLine line({});
  for (OneShotId id = 1; id <= 5; ++id) line.add(input(id, 2));
  EXPECT_EQ(ids(line.cancel(2, 3)), (Ids{2, 3, 4}));
  EXPECT_EQ(line.cost(), 4);
  EXPECT_EQ(ids(line.cancel(4, 100)), (Ids{5}));
}

TEST(LatencyTable, ExpectsWhatLiesBetweenMeasurements) {
  LatencyTable table;
  const auto truth = [](int64_t cost, int inputs) { return 0.002 + 1e-5 * double(cost) + 1e-4 * inputs; };
  for (int inputs = 1; inputs <= 64; inputs *= 2) {
    for (const int64_t each : {16, 128, 384}) {
      for (int i = 0; i < 4; ++i) table.add(each * inputs, inputs, truth(each * inputs, inputs), at(0));
    }
  }
  EXPECT_NEAR(table.predict(1000, 10), truth(1000, 10), 0.05 * truth(1000, 10));
  EXPECT_NEAR(table.predict(12'000, 60), truth(12'000, 60), 0.05 * truth(12'000, 60));
  // One hiccup does not change much.
  table.add(128, 1, 10, at(1));
  EXPECT_LT(table.predict(128, 1), 2 * truth(128, 1));
}

TEST(LatencyTable, ImagesCostWhatTheyCount) {
  LatencyTable table;
  for (int inputs = 1; inputs <= 32; inputs *= 2) table.add(inputs, inputs, 0.001 + 0.0005 * inputs, at(0));
  EXPECT_NEAR(table.predict(20, 20), 0.011, 0.001);
  EXPECT_NEAR(table.predict(1, 1), 0.0015, 0.0003);
}

BatchScheduler scheduler(double delay_max_s = 0) {
  BatchLimitOptions limits{.cost_max = 1024, .inputs_max = 8, .delay_max_s = delay_max_s};
  BatchScheduler scheduler(limits, {});
  // A fixed time and little for an input: batches pay.
  for (int inputs = 1; inputs <= 8; inputs *= 2) {
    for (int i = 0; i < 3; ++i) scheduler.measured(64 * inputs, inputs, 0.01 + 0.0001 * inputs, at(0));
  }
  scheduler.warmed_up();
  return scheduler;
}

TEST(BatchScheduler, AFreeDeviceTakesWhatWaits) {
  BatchScheduler one = scheduler();
  EXPECT_EQ(one.due(at(1)), TimePoint::max());
  one.add({input(1, 64, Priority::kNormal, 1), input(2, 64, Priority::kNormal, 1)}, true, at(1));
  EXPECT_LE(one.due(at(1)), at(1));
  const BatchDecision decision = one.next(at(1));
  EXPECT_EQ(decision.reason, BatchReason::kGreedy);
  EXPECT_EQ(ids(decision.launch), (Ids{1, 2}));
  EXPECT_EQ(decision.cost, 128);
}

TEST(BatchScheduler, FullBatchesAreBounded) {
  BatchScheduler one = scheduler();
  std::vector<WaitingInput> many;
  for (OneShotId id = 1; id <= 20; ++id) many.push_back(input(id, 64, Priority::kNormal, 1));
  one.add(many, true, at(1));
  const BatchDecision decision = one.next(at(1));
  EXPECT_EQ(decision.launch.size(), 8u);
  EXPECT_EQ(decision.reason, BatchReason::kFull);
}

TEST(BatchScheduler, ABatchIsNoLargerThanTheNearestDeadlineAllows) {
  BatchLimitOptions limits{.cost_max = 1024, .inputs_max = 8};
  BatchScheduler one(limits, {});
  for (int inputs = 1; inputs <= 8; inputs *= 2) {
    for (int i = 0; i < 3; ++i) one.measured(64 * inputs, inputs, 0.02 + 0.001 * inputs, at(0));
  }
  one.warmed_up();
  std::vector<WaitingInput> many;
  for (OneShotId id = 1; id <= 8; ++id) many.push_back(input(id, 64, Priority::kNormal, 1, id == 1 ? 1.0245 : 0));
  one.add(many, true, at(1));
  const BatchDecision decision = one.next(at(1));
  EXPECT_EQ(decision.reason, BatchReason::kDeadline);
  EXPECT_EQ(decision.launch.size(), 4u);
  EXPECT_EQ(decision.launch.front().id, 1u);
}

TEST(BatchScheduler, ExpiredInputsAreNotComputed) {
  BatchScheduler one = scheduler();
  one.add({input(1, 64, Priority::kNormal, 1, 1.5), input(2, 64, Priority::kNormal, 1)}, true, at(1));
  const BatchDecision decision = one.next(at(2));
  EXPECT_EQ(ids(decision.expired), (Ids{1}));
  EXPECT_EQ(ids(decision.launch), (Ids{2}));
}

// A scheduler whose smallest batch takes 21 ms.
BatchScheduler slow_scheduler() {
  BatchScheduler one(BatchLimitOptions{.cost_max = 1024, .inputs_max = 8}, {});
  for (int inputs = 1; inputs <= 8; inputs *= 2) {
    for (int i = 0; i < 3; ++i) one.measured(64 * inputs, inputs, 0.02 + 0.001 * inputs, at(0));
  }
  one.warmed_up();
  return one;
}

TEST(BatchScheduler, WhatCannotEndInTimeIsNotComputed) {
  BatchScheduler one = slow_scheduler();
  one.add({input(1, 64, Priority::kNormal, 1, 1.01), input(2, 64, Priority::kNormal, 1, 1.1)}, true, at(1));
  const BatchDecision decision = one.next(at(1));
  EXPECT_EQ(ids(decision.expired), (Ids{1}));
  EXPECT_EQ(ids(decision.launch), (Ids{2}));
}

TEST(BatchScheduler, WithNothingElseToDoOneThatSeemsLateIsTried) {
  BatchScheduler one = slow_scheduler();
  one.add({input(1, 64, Priority::kNormal, 1, 1.01), input(2, 64, Priority::kNormal, 1, 1.015)}, true, at(1));
  const BatchDecision decision = one.next(at(1));
  EXPECT_EQ(ids(decision.expired), (Ids{1}));
  EXPECT_EQ(ids(decision.launch), (Ids{2}));
}

TEST(AnswerMargin, GrowsWithLateBatchesAndIsForgottenSlowly) {
  AnswerMargin margin;
  margin.add(0, 8, 0.01);
  EXPECT_EQ(margin.seconds(), 0);
  margin.add(4, 8, 0.01);
  const double grown = margin.seconds();
  EXPECT_NEAR(grown, 0.005, 1e-4);
  margin.add(0, 8, 0.01);
  EXPECT_LT(margin.seconds(), grown);
  EXPECT_GT(margin.seconds(), 0.99 * grown);
  for (int i = 0; i < 100; ++i) margin.add(8, 8, 0.01);
  EXPECT_DOUBLE_EQ(margin.seconds(), AnswerMargin::kBatchesMax * 0.01);
  for (int i = 0; i < 10'000; ++i) margin.add(0, 8, 0.01);
  EXPECT_EQ(margin.seconds(), 0);
}

TEST(OneShotAdmission, ARequestOfManyInputsIsTakenWhereNobodyWaits) {
  std::vector<OneShotRequest> requests(2048);
  for (OneShotRequest& request : requests) request.tokens.assign(3, 1);
  OneShotEngineOptions options;
  options.queue.requests_max = 100;
  OneShotLoad load;
  EXPECT_FALSE(check_load(requests, load, options, at(1)));
  load.waiting[1] = 1;
  const auto refusal = check_load(requests, load, options, at(1));
  ASSERT_TRUE(refusal);
  EXPECT_EQ(refusal->reason, Refusal::Reason::kQueueRequests);
}

TEST(OneShotAdmission, AnInputIsPredictedToEndWithTheBatchThatItIsIn) {
  OneShotLoad load;
  load.batch_cost = 1000;
  load.batch_s = 0.02;
  load.base_s = 0.001;
  EXPECT_DOUBLE_EQ(predicted_answer_s(load, Priority::kNormal, 100), 0.002);
  load.cost[1] = 500;  // goes with it
  EXPECT_DOUBLE_EQ(predicted_answer_s(load, Priority::kNormal, 100), 0.012);
  EXPECT_DOUBLE_EQ(predicted_answer_s(load, Priority::kHigh, 100), 0.002) << "passes those";
  load.running = 1;
  load.batch_left_s = 0.007;
  load.cost[1] = 1500;  // a full batch, and half of one
  EXPECT_DOUBLE_EQ(predicted_answer_s(load, Priority::kNormal, 100), 0.007 + 0.02 + 0.012);

  std::vector<OneShotRequest> requests(1);
  requests[0].tokens.assign(100, 1);
  requests[0].deadline = at(1) + from_seconds(0.045);
  const OneShotEngineOptions options;
  EXPECT_FALSE(check_load(requests, load, options, at(1)));
  load.margin_s = 0.007;
  const auto refusal = check_load(requests, load, options, at(1));
  ASSERT_TRUE(refusal);
  EXPECT_EQ(refusal->reason, Refusal::Reason::kDeadline);
}

}  // namespace
}  // namespace spillway::engine
