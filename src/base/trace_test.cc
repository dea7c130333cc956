#include "base/trace.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <boost/json.hpp>
#include <thread>
#include <vector>

namespace spillway::trace {
namespace {

boost::json::array events_of(const std::string& trace) {
  return boost::json::parse(trace).at("traceEvents").as_array();
}

TEST(Trace, NothingIsRecordedWhileOff) {
  { Span span("test", "before"); }
  ASSERT_TRUE(start());
  EXPECT_FALSE(start()) << "two traces at once";
  const std::string trace = stop();
  EXPECT_EQ(trace.find("before"), std::string::npos);
}

TEST(Trace, SpansCountersAndAsyncSpansOfAllThreads) {
  ASSERT_TRUE(start());
  {
    Span span("test", "outer", "rows", 7);
    Span inner("test", "inner");
  }
  std::thread([] {
    name_thread("worker \"1\"");
    Span span("test", "elsewhere");
  }).join();
  counter("queue", 3);
  end_async("io", "write", 0xab, begin_async(), "bytes", 42);
  std::vector<std::string> seen;
  for (const auto& event : events_of(stop())) {
    seen.push_back(std::string(event.at("ph").as_string()) + " " + std::string(event.at("name").as_string()));
    if (event.at("name") == "outer") {
      EXPECT_EQ(event.at("args").at("rows"), 7);
      EXPECT_GE(event.at("dur").to_number<double>(), 0);
    }
  }
  EXPECT_THAT(seen, testing::IsSupersetOf({"X outer", "X inner", "X elsewhere", "C queue", "b write", "e write"}));
}

TEST(Trace, AFullRingKeepsTheNewest) {
  ASSERT_TRUE(start());
  for (int i = 0; i < 70000; ++i) counter("count", i);
  EXPECT_EQ(overwritten(), 70000u - 65536u);
  const auto events = events_of(stop());
  EXPECT_EQ(events.back().at("args").at("value"), 69999);
}

TEST(Trace, StartsAnewEachTime) {
  ASSERT_TRUE(start());
  counter("first", 1);
  stop();
  ASSERT_TRUE(start());
  counter("second", 2);
  const std::string trace = stop();
  EXPECT_EQ(trace.find("first"), std::string::npos);
  EXPECT_NE(trace.find("second"), std::string::npos);
}

}  // namespace
}  // namespace spillway::trace
