#include "metrics/timeline.h"

#include <gtest/gtest.h>

namespace spillway::metrics {
namespace {

using Kind = Moment::Kind;

TimePoint at(int ms) { return TimePoint(std::chrono::milliseconds(ms)); }

TEST(Timeline, KeepsMomentsInOrderAndKnowsItsNames) {
  Timelines timelines(8);
  const auto timeline = timelines.begin("r-1", "/v1/chat/completions", at(0));
  timeline->add(Kind::kQueued, at(1), 12);
  timeline->add(Kind::kAttempt, at(2), 0, 0, "edge-1");
  timeline->answers_as("chatcmpl-7");
  timeline->set_model("tiny");
  const auto snapshot = timelines.find("chatcmpl-7")->snapshot();
  ASSERT_EQ(snapshot.moments.size(), 2u);
  EXPECT_EQ(snapshot.moments[0].kind, Kind::kQueued);
  EXPECT_EQ(snapshot.moments[1].note, "edge-1");
  EXPECT_EQ(snapshot.model, "tiny");
  EXPECT_FALSE(snapshot.ended);
  timeline->add(Kind::kAnswered, at(9), 200);
  EXPECT_TRUE(timelines.find("r-1")->snapshot().ended);
}

TEST(Timeline, ManyTokensAreThinnedAndStayInOrder) {
  Timeline timeline("r", "/", at(0));
  for (int i = 1; i <= 10000; ++i) timeline.add(Kind::kTokens, at(i), i, 1);
  timeline.add(Kind::kAnswered, at(10001), 200);
  const auto moments = timeline.snapshot().moments;
  EXPECT_LE(moments.size(), 100u);
  EXPECT_GE(moments.size(), 40u);
  for (size_t i = 1; i < moments.size(); ++i) EXPECT_LT(moments[i - 1].at, moments[i].at);
  EXPECT_EQ(moments.back().kind, Kind::kAnswered);
}

TEST(Timeline, IsBoundedWhateverComes) {
  Timeline timeline("r", "/", at(0));
  for (int i = 0; i < 5000; ++i) timeline.add(Kind::kFailed, at(i), 0, 0, std::string(1000, 'x'));
  const auto snapshot = timeline.snapshot();
  EXPECT_EQ(snapshot.moments.size(), 256u);
  EXPECT_EQ(snapshot.dropped, 5000 - 256);
  EXPECT_EQ(snapshot.moments[0].note.size(), 120u);
}

TEST(Timelines, AreFoundByIdExactlyAsLongAsTheyAreKept) {
  Timelines timelines(64);
  for (int i = 0; i < 1000; ++i) {
    timelines.begin("r" + std::to_string(i), "/", at(i));
    for (int back : {0, 1, 30, 63, 64, 200}) {
      if (back > i) continue;
      const auto found = timelines.with_id("r" + std::to_string(i - back));
      ASSERT_EQ(found != nullptr, back < 64) << i << " " << back;
      if (found) EXPECT_EQ(found->received(), at(i - back));
    }
  }
  timelines.begin("r990", "/again", at(1000));
  EXPECT_EQ(timelines.with_id("r990")->route(), "/again");
}

TEST(Timelines, RefusedOnesTakeSoManyPlacesASecond) {
  Timelines timelines(8);
  int places = 0;
  for (int ms = 1000; ms < 3000; ++ms) places += timelines.has_place_for_refused(at(ms)) ? 1 : 0;
  EXPECT_EQ(places, 40);
}

TEST(Timelines, TheOldestGoesFirst) {
  Timelines timelines(3);
  for (int i = 0; i < 5; ++i) timelines.begin("r" + std::to_string(i), "/", at(i));
  EXPECT_EQ(timelines.find("r1"), nullptr);
  EXPECT_NE(timelines.find("r2"), nullptr);
  const auto recent = timelines.recent(2);
  ASSERT_EQ(recent.size(), 2u);
  EXPECT_EQ(recent[0]->id(), "r4");
  EXPECT_EQ(timelines.begun(), 5u);
}

}  // namespace
}  // namespace spillway::metrics
