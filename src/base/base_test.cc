#include <gtest/gtest.h>

#include <set>
#include <thread>

#include "base/bounded_queue.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/progress_lines.h"
#include "base/random_bytes.h"
#include "base/result.h"

namespace spillway {
namespace {

Result<int> half(int value) {
  if (value % 2) return invalid("expected an even number, found " + std::to_string(value));
  return value / 2;
}

Result<int> quarter(int value) {
  SW_ASSIGN(const int first, half(value));
  return half(first);
}

TEST(Result, PassesValuesAndErrorsThrough) {
  EXPECT_EQ(*quarter(12), 3);
  const auto failed = quarter(6);
  ASSERT_FALSE(failed.ok());
  EXPECT_EQ(failed.error().code, ErrorCode::kInvalidArgument);
  EXPECT_EQ(failed.error().message, "expected an even number, found 3");
  EXPECT_EQ(Error(failed.error()).in("here").message, "here: expected an even number, found 3");
}

TEST(ResultDeathTest, ValueOfAnErrorIsABug) { EXPECT_DEATH(half(1).value(), "expected an even number"); }

TEST(Log, RefusesUnknownLevelsAndFormats) {
  EXPECT_FALSE(configure_log("loud", "text").ok());
  EXPECT_FALSE(configure_log("info", "xml").ok());
  EXPECT_TRUE(configure_log("warn", "json").ok());
}

TEST(ProgressLines, SaysALineASecondAtMost) {
  SimulatedClock clock;
  ProgressLines lines("recording", 5, clock);
  EXPECT_EQ(lines.step(), std::nullopt);
  clock.advance(std::chrono::milliseconds(1200));
  EXPECT_EQ(lines.step(), "recording: 2 of 5");
  clock.advance(std::chrono::milliseconds(900));
  EXPECT_EQ(lines.step(), std::nullopt);
  clock.advance(std::chrono::milliseconds(200));
  EXPECT_EQ(lines.step(), "recording: 4 of 5");
}

TEST(BoundedQueue, RefusesWhenFullAndWhenClosed) {
  BoundedQueue<int> queue(2);
  EXPECT_TRUE(queue.push(1));
  EXPECT_TRUE(queue.push(2));
  EXPECT_FALSE(queue.push(3));
  EXPECT_EQ(queue.try_pop(), 1);
  queue.close();
  EXPECT_FALSE(queue.push(4));
  EXPECT_EQ(queue.try_pop(), 2);
  EXPECT_EQ(queue.pop_until(std::chrono::steady_clock::now() + std::chrono::hours(1)), std::nullopt);
}

TEST(BoundedQueue, WakesAWaitingConsumer) {
  BoundedQueue<int> queue(1);
  std::thread producer([&] { queue.push(7); });
  EXPECT_EQ(queue.pop_until(std::chrono::steady_clock::now() + std::chrono::seconds(10)), 7);
  producer.join();
}

TEST(RandomBytes, AreDifferentAcrossBlocksAndThreads) {
  std::set<std::string> drawn;
  for (int i = 0; i < 200; ++i) drawn.insert(random_hex(16));
  std::string elsewhere;
  std::thread([&] { elsewhere = random_hex(16); }).join();
  drawn.insert(elsewhere);
  EXPECT_EQ(drawn.size(), 201u);
  for (const std::string& text : drawn) EXPECT_EQ(text.find_first_not_of("0123456789abcdef"), std::string::npos);
  EXPECT_EQ(random_hex(2500).size(), 5000u);  // more than a block
}

TEST(SimulatedClock, MovesOnlyWhenTold) {
  SimulatedClock clock;
  const TimePoint before = clock.now();
  clock.advance(from_seconds(1.5));
  EXPECT_DOUBLE_EQ(seconds(clock.now() - before), 1.5);
}

}  // namespace
}  // namespace spillway
