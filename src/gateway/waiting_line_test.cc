#include "gateway/waiting_line.h"

#include <gtest/gtest.h>

#include <vector>

namespace spillway::gateway {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using Turn = WaitingLine::Turn;

const TimePoint kStart = TimePoint() + std::chrono::hours(1);
const TimePoint kFar = kStart + std::chrono::hours(1);

std::shared_ptr<WaitingLine::Place> enter(WaitingLine& line, int priority, TimePoint at = kStart,
                                          TimePoint deadline = kFar) {
  return line
      .enter(
          {"m", priority, at, deadline, deadline}, [] {}, at)
      .place;
}

TEST(WaitingLine, HigherPrioritiesGoFirstAndDisplaceTheYoungestLowest) {
  WaitingLine line(2);
  const auto old_low = enter(line, -1), young_low = enter(line, -1);
  EXPECT_TRUE(line.enter(
                      {"m", -1, kStart, kFar, kFar}, [] {}, kStart)
                  .full);
  const auto high = enter(line, 1);
  ASSERT_NE(high, nullptr);
  EXPECT_EQ(line.turn(*young_low, kStart), Turn::kDisplaced);
  EXPECT_EQ(line.turn(*old_low, kStart), Turn::kBehind);
  EXPECT_EQ(line.turn(*high, kStart), Turn::kFirst);
  EXPECT_TRUE(line.came("m", 1, kStart));
  EXPECT_FALSE(line.came("other", -1, kStart));
  line.leave(high, true, kStart);
  EXPECT_FALSE(line.came("m", 0, kStart));
  EXPECT_TRUE(line.came("m", -1, kStart));
  line.leave(young_low, false, kStart);
  line.leave(old_low, false, kStart);
  EXPECT_EQ(line.size(), 0u);
}

TEST(WaitingLine, OthersMayLookOnlyAfterTheFirstFoundNothing) {
  WaitingLine line(10);
  const auto first = enter(line, 0), second = enter(line, 0);
  EXPECT_EQ(line.turn(*second, kStart), Turn::kBehind);
  EXPECT_EQ(line.turn(*first, kStart), Turn::kFirst);
  line.found_nothing(*first);
  EXPECT_EQ(line.turn(*second, kStart), Turn::kAfter);
  line.freed();
  EXPECT_EQ(line.turn(*second, kStart), Turn::kBehind);
  // Room that came while it looked is still its own to see.
  EXPECT_EQ(line.turn(*first, kStart), Turn::kFirst);
  line.freed();
  line.found_nothing(*first);
  EXPECT_EQ(line.turn(*second, kStart), Turn::kBehind);
}

TEST(WaitingLine, TheOldestGoesFirstWhoeverEnteredBefore) {
  WaitingLine line(10);
  const auto young = enter(line, 0, kStart + seconds(2));
  const auto old = line.enter(
                           {"m", 0, kStart, kFar, kFar}, [] {}, kStart + seconds(3))
                       .place;
  EXPECT_EQ(line.turn(*old, kStart + seconds(3)), Turn::kFirst);
  EXPECT_EQ(line.turn(*young, kStart + seconds(3)), Turn::kBehind);
}

// Ten a second go: of 30 who wait, 20 with a deadline of two seconds may.
TEST(WaitingLine, RefusesAtOnceWhoWouldBeTooLate) {
  WaitingLine line(1000);
  const auto first = enter(line, 1);
  TimePoint at = kStart;
  for (int i = 0; i < 50; ++i) line.passed("m", at += milliseconds(100));
  line.answered("m", milliseconds(100));
  std::vector<std::shared_ptr<WaitingLine::Place>> in;
  Duration wait{};
  for (int i = 0; i < 30; ++i) {
    auto entered = line.enter(
        {"m", 0, at, at + seconds(2), at + seconds(2)}, [] {}, at);
    EXPECT_FALSE(entered.full);
    wait = entered.wait;
    if (entered.place) in.push_back(std::move(entered.place));
  }
  EXPECT_NEAR(double(in.size()), 16, 1);
  EXPECT_NEAR(spillway::seconds(wait), 1.8, 0.2);
  // Nobody goes any more: those at the back are told before their time is over, the first is kept.
  at += milliseconds(1500);
  EXPECT_EQ(line.turn(*in.back(), at), Turn::kLate);
  EXPECT_EQ(line.turn(*first, at), Turn::kFirst);
  line.leave(in.back(), false, at);
}

// What comes with a higher priority goes first, so those of a low one wait for what is left over.
TEST(LineEstimate, CountsWhoWillComeWithAHigherPriority) {
  LineEstimate estimate;
  TimePoint at = kStart;
  estimate.busy(at);
  EXPECT_EQ(estimate.wait(1000, 0, at), Duration::zero());  // nothing is known
  for (int i = 0; i < 1000; ++i) {
    at += milliseconds(10);
    estimate.went(at);
    if (i % 10 < 9) estimate.came(1, at);
  }
  EXPECT_NEAR(spillway::seconds(estimate.wait(19, 1, at)), 0.2, 0.02);
  EXPECT_NEAR(spillway::seconds(estimate.wait(19, 0, at)), 2, 0.3);
  EXPECT_NEAR(spillway::seconds(estimate.wait(999, 0, at)), 19, 1);  // the onrush lasts as long again: ten seconds
  estimate.idle(at);
  at += seconds(100);
  estimate.busy(at);
  EXPECT_NEAR(spillway::seconds(estimate.wait(19, 0, at)), 0.2, 0.02);  // a new one has only begun
}

TEST(LineEstimate, AllowsForSlowAnswers) {
  LineEstimate estimate;
  EXPECT_EQ(estimate.service(), Duration::zero());
  for (int i = 0; i < 200; ++i) estimate.answered(milliseconds(i % 2 == 0 ? 50 : 150));
  EXPECT_NEAR(spillway::seconds(estimate.service()), 0.2, 0.02);
}

}  // namespace
}  // namespace spillway::gateway
